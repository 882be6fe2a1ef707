"""Half the multiply-accumulates: the default cut and recovery against torch-pruning's magnitude pruning and fine-tuning.

Run from the root of the repository::

    python tests/benchmarks/half_macs.py DATA --out half_macs --accelerator auto --jobs 1

DATA is a folder with `cifar10` and `weights`. The ResNets start from published checkpoints; the plain network and the
depthwise-separable one are trained first, and kept in the folder `--out`. Both sides learn from the same training images for the same epochs
in batches of 64, and count MACs alike.

Plain: `MagnitudePruner` with its defaults (L2 norms, the same share of every layer), in ResNets on the first convolution of every block,
which is what it can cut there; then cross-entropy by SGD with Nesterov's momentum under a one-cycle learning rate. Its learning rate, and
whether it flips and crops images, are those with the best validation accuracy for the first seed. Ours: the
prune and the recover stage with `keep` and `epochs`, and defaults for all else. The checkpoints have memorised
all training images, so 2,000 of the published test images are for validation; accuracies are of the 8,000
others, by which no setting is chosen.

Every training is a line of the file `trainings.jsonl` in `--out`; trainings that are in the file are not repeated.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from half_macs_networks import NETWORKS
from scipy import stats
from torch import nn

from evaluators.task.tasks.classification.cifar10 import Cifar10Task
from evaluators.task.tasks.task import Splits
from spaces.models.torch.accelerator import device_of
from spaces.models.zoo.cifar_resnet import BasicBlock
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.prune import PruneStage
from spaces.recovery.losses.label_loss import LabelLoss
from spaces.recovery.recover import RecoverStage
from spaces.recovery.training.optimization.recipe import Recipe
from spaces.recovery.training.training import train
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

PLAIN, OURS = "plain", "ours"
SHAPE = (3, 32, 32)
RATES = (0.003, 0.01, 0.03)
AUGMENTATIONS = ("none", "flip_crop")
DENSE = Recipe(30, 128, learning_rate=0.05, augmentation="flip_crop", threads=1)

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One training. Rate and augmentation are None on our side, whose defaults decide."""

    network: str
    epochs: int
    side: str
    seed: int
    learning_rate: float | None = None
    augmentation: str | None = None


@dataclass(frozen=True)
class Bench:
    """The options that all trainings share."""

    data: Path
    out: Path
    accelerator: str
    images: int | None
    keep: float
    prune: str
    recover: str

    def run(self, setting: Setting) -> Row:
        """Cuts and trains a network, and returns its measurements."""
        torch.set_num_threads(1)
        parts, dense = splits(self), dense_network(self, setting.network)
        context = StageContext(
            parts.calibration, Cache(), setting.seed, train=images(self), teacher=dense, accelerator=self.accelerator
        )  # fmt: skip
        began = time.perf_counter()
        made, notes = (self._plain if setting.side == PLAIN else self._ours)(setting, dense, context)
        return {
            **asdict(setting), "images": len(images(self)), "seconds": round(time.perf_counter() - began, 1),
            "macs": macs(made) / macs(module_of(dense)), "validation": self.accuracy(made, parts.validation),
            "test": self.accuracy(made, parts.test), "dense": dense_accuracy(self, setting.network), **notes,
        }  # fmt: skip

    def _ours(self, setting: Setting, dense: Artifact, context: StageContext) -> tuple[nn.Module, Row]:
        cut = PruneStage(threads=1).apply(dense, {"keep": self.keep, **json.loads(self.prune)}, context)
        values = {"epochs": setting.epochs, **json.loads(self.recover)}
        made = RecoverStage(1).apply(cut, values, context)
        notes = made.notes["recover"]
        return module_of(made), {"used": [notes["learning_rate"], notes["augmentation"]]}

    def _plain(self, setting: Setting, dense: Artifact, context: StageContext) -> tuple[nn.Module, Row]:
        module = plain_cut(module_of(dense), self.keep)
        recipe = Recipe(
            setting.epochs, learning_rate=setting.learning_rate, augmentation=str(setting.augmentation),
            settles_batch_norm=False, threads=1,
        )  # fmt: skip
        train(module, images(self), recipe, loss=LabelLoss(), context=context, stage=PLAIN, key=None)
        return module, {}

    def accuracy(self, module: nn.Module, split: Any) -> float:
        """Returns top-1 in percent."""
        right, device = 0, device_of(self.accelerator)
        module = copy.deepcopy(module).to(device)
        with torch.inference_mode():
            for inputs, labels in split.batches(500):
                answers = module(torch.from_numpy(inputs).to(device)).argmax(1).cpu()
                right += int((answers.numpy() == labels).sum())
        return 100 * right / len(split)


@cache
def splits(bench: Bench) -> Splits:
    """Returns the images."""
    return Cifar10Task(
        str(bench.data / "cifar10"), calibration=256, validation=2000, validate_on="test"
    ).splits()


@cache
def images(bench: Bench) -> ArraySplit:
    """Returns the training images."""
    split = splits(bench).train
    assert isinstance(split, ArraySplit)
    return split if bench.images is None else split.subset(np.arange(bench.images))


@cache
def dense_network(bench: Bench, name: str) -> Artifact:
    """Returns a trained network."""
    published, build = NETWORKS[name]
    path = bench.data / "weights" / published if published else bench.out / f"{name}.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)
    if published:
        state = {key.removeprefix("module."): value for key, value in state["state_dict"].items()}
    module = build()
    module.load_state_dict(state)
    return torch_artifact(module, InputSpec(SHAPE))


