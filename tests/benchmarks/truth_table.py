r"""Measures every candidate of a space once: the truth table that searches are judged against.

In steps, so that the long one can run on a machine without network, with nothing but numpy, onnx and
onnxruntime:

    python tests/benchmarks/truth_table.py prepare --data DATA --to FOLDER [--networks resnet20 resnet32 mobilenet_v2]
    python tests/benchmarks/truth_table.py measure FOLDER resnet20 --jobs 16 --out PARTS
    python tests/benchmarks/truth_table.py merge FOLDER resnet20 --out PARTS
    python tests/benchmarks/truth_table.py statistics FOLDER resnet20 --out PARTS

DATA holds `cifar10/`, `imagenet_sample/` and `weights/`. `measure` continues where it was stopped; `merge`
writes `PARTS/NETWORK.csv` (task, knob.*, metric.*, cost.*), `statistics` the statistics that are computed
without running a candidate, with their rank correlation with the measurements. Besides every candidate's
metrics the parts hold for every example whether the prediction is right, whether it is the float network's,
and the power of the output's noise, so that low-fidelity evaluations on any examples can be replayed
(`replayed_low_fidelity.py`).

Accuracy is that on the CIFAR-10 test images (or 400 images of an ImageNet sample), which here are the validation split: the
benchmark is about the search, not about how its pick generalises.
"""

import argparse
import json
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))  # where the project is not installed

from evaluators.base import EvaluationContext, Reference
from evaluators.cost.cost import CostEvaluator
from evaluators.devices.config import device_from_config
from evaluators.runtime import run_split
from evaluators.task.data.splits import Normalise
from evaluators.task.metrics.top1 import Top1
from evaluators.task.paired_estimate import PairedReference
from spaces.errors import ParedownError
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

DEVICES = ("stm32h743", "gap9", "raspberry_pi_4")
NETWORKS = {
    "resnet20": ("cifar10", "weights/resnet20-12fca82f.th"),
    "resnet32": ("cifar10", "weights/resnet32-d509ac18.th"),
    "mobilenet_v2": ("imagenet_sample", "weights/mobilenet_v2-b0353104.pth"),
}
SPACE = "weights_wide"
N_CALIBRATION = 1024
ROWS_PER_PART = 500
SECONDS_BETWEEN_WRITES = 30
PER_EXAMPLE = ("right", "agree", "noise")

Codes = NDArray[np.uint8]


# -- prepare: everything that needs torch, Hydra or Optuna -----------------------------------------------


def prepare(data: Path, folder: Path, networks: Sequence[str]) -> None:
    """Writes float networks, images and candidates."""
    folder.mkdir(parents=True, exist_ok=True)
    for network in networks:
        began = time.perf_counter()
        task, checkpoint = NETWORKS[network]
        n = _prepare(network, task, data, data / checkpoint, folder)
        print(f"{network}: {n} distinct candidates, {time.perf_counter() - began:.0f} s", flush=True)
    print(f"{sum(f.stat().st_size for f in folder.iterdir()) / 2**20:.1f} MiB in {folder}")


def _prepare(network: str, task: str, data: Path, checkpoint: Path, folder: Path) -> int:
    from search.api import compose
    from search.planning.loading import load

    config = compose(
        [
            f"model={network}",
            f"model.checkpoint={checkpoint}",
            f"task={'cifar10' if task == 'cifar10' else 'image_folder'}",
            f"task.root={data / task}",
            f"space={SPACE}",
            f"device=[{','.join(DEVICES)}]",
            f"cache_dir={folder / '.cache'}",
            f"study.dir={folder / '.study'}",
            "tracker=none",
        ]
    )
    loaded = load(config, lambda text: None)
    splits = loaded.splits
    judged = [splits.test] if task == "cifar10" else [splits.validation, splits.test]
    calibration = splits.calibration
    n_calibration = min(N_CALIBRATION, len(calibration))
    if not (folder / f"{task}.npz").exists():
        write_arrays(
            folder / f"{task}.npz",
            x=deltas(np.concatenate([s.raw[:] for s in judged])),  # type: ignore[attr-defined]
            y=np.concatenate([s.labels for s in judged]).astype(np.int16),  # type: ignore[attr-defined]
            calibration_x=deltas(calibration.raw[:n_calibration]),  # type: ignore[attr-defined]
            calibration_y=calibration.labels[:n_calibration].astype(np.int16),  # type: ignore[attr-defined]
        )
    context = StageContext(_FirstOf(calibration, n_calibration), loaded.stage_context.cache)
    candidates = _distinct(loaded, context)
    (folder / f"{network}.onnx").write_bytes(loaded.start.onnx_bytes)
    held = {
        "network": network,
        "data": task,
        "input": asdict(loaded.start.input),
        "transform": asdict(calibration.transform),  # type: ignore[attr-defined]
        "devices": {name: config.data["device"][name] for name in DEVICES},
        "candidates": candidates,
    }
    (folder / f"{network}.json").write_text(json.dumps(held))
    return len(candidates)


