"""Does a constraint on false negatives, kept on the validation split, hold on the test split?

Run from the root of the repository::

    python tests/benchmarks/false_negatives.py OUT --splits 10 --margins none 0 0.6

Runs `experiment=breast_cancer` on several divisions of the data, each with a dense network of its own seed. The search sees the
validation split alone; counted here are the malignant cases of the test split that the dense network and the chosen one miss.
`none` is the same study without the constraint, 0 asks for no more misses than the dense network's on the validation split,
and with a larger margin a case that the candidate recognises by less than the margin counts as missed. A
killed study is resumed; one that is finished is read.

Prints a row per division, and for each margin the sums, in how many divisions the chosen network misses more than the dense
one, and in how many the search found nothing that meets the constraint.
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from search import run
from search.record.results import StudyRecord

MISSED = "metric.test_false_negatives_1"
FIGURES = {MISSED: "{:.0f}", "metric.test_top1": "{:.2f} %", "metric.file_bytes": "{:.0f}"}
HEADS = (
    "split",
    "margin",
    "FN dense",
    "FN chosen",
    "top-1 dense",
    "top-1 chosen",
    "bytes dense",
    "bytes chosen",
)


@dataclass(frozen=True)
class Row:
    """The network that one study chose, beside the dense one.

    Attributes:
        dense: The dense network's values by column; without those of the test split if nothing was chosen.
        chosen: The chosen network's; None if nothing met the constraints.
    """

    dense: dict[str, float]
    chosen: dict[str, float] | None

    @property
    def more(self) -> int:
        """How many more cases the chosen network misses on the test split."""
        return 0 if self.chosen is None else int(self.chosen[MISSED] - self.dense[MISSED])

    def cells(self) -> list[str]:
        """Returns the figures as text, the dense network's before the chosen one's."""
        return [
            form.format(values[column]) if values is not None and column in values else "-"
            for column, form in FIGURES.items()
            for values in (self.dense, self.chosen)
        ]


def overrides(split: int, margin: str, given: argparse.Namespace) -> list[str]:
    """Returns the command line of one study."""
    name = f"split{split}-margin-{margin}"
    rule = (
        "objective.constraints.false_negatives=null"
        if margin == "none"
        else f"evaluator.class_risk.margin={float(margin)}"
    )
    return [
        "experiment=breast_cancer", f"task.split_seed={split}", f"seed={split}", rule, "tracker=none", "knowledge=none",
        f"study.name={name}", f"study.dir={given.out}/{name}", f"study.n_trials={given.trials}", "study.report=false",
        f"cache_dir={given.out}/cache", *given.override,
    ]  # fmt: skip


def row_of(results: StudyRecord) -> Row:
    """Returns the row of a study: the network that it chose."""
    dense = {m.column: m.value for m in results.baseline}
    return Row(dense, None if results.best is None else results.trial(results.best).values())


def summary(margin: str, rows: Sequence[Row]) -> str:
    """Returns a margin's line."""
    met = [(r.dense, r.chosen) for r in rows if r.chosen is not None]
    dense, chosen = (sum(int(pair[side][MISSED]) for pair in met) for side in (0, 1))
    smaller = sum(d["metric.file_bytes"] / c["metric.file_bytes"] for d, c in met) / len(met)
    return (
        f"margin {margin}: {chosen} malignant cases missed, {dense} by the dense networks; more than the dense one in "
        f"{sum(r.more > 0 for r in rows)} of {len(met)} divisions, nothing chosen in {len(rows) - len(met)}; "
        f"{smaller:.1f}x smaller"
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--margins", nargs="+", default=["none", "0", "0.6"])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--override", nargs="*", default=[])
    given = parser.parse_args()
    found: dict[str, list[Row]] = {margin: [] for margin in given.margins}
    print("| " + " | ".join(HEADS) + " |\n|" + " --- |" * len(HEADS))
    for split in range(given.splits):
        for margin, rows in found.items():
            quiet = Console(file=io.StringIO())
            rows.append(row_of(run(overrides(split, margin, given), console=quiet)))
            cells = rows[-1].cells()
            print(f"| {split} | {margin} | " + " | ".join(cells) + " |", flush=True)
    for margin, rows in found.items():
        if any(r.chosen is not None for r in rows):
            print(summary(margin, rows))


if __name__ == "__main__":
    main()
