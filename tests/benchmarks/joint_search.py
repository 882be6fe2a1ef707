"""Architecture, training and bits in one study, against two steps and against random, at equal wall time.

    python -m tests.benchmarks.joint_search --experiment har_architectures --seconds 420 --seeds 3 --jobs 9 task.root=FILE.npz
    python -m tests.benchmarks.joint_search --experiment cifar10_architectures --gpus 2 --jobs 9 --worst-metric 50 task.root=FOLDER

With `--gpus`, all methods of a seed share one accelerator.

Methods, each with its own cache, which holds nothing but the trained reference network:

- `joint`: the experiment as it is, with the surrogate.
- `two_steps`: 70 % of the time on architectures in 8 bits at the quantize stage's defaults, with the same sampler; the rest on the
  quantization of the winner (the study's own pick). Its front is that of both studies together.
- `random`: the experiment with `sampler=random`.

Printed: hypervolume of the fronts on the test split, in the objectives metric, modelled latency and packed bytes, once with costs on a
linear scale and once on a logarithmic one; ratios to `joint` with their range over seeds; numbers of trials and of trainings. The reference
point is `--worst-metric`, and the latency and packed size of the reference network in 8 bits.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from search.record.hypervolume import hypervolume

METHODS = ("joint", "two_steps", "random")
COMMON = ["tracker=none", "knowledge=none", "study.report=false", "executor=serial", "study.n_trials=100000"]
FIRST_SHARE = 0.7
EIGHT_BITS = "space.quantize={weight_bits: 8, calibration_images: 256}"


@dataclass(frozen=True)
class Run:
    """One method with one seed."""

    method: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]
    seconds: float
    gpus: int = 0

    def run(self) -> list[Path]:
        """Runs the method's studies; returns their folders."""
        if self.method != "two_steps":
            sampler = "random" if self.method == "random" else "surrogate"
            return [self._study("study", self.seconds, f"sampler={sampler}")]
        first = self._study("first", FIRST_SHARE * self.seconds, "~space.quantize", f"+{EIGHT_BITS}")
        knobs = json.loads((first / "summary.json").read_text())["best"]["knobs"]
        fixed = [f"space.{name}={value}" for name, value in knobs.items() if name.startswith("architecture.")]
        return [first, self._study("second", (1 - FIRST_SHARE) * self.seconds, *fixed)]

    def _study(self, name: str, seconds: float, *overrides: str) -> Path:
        folder = self.folder / name
        limit = [f"study.time_limit={seconds:.0f} s", f"study.dir={folder}", f"study.name={name}"]
        call([*self.overrides, *limit, f"seed={self.seed}", f"cache_dir={self.folder / 'cache'}", *overrides], self.folder / f"{name}.log", self._environment())  # fmt: skip
        return folder

    def _environment(self) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": str(self.seed % self.gpus)} if self.gpus else {}


def call(overrides: list[str], log: Path, environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """Runs `paredown` with overrides; exit status 3 (nothing feasible) is a result, too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        done = subprocess.run([sys.executable, "-m", "search", *COMMON, *overrides], stdout=out, stderr=out, check=False, env={**os.environ, **environment})  # fmt: skip
    if done.returncode not in (0, 3):
        sys.exit(f"{log}: exit status {done.returncode}\n{log.read_text()[-3000:]}")


def points(folders: list[Path]) -> np.ndarray:
    """Returns the front's `(n, 3)` test metric, latency and packed bytes, as told after the search."""
    rows = pd.concat([pd.read_csv(folder / "pareto.csv") for folder in folders])
    metric = next(c for c in rows if c.startswith("metric.test_") and c.count("_") == 1)
    latency = next(c for c in rows if c.endswith(".latency_ms"))
    return rows[[metric, latency, "metric.packed_bytes"]].to_numpy(float)


def volume(found: np.ndarray, reference: np.ndarray, logarithmic: bool) -> float:
    """Returns the hypervolume as a share of the box between the reference point and the ideal one.

    The ideal is a metric of 100 and costs of 0, or of a hundredth of the reference's on the logarithmic scale.
    """
    gain = (found[:, 0] - reference[0]) / (100 - reference[0])
    ratio = np.maximum(found[:, 1:] / reference[1:], 0.01)
    saved = np.log(1 / ratio) / np.log(100) if logarithmic else 1 - ratio
    better = np.column_stack([gain, saved])
    return float(hypervolume(-better, np.zeros(3)))


def counts(folders: list[Path]) -> tuple[int, int]:
    """Returns the numbers of trials and of trained architectures."""
    rows = [pd.read_csv(folder / "trials.csv") for folder in folders]
    trained = [r[r["seconds.train"] > 0] for r in rows if "seconds.train" in r]
    keys = {tuple(row) for r in trained for row in r.filter(like="knob.architecture").astype(str).to_numpy()}
    return sum(map(len, rows)), len(keys)


def main() -> None:
    """Runs all methods and seeds, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--worst-metric", type=float, default=80.0)
    parser.add_argument("--folder", type=Path, default=Path("joint_search"))
    given, overrides = parser.parse_known_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    base = (f"experiment={given.experiment}", *overrides)
    cache = given.folder / "cache"
    call([*base, "study.n_trials=1", f"study.dir={given.folder / 'reference'}", f"cache_dir={cache}"], given.folder / "reference.log")  # fmt: skip
    shutil.rmtree(cache / "stages", ignore_errors=True)
    runs = [Run(m, s, given.folder / f"{m}_{s}", base, given.seconds, given.gpus) for s in range(given.seeds) for m in given.methods.split(",")]  # fmt: skip
    for run in runs:
        shutil.copytree(cache, run.folder / "cache")
    with ThreadPoolExecutor(given.jobs) as pool:
        folders = list(pool.map(Run.run, runs))
    report(runs, folders, given.folder / "reference", given.worst_metric)


def report(runs: list[Run], folders: list[list[Path]], reference: Path, worst_metric: float) -> None:
    """Prints a row per run, and the ratios."""
    row = pd.read_csv(reference / "trials.csv").iloc[0]
    latency = row[next(c for c in row.index if c.endswith(".latency_ms"))]
    corner = np.array([worst_metric, latency, row["metric.packed_bytes"]])
    print(f"reference point: metric {corner[0]:.1f}, latency {corner[1]:.3f} ms, {corner[2]:.0f} bytes")
    rows = []
    for run, found in zip(runs, folders, strict=True):
        n_trials, n_trained = counts(found)
        values = points(found)
        rows.append({"method": run.method, "seed": run.seed, "linear": volume(values, corner, False),
                     "log": volume(values, corner, True), "trials": n_trials, "trainings": n_trained,
                     "front": len(values), "best": values[:, 0].max()})  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.round(4).to_string(index=False))
    for scale in ("linear", "log"):
        wide = table.pivot_table(index="seed", columns="method", values=scale)
        for method in wide.columns.drop("joint", errors="ignore") if "joint" in wide else ():
            ratio = wide["joint"] / wide[method]
            print(f"{scale}: joint / {method} {ratio.mean():.3f} [{ratio.min():.3f}, {ratio.max():.3f}]")


if __name__ == "__main__":
    main()