@dataclass
class _FirstOf:
    """The first examples of a split: its length and digest only, which is all that stages read before they run."""

    split: Any
    n: int

    def __len__(self) -> int:
        return self.n

    @property
    def digest(self) -> str:
        return f"{self.split.digest}-{self.n}"


def _distinct(loaded: Any, context: StageContext) -> list[dict[str, Any]]:
    from search.record.suggest import params_of
    from spaces.stages.pipeline import canonical_key

    found: dict[str, dict[str, Any]] = {}
    for candidate in loaded.space.enumerate():
        values = loaded.pipeline.canonical(loaded.start, loaded.space, candidate, context)
        key = canonical_key(values)
        found.setdefault(key, {"key": key, "values": values["quantize"], "params": []})
        found[key]["params"].append(params_of(loaded.space, candidate))
    return list(found.values())


def deltas(images: NDArray[Any]) -> Codes:
    """Returns differences of neighbouring pixels `(n, height, width, channels)`, which compress better."""
    return np.diff(images, axis=2, prepend=np.zeros_like(images[:, :, :1])).astype(np.uint8)


def from_deltas(differences: Codes) -> Codes:
    """Returns the images of `differences`: the inverse of `deltas`."""
    return np.cumsum(differences, axis=2, dtype=np.uint8)


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Writes an `.npz` with LZMA compression, smaller than numpy's own; `np.load` reads it."""
    whole = path.with_suffix(".unfinished")
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    whole.replace(path)


# -- measure ----------------------------------------------------------------------------------------------


