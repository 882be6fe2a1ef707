"""ResNet-20 at half its multiply-accumulates: our cut and recovery against torch-pruning's plain magnitude pruning and fine-tuning.

Run from the root of the repository::

    python tests/benchmarks/half_macs.py DATA --out half_macs.jsonl

DATA is a folder with `cifar10` and `weights`. Both sides start from the published checkpoint, learn from the same training images
(all but those for calibration) for the same few epochs in batches of the same size, and count MACs alike.

Plain: `MagnitudePruner` with its defaults (L2 norms, the same share of every layer) on the first convolution of every block, which
is what it can cut of this network; then cross-entropy by SGD with Nesterov's momentum under a one-cycle learning rate. Ours: the
prune and the recover stage. Each side's learning rate, and whether the plain side flips and crops images, are
those with the best validation accuracy for the first seed. The checkpoint has memorised all training images,
so 2,000 of the published test images are for validation; accuracies are of the 8,000 others, by which no
setting is chosen.

Every training is a line of the file; trainings that are in the file are not repeated.
"""

import argparse
import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from scipy import stats
from torch import nn

from evaluators.task.tasks.cifar10 import Cifar10Task
from spaces.models.base import LoadContext
from spaces.models.zoo.cifar_resnet import BasicBlock, CifarResNetModel
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.prune import PruneStage
from spaces.recovery.losses.cross_entropy import CrossEntropy
from spaces.recovery.recover import RecoverStage
from spaces.recovery.training.recipe import Recipe
from spaces.recovery.training.training import train
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

PLAIN, OURS = "plain", "ours"
SHAPE = (3, 32, 32)
RATES = (0.01, 0.03)
AUGMENTATIONS = {PLAIN: ("none", "flip_crop"), OURS: ("flip_crop",)}
STREAMS = ("conv1.weight", "*.conv2.weight", "linear.weight")  # outputs that go through shortcuts stay whole
ALLOWED_DROP = 2.5  # points below the dense network

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Settings of one training, besides the command line."""

    side: str
    learning_rate: float
    augmentation: str
    seed: int


class Bench:
    """Data, the dense network, and both sides' way from it to a small trained one."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        root = str(given.data / "cifar10")
        task = Cifar10Task(root, calibration=256, validation=given.validation, validate_on="test")
        splits = task.splits()
        self.calibration, self.validation, self.test = splits.calibration, splits.validation, splits.test
        self.train = first(splits.train, given.images)
        self.test = first(splits.test, given.test_images)
        source = CifarResNetModel(20, str(given.data / "weights" / "resnet20-12fca82f.th"))
        self.dense = source.load(LoadContext(None, Path()))

    def run(self, setting: Setting) -> Row:
        """Cuts and trains a network, and returns its measurements."""
        context = StageContext(
            self.calibration, Cache(), setting.seed, train=self.train, teacher=self.dense, accelerator="cpu"
        )
        began = time.perf_counter()
        made = (self._plain if setting.side == PLAIN else self._ours)(setting, context)
        seconds = time.perf_counter() - began
        return {
            **vars(setting), "epochs": self.given.epochs, "images": len(self.train), "seconds": round(seconds, 1),
            "macs": macs(made), "validation": accuracy(made, self.validation), "test": accuracy(made, self.test),
        }  # fmt: skip

    def _ours(self, setting: Setting, context: StageContext) -> nn.Module:
        cut = PruneStage(threads=self.given.threads).apply(
            self.dense, {"keep": self.given.keep, **self.given.prune}, context
        )
        values = {
            "epochs": self.given.epochs, "batch_size": self.given.batch_size,
            "learning_rate": setting.learning_rate, "augmentation": setting.augmentation, **self.given.recover,
        }  # fmt: skip
        return module_of(RecoverStage(self.given.threads).apply(cut, values, context))

    def _plain(self, setting: Setting, context: StageContext) -> nn.Module:
        module = plain_cut(module_of(self.dense), self.given.keep)
        recipe = Recipe(
            self.given.epochs, self.given.batch_size, learning_rate=setting.learning_rate,
            augmentation=setting.augmentation, settles_batch_norm=False, threads=self.given.threads,
        )  # fmt: skip
        train(module, self.train, recipe, loss=CrossEntropy(), context=context, stage=PLAIN, key=None)
        return module


def first(split: ArraySplit, n: int | None) -> ArraySplit:
    """Returns the first `n` examples; all for None."""
    return split if n is None else split.subset(np.arange(min(n, len(split))))


def module_of(artifact: Artifact) -> nn.Module:
    """Returns the artifact's network."""
    assert isinstance(artifact.model, nn.Module)
    return artifact.model


def macs(module: nn.Module) -> int:
    """Counts multiply-accumulates of one image."""
    return total(layer_counts(module, SHAPE).values()).macs


