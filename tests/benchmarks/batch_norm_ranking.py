"""Whether accuracy right after a cut predicts which of the cut networks is best after recovery.

Run from the root of the repository::

    python tests/benchmarks/batch_norm_ranking.py --data ../shared/data --to ranking.jsonl

DATA holds `cifar10/` and `weights/`. Candidates are cuts of a CIFAR-10 ResNet-20 to `--keep` of its multiply-accumulates: each group
of channels loses another random share, and the criteria take turns. Each is judged by validation images right after the cut, as
it is and with BatchNorm statistics re-estimated from `--examples` training images without labels; then it is fine-tuned on
`--train-images` for `--epochs`, and judged again, by test images. A row for each goes to the file at once: a run that was
stopped is resumed, rows of other settings are kept.

Prints Spearman's rank correlation between accuracy right after the cut and after recovery over the candidates, with and without
re-estimation, and the difference, with 95 % intervals (bootstrap over candidates), and how far each ranking's first choice is from the best.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from evaluators.task.statistics.intervals import wilson_interval
from evaluators.task.tasks.classification.cifar10 import Cifar10Task
from spaces.candidate import StageValue
from spaces.models.base import LoadContext
from spaces.models.zoo.cifar_resnet import CifarResNetModel
from spaces.pruning.budgets.budget import by_ratio
from spaces.pruning.criteria.registry import BUILT_IN
from spaces.pruning.prune import PruneStage
from spaces.recovery.recover import RecoverStage
from spaces.recovery.training.determinism import fixed_threads
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, Split
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

CHECKPOINT = "weights/resnet20-12fca82f.th"
MOST_RATIO = 0.9
HALVINGS = 30
RESAMPLES = 10_000
BATCH = 250
# Arguments that do not affect the measurements.
UNSETTLED = ("data", "to", "candidates")

Row = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One way to cut the network.

    Attributes:
        criterion: Which channels go first.
        ratio: By layer, the share of its output channels that goes.
        macs_share: What is left of the multiply-accumulates.
    """

    criterion: str
    ratio: Mapping[str, float]
    macs_share: float


class Bench:
    """The network, its data and the two stages.

    Args:
        given: The command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        source = CifarResNetModel(20, str(given.data / CHECKPOINT))
        self.dense = source.load(LoadContext(None, given.data, given.seed))
        task = Cifar10Task(
            str(given.data / "cifar10"), calibration=given.examples, validation=given.validation_images
        )
        splits = task.splits()
        self.validation, self.test = splits.validation, _first(splits.test, given.test_images)
        self._prune = PruneStage(n_examples=given.examples, threads=given.threads)
        self._recover = RecoverStage(threads=given.threads)
        self._context = StageContext(
            calibration=splits.calibration,
            cache=Cache(),
            seed=given.seed,
            train=_first(splits.train, given.train_images),
            teacher=self.dense,
            accelerator=given.accelerator,
        )

    def candidate(self, number: int) -> Candidate:
        """Draws the candidate of this number: it does not depend on how many there are."""
        facts = self._prune.metadata_of(self.dense)
        draws = np.random.default_rng([self._given.seed, number]).uniform(0, 1, len(facts.groups))

        def cut(scale: float) -> tuple[dict[str, float], float]:
            shares = np.minimum(MOST_RATIO, scale * draws).tolist()
            ratio = {
                layer: r for group, r in zip(facts.groups, shares, strict=True) for layer in group.layers
            }
            limits = facts.limits(self._prune.defaults(), self._prune.min_channels)
            n_kept = by_ratio(facts.groups, facts.ratios(ratio), limits)
            return ratio, float(facts.arithmetic.macs(n_kept)) / facts.counts.macs

        low, high = 0.0, 10.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if cut(middle)[1] > self._given.keep else (low, middle)
        return Candidate(list(BUILT_IN)[number % len(BUILT_IN)], *cut(high))

    def row(self, number: int) -> Row:
        """Cuts, judges, recovers and judges one candidate."""
        began, chosen = time.perf_counter(), self.candidate(number)
        plain, reestimated = (self._pruned(chosen, reestimate_batch_norm=wanted) for wanted in (False, True))
        values = {"epochs": self._given.epochs, "learning_rate": self._given.learning_rate}
        recovered = self._recover.apply(reestimated, self._recover.defaults() | values, self._context)
        return {
            "candidate": number,
            "criterion": chosen.criterion,
            "macs_share": chosen.macs_share,
            "ratio": chosen.ratio,
            "plain": self.top1(plain, self.validation),
            "reestimated": self.top1(reestimated, self.validation),
            "recovered_validation": self.top1(recovered, self.validation),
            "recovered": self.top1(recovered, self.test),
            "seconds": round(time.perf_counter() - began, 1),
        }

    def _pruned(self, chosen: Candidate, reestimate_batch_norm: bool) -> Artifact:
        values: dict[str, StageValue] = {
            "criterion": chosen.criterion,
            "ratio": dict(chosen.ratio),
            "reestimate_batch_norm": reestimate_batch_norm,
        }
        return self._prune.apply(self.dense, self._prune.defaults() | values, self._context)

    def top1(self, artifact: Artifact, split: Split) -> float:
        """Returns the share of right answers in percent."""
        assert isinstance(artifact.model, torch.nn.Module)
        n_right = 0
        with fixed_threads(self._given.threads), torch.no_grad():
            for inputs, labels in split.batches(BATCH):
                outputs = artifact.model(torch.from_numpy(inputs)).argmax(1).numpy()
                n_right += int((outputs == labels).sum())
        return 100 * n_right / len(split)


def _first(split: Split | None, n: int) -> ArraySplit:
    """Returns the first examples, or all if `n` is 0."""
    assert isinstance(split, ArraySplit)
    return split.subset(np.arange(min(n or len(split), len(split))))


def read_rows(path: Path, settings: Row) -> dict[int, Row]:
    """Returns the rows that were measured with these settings, by number; an incomplete last line is skipped."""
    found: dict[int, Row] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["settings"] == settings:
            found[row["candidate"]] = row
    return found


def append(path: Path, row: Row) -> None:
    """Appends one line; an incomplete last line is ended first."""
    torn = path.exists() and not path.read_text().endswith("\n") and path.stat().st_size
    with path.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps(row) + "\n")


def correlations(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns Spearman's correlation of `(..., n)` values; 0 where one side is constant."""
    x, y = (stats.rankdata(values, axis=-1) for values in (before, after))
    x, y = (values - values.mean(axis=-1, keepdims=True) for values in (x, y))
    scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    return np.asarray(np.divide((x * y).sum(axis=-1), scale, out=np.zeros_like(scale), where=scale > 0))