@cache
def dense_accuracy(bench: Bench, name: str) -> float:
    """Returns a trained network's top-1 in percent."""
    return bench.accuracy(module_of(dense_network(bench, name)), splits(bench).test)


def train_dense(bench: Bench, name: str) -> None:
    """Trains a network that has no published checkpoint, if that was not done before."""
    path = bench.out / f"{name}.pt"
    if NETWORKS[name][0] or path.exists():
        return
    torch.manual_seed(0)
    module, split = NETWORKS[name][1](), splits(bench).train
    assert split is not None
    context = StageContext(None, Cache(), 0, train=split, accelerator=bench.accelerator)
    train(module, split, DENSE, loss=LabelLoss(), context=context, stage="dense", key=None)
    torch.save(module.state_dict(), path)
    print(f"{name}: trained, {bench.accuracy(module, splits(bench).test):.2f} %", flush=True)


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
    """Cuts a share of the channels: in ResNets of the inner ones of every block, else of all but the outputs."""
    module = copy.deepcopy(dense)
    layers = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    inner = [part.conv1 for part in module.modules() if isinstance(part, BasicBlock)]
    pruner = torch_pruning.pruner.MagnitudePruner(
        module,
        torch.zeros(1, *SHAPE),
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[layer for layer in layers if layer not in inner] if inner else [layers[-1]],
    )
    pruner.step()
    return module


class Lines:
    """The file of measurements, one training per line."""

    def __init__(self, bench: Bench, jobs: int) -> None:
        self._bench, self._jobs, self._path = bench, jobs, bench.out / "trainings.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        rows = [json.loads(line) for line in lines if line.strip()]
        self._rows = {Setting(**{key: row[key] for key in Setting.__annotations__}): row for row in rows}

    def get(self, settings: Sequence[Setting]) -> list[Row]:
        """Returns trainings' measurements, from the file or by doing them."""
        missing = [setting for setting in dict.fromkeys(settings) if setting not in self._rows]
        for setting, row in zip(missing, in_parallel(self._bench.run, missing, self._jobs), strict=True):
            self._rows[setting] = row
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
        return [self._rows[setting] for setting in settings]


def in_parallel(function: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Iterator[Any]:
    """Yields the function's results, in order, from some processes."""
    if jobs == 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(function, items)


def options(network: str, epochs: int, seed: int) -> list[Setting]:
    """Returns the settings that the plain side chooses among."""
    pairs = [(rate, how) for rate in RATES for how in AUGMENTATIONS]
    return [Setting(network, epochs, PLAIN, seed, *pair) for pair in pairs]


def compare(
    lines: Lines, cases: Sequence[tuple[str, int]], seeds: Sequence[int]
) -> Iterator[tuple[list[Row], list[Row]]]:
    """Yields, for every network and number of epochs, both sides' trainings, one per seed."""
    ours = [[Setting(*case, OURS, seed) for seed in seeds] for case in cases]
    first = [options(*case, seeds[0]) for case in cases]
    lines.get([setting for group in (*ours, *first) for setting in group])
    best = [max(group, key=lambda option: lines.get([option])[0]["validation"]) for group in first]
    plain = [
        [Setting(b.network, b.epochs, PLAIN, s, b.learning_rate, b.augmentation) for s in seeds] for b in best
    ]
    lines.get([setting for group in plain for setting in group])
    yield from ((lines.get(a), lines.get(b)) for a, b in zip(plain, ours, strict=True))


def mean_text(values: Iterable[float]) -> str:
    """Returns the mean with its 95 % interval (Student's t)."""
    held = np.array(list(values))
    if len(held) < 2 or held.std() == 0:
        return f"{held.mean():.2f}"
    half = stats.t.ppf(0.975, len(held) - 1) * held.std(ddof=1) / np.sqrt(len(held))
    return f"{held.mean():.2f} [{held.mean() - half:.2f}, {held.mean() + half:.2f}]"


def show(plain: Sequence[Row], ours: Sequence[Row]) -> None:
    """Prints a row of the table."""
    gains = [a["test"] - b["test"] for a, b in zip(ours, plain, strict=True)]
    used = ", ".join(f"{rate:.3g} {how}" for rate, how in (row["used"] for row in ours))
    print(
        f"| {ours[0]['network']} | {ours[0]['epochs']} | {ours[0]['dense']:.2f} | {mean_text(r['test'] for r in plain)} "
        f"| {mean_text(r['test'] for r in ours)} | {mean_text(gains)} | {'yes' if np.mean(gains) > 0 else 'NO'} "
        f"| {plain[0]['macs']:.3f}, {ours[0]['macs']:.3f} | {plain[0]['learning_rate']:g} {plain[0]['augmentation']} | {used} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs what is missing, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("half_macs"), help="folder of networks and results")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--epochs", nargs="+", type=int, default=[1, 3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--keep", type=float, default=0.5, help="share of the MACs")
    parser.add_argument("--images", type=int, help="training images; all that are left if not given")
    parser.add_argument("--prune", default="{}", help="more knobs of ours, JSON")
    parser.add_argument("--recover", default="{}", help="more knobs of ours, JSON")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        given.data, given.out, given.accelerator, given.images, given.keep, given.prune, given.recover
    )
    for _ in in_parallel(partial(train_dense, bench), given.networks, given.jobs):
        pass
    cases = [(name, epochs) for epochs in given.epochs for name in given.networks]
    found = list(compare(Lines(bench, given.jobs), cases, range(given.seeds)))
    print("\n| network | epochs | dense | plain | ours | ours over plain, paired | better | MACs | plain's choice | our defaults |")  # fmt: skip
    print("| --- " * 10 + "|")
    for plain, ours in found:
        show(plain, ours)


if __name__ == "__main__":
    main()