def plain_cut(dense: nn.Module, keep: float) -> nn.Module:
    """Cuts by torch-pruning, with the largest ratio that leaves at least the share `keep` of the MACs."""
    ratios = np.linspace(0.0, 0.9, 181)
    cuts = (magnitude_cut(dense, float(ratio)) for ratio in ratios[::-1])
    return next(cut for cut in cuts if macs(cut) >= keep * macs(dense))


def magnitude_cut(dense: nn.Module, ratio: float) -> nn.Module:
    """Cuts a share of the inner channels of every block."""
    module = copy.deepcopy(dense)
    inner = [part.conv1 for part in module.modules() if isinstance(part, BasicBlock)]
    layers = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    pruner = torch_pruning.pruner.MagnitudePruner(
        module,
        torch.zeros(1, *SHAPE),
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[layer for layer in layers if layer not in inner],
    )
    pruner.step()
    return module


def accuracy(module: nn.Module, split: ArraySplit) -> float:
    """Returns top-1 in percent."""
    right = 0
    with torch.inference_mode():
        for inputs, labels in split.batches(500):
            right += int((module(torch.from_numpy(inputs)).argmax(1).numpy() == labels).sum())
    return 100 * right / len(split)


class Lines:
    """The file of measurements, one training per line."""

    def __init__(self, path: Path, bench: Bench) -> None:
        self._path, self._bench = path, bench
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines if line.strip()]

    def get(self, setting: Setting) -> Row:
        """Returns a training's measurements, from the file or by doing it."""
        given = self._bench.given
        wanted = {**vars(setting), "epochs": given.epochs, "images": len(self._bench.train)}
        row = next((r for r in self.rows if all(r[k] == v for k, v in wanted.items())), None)
        if row is None:
            row = self._bench.run(setting)
            self.rows.append(row)
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
        return row


def compare(lines: Lines, side: str, seeds: Sequence[int]) -> list[Row]:
    """Returns a side's trainings, one per seed, with the setting that is best on validation images for the first."""
    options = [Setting(side, rate, how, seeds[0]) for rate in RATES for how in AUGMENTATIONS[side]]
    best = max(options, key=lambda option: lines.get(option)["validation"])
    return [lines.get(Setting(side, best.learning_rate, best.augmentation, seed)) for seed in seeds]


def mean_text(values: np.ndarray) -> str:
    """Returns the mean of `(n,)` values with its 95 % interval (Student's t)."""
    mean = values.mean()
    if len(values) < 2 or values.std() == 0:
        return f"{mean:.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def show(bench: Bench, found: Mapping[str, list[Row]]) -> None:
    """Prints the table and the verdict."""
    dense_macs, dense = macs(module_of(bench.dense)), accuracy(module_of(bench.dense), bench.test)
    print(f"\ndense: {dense:.2f} % of {len(bench.test)} test images, {dense_macs / 1e6:.2f} M MACs")
    for side, rows in found.items():
        tests, row = np.array([r["test"] for r in rows]), rows[0]
        print(
            f"{side}: {', '.join(f'{test:.2f}' for test in tests)} %, mean {mean_text(tests)}; {row['macs'] / 1e6:.2f} M MACs "
            f"({row['macs'] / dense_macs:.1%}); learning rate {row['learning_rate']:g}, augmentation {row['augmentation']}; "
            f"{np.mean([r['seconds'] for r in rows]):.0f} s each"
        )
    ours, plain = (np.array([row["test"] for row in found[side]]) for side in (OURS, PLAIN))
    drop = dense - ours.mean()
    print(
        f"ours over plain, paired by seed: {mean_text(ours - plain)} points: {verdict(ours.mean() > plain.mean())}"
    )
    print(f"ours below dense: {drop:.2f} points, at most {ALLOWED_DROP}: {verdict(drop <= ALLOWED_DROP)}")


def verdict(holds: bool) -> str:
    """Returns "holds" or "DOES NOT HOLD"."""
    return "holds" if holds else "DOES NOT HOLD"


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs what is missing, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("half_macs.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument(
        "--sides", nargs="+", default=[PLAIN, OURS], choices=[PLAIN, OURS], help="one of them: no verdict"
    )
    parser.add_argument("--keep", type=float, default=0.5, help="share of the MACs")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--validation", type=int, default=2000, help="test images that settings are chosen by"
    )
    parser.add_argument("--images", type=int, help="training images; all that are left if not given")
    parser.add_argument("--test-images", type=int, help="all if not given")
    parser.add_argument(
        "--prune", type=json.loads, default={"criterion": "condition", "protect": STREAMS}, help="knobs, JSON"
    )
    parser.add_argument("--recover", type=json.loads, default={}, help="more knobs of ours, JSON")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    bench = Bench(given)
    lines = Lines(given.out, bench)
    found = {side: compare(lines, side, range(given.seeds)) for side in given.sides}
    if len(found) > 1:
        show(bench, found)


if __name__ == "__main__":
    main()
