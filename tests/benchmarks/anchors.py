"""Networks that a joint search found against MLPerf Tiny's ResNet-8, trained longer by one recipe, on CIFAR-10's test images.

    python -m tests.benchmarks.joint_search --experiment cifar10_architectures --folder FOLDER ... task.root=DATA
    python -m tests.benchmarks.anchors FOLDER --epochs 60 --gpus 2 --jobs 6 task.root=DATA

Of every seed's joint study, the most accurate model of the front by validation images, among those with no more packed bytes than the
anchor, is trained anew with that seed (and the bits that were found with it), and so is the anchor, in 8 bits. ResNet-8: Banbury et al.
2021, arXiv 2106.07597.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from spaces.architectures.families.resnet import ResNet
from tests.benchmarks.joint_search import call

DEVICE = "stm32h743_tinyengine"
COSTS = ("latency_ms", "total_bytes", "weight_bytes")
ANCHOR = [  # the same task, recipe, device and objectives, but MLPerf Tiny's network with its published values
    "model=resnet", "model.input_shape=[3,32,32]", "model.training.epochs=0", "task=cifar10", "task.calibration=512",
    "stage=[architecture,train,export,quantize]", "space=resnet", "evaluator=[accuracy,cost]", f"device={DEVICE}",
    "objective=accuracy_latency_packed", "objective.constraints={}", "~space.architecture", "space.quantize={calibration_images: 256}",
]  # fmt: skip


@dataclass(frozen=True)
class Training:
    """One network with one seed."""

    name: str
    seed: int
    overrides: tuple[str, ...]

    def run(self, folder: Path, gpus: int) -> dict[str, float | str]:
        """Trains, quantizes and judges it; returns its row."""
        place = folder / f"{self.name}_{self.seed}"
        environment = {"CUDA_VISIBLE_DEVICES": str(self.seed % gpus)} if gpus else {}
        own = ["study.n_trials=1", f"seed={self.seed}", f"study.dir={place}", f"cache_dir={place}/cache"]
        call([*self.overrides, *own], folder / f"{self.name}_{self.seed}.log", environment)
        row = pd.read_csv(place / "trials.csv").iloc[0]
        costs = {name: row[f"cost.{DEVICE}.{name}"] for name in COSTS}
        tested = {name: row[f"metric.test_{name}"] for name in ("top1", "top1_low", "top1_high")}
        return {
            "network": self.name,
            "seed": self.seed,
            **tested,
            "packed_bytes": row["metric.packed_bytes"],
            **costs,
        }


def found(study: Path, most_bytes: float) -> dict[str, object]:
    """Returns the knobs of the front's model with the best validation metric and at most so many packed bytes."""
    front = pd.read_csv(study / "pareto.csv")
    row = front[front["metric.packed_bytes"] <= most_bytes].sort_values("metric.top1").iloc[-1]
    knobs = {
        c.removeprefix("knob."): front[c].loc[row.name : row.name].tolist()[0]
        for c in front
        if c.startswith("knob.") and pd.notna(row[c])
    }
    return {name: value for name, value in knobs.items() if not name.startswith("train.")}


def overrides_of(knobs: dict[str, object], experiment: str) -> tuple[str, ...]:
    """Returns the command line that fixes every knob."""
    fixed = [f"space.{name}={json.dumps(value)}" for name, value in knobs.items()]
    return (f"experiment={experiment}", "model.training.epochs=0", "objective.constraints={}", *fixed)


def main() -> None:
    """Trains the found networks and the anchor, and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("folder", type=Path, help="of joint_search")
    parser.add_argument("--experiment", default="cifar10_architectures")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument(
        "--anchor-bytes", type=float, default=91_363, help="ResNet-8's packed bytes in 8 bits"
    )
    given, others = parser.parse_known_args()
    recipe = (f"+space.train={{epochs: {given.epochs}, batch_size: 128, augmentation: flip_crop}}", *others)
    studies = [given.folder / f"joint_{seed}" / "study" for seed in range(given.seeds)]
    trainings = [Training("resnet8", seed, (*ANCHOR, *recipe)) for seed in range(given.seeds)]
    for seed, study in enumerate(studies):
        knobs = found(study, given.anchor_bytes)
        print(f"seed {seed}: {knobs}")
        trainings.append(Training("found", seed, (*overrides_of(knobs, given.experiment), *recipe)))
    counts = ResNet().counts(ResNet().defaults(), (3, 32, 32), 10)
    print(f"ResNet-8: {counts.macs:,} MACs, {counts.parameters:,} parameters")
    with ThreadPoolExecutor(given.jobs) as pool:
        rows = list(pool.map(lambda t: t.run(given.folder / "anchors", given.gpus), trainings))
    print(pd.DataFrame(rows).sort_values(["seed", "network"]).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