def show(rows: Sequence[Row], bench: Bench, seed: int) -> None:
    """Prints the correlations over the candidates."""
    plain, reestimated, recovered = (
        np.array([row[name] for row in rows], np.float64) for name in ("plain", "reestimated", "recovered")
    )
    macs = [row["macs_share"] for row in rows]
    print(
        f"\n{len(rows)} candidates with {min(macs):.3f} to {max(macs):.3f} of the multiply-accumulates; top-1 after recovery "
        f"{recovered.min():.2f} to {recovered.max():.2f} %"
    )
    worst = wilson_interval(round(float(np.median(recovered)) / 100 * len(bench.test)), len(bench.test))
    print(
        f"95 % interval of the median one: {100 * worst.low:.2f} to {100 * worst.high:.2f} % ({len(bench.test)} images)"
    )
    chosen = np.random.default_rng(seed).integers(len(rows), size=(RESAMPLES, len(rows)))
    drawn, found = {}, {}
    for name, before in (("without", plain), ("with", reestimated)):
        found[name] = float(correlations(before, recovered))
        drawn[name] = correlations(before[chosen], recovered[chosen])
        lost = recovered.max() - recovered[np.argmax(before)]
        print(
            f"{name} re-estimation: Spearman {found[name]:.3f} {_interval(drawn[name])}, "
            f"first choice {lost:.2f} points below the best"
        )
    print(f"difference: {found['with'] - found['without']:.3f} {_interval(drawn['with'] - drawn['without'])}")


def _interval(values: NDArray[np.float64]) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"[{low:.3f}, {high:.3f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, measures what is not measured yet, prints the correlations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=Path("batch_norm_ranking.jsonl"), help="file of the rows")
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument(
        "--keep", type=float, default=0.5, help="share of the multiply-accumulates that is left"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=256, help="for criteria and statistics")
    parser.add_argument("--validation-images", type=int, default=1000)
    parser.add_argument("--test-images", type=int, default=0, help="0 takes all")
    parser.add_argument("--train-images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--accelerator", default="cpu", help="auto, cpu or cuda")
    given = parser.parse_args(arguments)
    if given.candidates < 2:
        parser.error("--candidates must be at least 2")
    settings = {name: value for name, value in vars(given).items() if name not in UNSETTLED}
    bench, rows = Bench(given), read_rows(given.to, settings)
    print(
        f"seed {given.seed}; dense: {bench.top1(bench.dense, bench.test):.2f} % of {len(bench.test)} test images",
        flush=True,
    )
    for number in range(given.candidates):
        if number not in rows:
            rows[number] = {"settings": settings, **bench.row(number)}
            append(given.to, rows[number])
        row = rows[number]
        print(
            f"{number:3} {row['criterion']:17} {row['macs_share']:.3f} of MACs, cut {row['plain']:6.2f} %, "
            f"re-estimated {row['reestimated']:6.2f} %, recovered {row['recovered']:6.2f} %, {row['seconds']:.0f} s",
            flush=True,
        )
    show([rows[number] for number in range(given.candidates)], bench, given.seed)


if __name__ == "__main__":
    main()