class Bench:
    """One network with its images: measures candidates.

    Args:
        folder: What `prepare` wrote.
        network: The network's name.
        cache: Folder of calibration statistics that processes share.
        runs: Whether models will be run.
    """

    def __init__(self, folder: Path, network: str, cache: Path | None, runs: bool = True) -> None:
        held = read_network(folder, network)
        transform = Normalise(**frozen(held["transform"]))
        with np.load(folder / f"{held['data']}.npz", allow_pickle=False) as arrays:
            self.split = ArraySplit(from_deltas(arrays["x"]), arrays["y"].astype(np.int64), transform)
            calibration = ArraySplit(
                from_deltas(arrays["calibration_x"]), arrays["calibration_y"].astype(np.int64), transform
            )
        spec = InputSpec(tuple(held["input"]["shape"]), held["input"]["name"])
        self.start = Artifact.onnx((folder / f"{network}.onnx").read_bytes(), spec)
        sizes = {c["values"]["calibration_images"] for c in held["candidates"]}
        self._stage = QuantizeStage()
        self._stage_context = StageContext(calibration, Cache(cache), calibration_sizes=tuple(sorted(sizes)))
        if not runs:
            return
        self.outputs, labels = run_split(self.start, self.split, 256, 1)
        self._reference = PairedReference(Top1(), self.outputs, labels)
        devices = {n: device_from_config(n, p, f"device.{n}") for n, p in held["devices"].items()}
        self._context = EvaluationContext(self.split, Top1(), Reference(self.start, self.outputs), devices)

    def estimates(self, values: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
        """Returns the statistics of candidates that are computed without running them."""
        return self._stage.estimates(self.start, [frozen(v) for v in values], self._stage_context)

    def float_arrays(self) -> dict[str, NDArray[Any]]:
        """Returns per example whether the float network is right, and the power of its outputs."""
        return {
            "float_right": np.packbits(self._reference.scores > 0),
            "float_power": np.sum(self.outputs.astype(np.float64) ** 2, axis=1).astype(np.float32),
            "n_examples": np.array(len(self.outputs)),
        }

    def measure(self, candidate: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a candidate's measurements, "facts" (JSON-able), and its arrays per example."""
        began = time.perf_counter()
        artifact = self._stage.apply(self.start, frozen(candidate["values"]), self._stage_context)
        built_s = time.perf_counter() - began
        outputs, labels = run_split(artifact, self.split, 256, 1)
        seconds = {"quantize": built_s, "run": time.perf_counter() - began - built_s}
        scores = Top1().per_example(outputs, labels)
        whole = self._reference.estimate(outputs)
        columns = {
            "metric.top1": 100 * float(scores.mean()),
            "metric.top1_drop": whole.drop,
            **{f"metric.{name}": value for name, value in whole.features.items()},
            "metric.file_bytes": float(len(artifact.onnx_bytes)),
        } | {m.column: m.value for m in CostEvaluator().evaluate(artifact, self._context).measurements}
        noise = np.sum((outputs.astype(np.float64) - self.outputs) ** 2, axis=1)
        return {
            "facts": {
                "key": candidate["key"],
                "digest": artifact.digest,
                "seconds": seconds,
                "columns": columns,
            },
            "right": np.packbits(scores > 0),
            "agree": np.packbits(outputs.argmax(axis=1) == self.outputs.argmax(axis=1)),
            "noise": to_codes(noise),
        }


def to_codes(powers: NDArray[np.float64]) -> Codes:
    """Encodes powers as one byte each, in steps of half a decibel from -64 dB on."""
    return np.clip(np.rint(20 * np.log10(np.maximum(powers, 1e-30)) + 128), 0, 255).astype(np.uint8)


def from_codes(codes: Codes) -> NDArray[np.float64]:
    """Decodes powers that `to_codes` encoded, to a quarter of a decibel."""
    return np.asarray(10 ** ((codes.astype(np.float64) - 128) / 20))


def frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turns lists, as they come from JSON, into tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def read_network(folder: Path, network: str) -> dict[str, Any]:
    """Returns the file of a network that `prepare` wrote."""
    held: dict[str, Any] = json.loads((folder / f"{network}.json").read_text())
    return held


_BENCH: list[Bench] = []  # of a worker process


def _begin(folder: Path, network: str, cache: Path) -> None:
    _BENCH.append(Bench(folder, network, cache))


def _measure(candidate: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _BENCH[0].measure(candidate)
    except ParedownError as error:
        return {"facts": {"key": candidate["key"], "error": str(error)}}


def measure(folder: Path, network: str, out: Path, jobs: int, limit: int | None, minutes: float) -> None:
    """Measures the candidates that are not in the parts yet, in an order that is drawn once."""
    out.mkdir(parents=True, exist_ok=True)
    parts = Parts(out, network)
    candidates = read_network(folder, network)["candidates"]
    order = np.random.default_rng(0).permutation(len(candidates))
    waiting = [candidates[i] for i in order if candidates[i]["key"] not in parts.keys][:limit]
    print(f"{network}: {len(parts.keys)} of {len(candidates)} are there, {len(waiting)} to go", flush=True)
    parts.shared = Bench(folder, network, None).float_arrays()
    ends = time.monotonic() + 60 * minutes
    with ProcessPoolExecutor(
        jobs, get_context("spawn"), _begin, (folder, network, out / f".cache_{network}")
    ) as pool:
        for number, result in enumerate(_results(pool, waiting, jobs, ends), 1):
            parts.add(result)
            if number % 50 == 0:
                print(f"{number} after {time.monotonic() - ends + 60 * minutes:.0f} s", flush=True)
    parts.write()
    print(f"{network}: {len(parts.keys)} of {len(candidates)} in {out}", flush=True)


def _results(
    pool: ProcessPoolExecutor, waiting: Sequence[Mapping[str, Any]], jobs: int, ends: float
) -> Iterator[dict[str, Any]]:
    """Yields results as the workers finish; submits none after the time `ends`, but waits for those that run."""
    left, running = iter(waiting), set[Future[dict[str, Any]]]()
    while True:
        while len(running) < 2 * jobs and time.monotonic() < ends:
            candidate = next(left, None)
            if candidate is None:
                break
            running.add(pool.submit(_measure, candidate))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


class Parts:
    """The results on disk, in files that are rewritten until they are full.

    Args:
        out: The folder.
        network: The network's name.
    """

    def __init__(self, out: Path, network: str) -> None:
        self._out, self._network = out, network
        self.keys: set[str] = set()
        self.shared: dict[str, NDArray[Any]] = {}
        self._rows: list[dict[str, Any]] = []
        self._number = 0
        self._written = time.monotonic()
        for path in sorted(out.glob(f"{network}.[0-9]*.npz")):
            with np.load(path, allow_pickle=False) as held:
                self.keys |= {json.loads(str(f))["key"] for f in held["facts"]}
            self._number = int(path.name.split(".")[-2]) + 1

    def add(self, row: dict[str, Any]) -> None:
        """Adds a result; writes the part when it is full, and at intervals."""
        if "error" in row["facts"]:
            print(f"{row['facts']['key']}: {row['facts']['error']}", flush=True)
            return
        self._rows.append(row)
        self.keys.add(row["facts"]["key"])
        full = len(self._rows) == ROWS_PER_PART
        if full or time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.write()
        if full:
            self._rows, self._number = [], self._number + 1

    def write(self) -> None:
        """Writes the part that is being filled."""
        self._written = time.monotonic()
        if not self._rows:
            return
        arrays = {name: np.stack([row[name] for row in self._rows]) for name in PER_EXAMPLE}
        facts = np.array([json.dumps(row["facts"]) for row in self._rows])
        path = self._out / f"{self._network}.{self._number:02d}.npz"
        whole = path.with_suffix(".unfinished")
        with whole.open("wb") as file:
            np.savez_compressed(file, facts=facts, **arrays, **self.shared)
        whole.replace(path)


# -- merge ------------------------------------------------------------------------------------------------


def read_facts(out: Path, network: str) -> list[dict[str, Any]]:
    """Returns the measurements of every candidate so far."""
    return [
        json.loads(str(text))
        for path in sorted(out.glob(f"{network}.[0-9]*.npz"))
        for text in np.load(path, allow_pickle=False)["facts"]
    ]


def merge(folder: Path, network: str, out: Path) -> None:
    """Writes `NETWORK.csv`, a row for every distinct candidate, with the knobs' values as the space has them."""
    import csv

    from search.api import compose
    from search.record.suggest import value_of
    from spaces.candidate import value_text
    from spaces.space_config import read_space

    space = read_space(compose([f"space={SPACE}"]).section("space"))
    by_key = {c["key"]: c for c in read_network(folder, network)["candidates"]}
    facts = read_facts(out, network)
    knobs = sorted({name for c in by_key.values() for name in c["params"][0]})
    columns = list(dict.fromkeys(column for fact in facts for column in fact["columns"]))
    with (out / f"{network}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "key", "digest", *(f"knob.{k}" for k in knobs), *columns])
        for fact in facts:
            params = by_key[fact["key"]]["params"][0]
            chosen = {k: value_text(value_of(space[k].domain, v)) for k, v in params.items()}
            values = [fact["columns"].get(c, "") for c in columns]
            writer.writerow(
                [network, fact["key"], fact["digest"], *(chosen.get(k, "") for k in knobs), *values]
            )
    top1 = np.array([f["columns"]["metric.top1"] for f in facts])
    print(
        f"{network}: {len(facts)} of {len(by_key)} candidates, {len({f['digest'] for f in facts})} distinct files; top-1 "
        f"best {top1.max():.2f}, median {np.median(top1):.2f}, worst {top1.min():.2f}; within 0.1 points of the best "
        f"{int(np.sum(top1 >= top1.max() - 0.1))}"
    )


# -- statistics -------------------------------------------------------------------------------------------


def statistics(folder: Path, network: str, out: Path) -> None:
    """Writes `NETWORK.statistics.npz`, and prints how well each statistic ranks the candidates."""
    from scipy.stats import spearmanr

    bench = Bench(folder, network, out / f".cache_{network}", runs=False)
    candidates = read_network(folder, network)["candidates"]
    began = time.perf_counter()
    found = bench.estimates([c["values"] for c in candidates])
    print(f"statistics of {len(candidates)} candidates computed in {time.perf_counter() - began:.1f} s")
    keys = np.array([c["key"] for c in candidates])
    np.savez(out / f"{network}.statistics.npz", keys=keys, **found)
    facts = {fact["key"]: fact for fact in read_facts(out, network)}
    there = np.array([key in facts for key in keys])
    bits = np.array([c["values"]["weight_bits"] for c in candidates])
    for column in ("metric.top1", "metric.output_sqnr_db"):
        for name, figures in found.items():
            cells = []
            for label, chosen in (
                ("all", there),
                *((f"{b} bits", there & (bits == b)) for b in np.unique(bits)),
            ):
                truth = [facts[key]["columns"][column] for key in keys[chosen]]
                cells.append(f"{label} {spearmanr(figures[chosen], truth)[0]:.3f} ({len(truth)})")
            print(f"{column} against {name}: {', '.join(cells)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    first = steps.add_parser("prepare")
    first.add_argument("--data", type=Path, required=True)
    first.add_argument("--to", type=Path, required=True)
    first.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    for name in ("measure", "merge", "statistics"):
        step = steps.add_parser(name)
        step.add_argument("folder", type=Path)
        step.add_argument("network")
        step.add_argument("--out", type=Path, required=True)
        if name == "measure":
            step.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
            step.add_argument("--limit", type=int, help="at most so many candidates now")
            step.add_argument("--minutes", type=float, default=1e6, help="begin none after so long")
    given = parser.parse_args(arguments)
    if given.step == "prepare":
        prepare(given.data.resolve(), given.to.resolve(), given.networks)
    elif given.step == "measure":
        measure(given.folder, given.network, given.out, given.jobs, given.limit, given.minutes)
    elif given.step == "merge":
        merge(given.folder, given.network, given.out)
    else:
        statistics(given.folder, given.network, given.out)


if __name__ == "__main__":
    main()
