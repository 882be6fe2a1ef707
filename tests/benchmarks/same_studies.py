"""Whether two builds of Paredown run the same studies: the same candidates, metrics and modelled costs, trial by trial.

Run the same commands with both builds, each in a folder of its own, then::

    python tests/benchmarks/same_studies.py BEFORE/outputs AFTER/outputs

Reads the trials.csv of every study that is in both folders; `--ignore` takes overrides out of the names of a sweep's studies, where one
build wrote more of them than the other. Prints for each study how many trials agree, and for each column
that differs in how many trials and by how much at most; columns that only one build writes are listed. Seconds are not compared,
nor what was measured on a clock (`--measured`, default `cost.host`). Exits with 1 if anything differs.
"""

import argparse
import csv
import math
import re
import sys
from pathlib import Path

Row = dict[str, str]


def rows_of(study: Path) -> dict[str, Row]:
    """Returns the rows of a study's trials.csv by trial number."""
    with (study / "trials.csv").open(newline="") as file:
        return {row["number"]: row for row in csv.DictReader(file)}


def compared(row: Row, measured: str) -> Row:
    """Returns the cells that have to agree."""
    return {
        column: cell
        for column, cell in row.items()
        if (column.startswith(("knob.", "metric.", "cost.")) and not column.startswith(measured))
        or column == "state"
    }


def distance(before: str | None, after: str | None) -> float:
    """Returns how far two cells are apart: absolute if both are numbers, infinite if they are other texts."""
    if (before or "") == (after or ""):
        return 0.0
    try:
        return abs(float(before or "nan") - float(after or "nan"))
    except ValueError:
        return math.inf


def compare(before: Path, after: Path, measured: str) -> bool:
    """Prints how two folders of the same study differ; returns whether they agree."""
    old = {number: compared(row, measured) for number, row in rows_of(before).items()}
    new = {number: compared(row, measured) for number, row in rows_of(after).items()}
    columns = list(dict.fromkeys(column for row in (*old.values(), *new.values()) for column in row))
    both = sorted(old.keys() & new.keys(), key=int)
    found = {c: [distance(old[n].get(c), new[n].get(c)) for n in both] for c in columns}
    different = {c: [d for d in distances if d or math.isnan(d)] for c, distances in found.items()}
    agree = sum(all(found[c][at] == 0 for c in columns) for at in range(len(both)))
    print(f"{before.name}: {agree} of {len(old)} and {len(new)} trials agree in {len(columns)} columns")
    for column, distances in different.items():
        if distances:
            print(f"    {column}: {len(distances)} trials differ, by {max(distances):g} at most")
    return agree == len(old) == len(new)


def studies_in(folder: Path, ignored: list[str]) -> dict[str, Path]:
    """Returns the studies' folders by name, without the overrides that are ignored."""
    found = {}
    for path in sorted(folder.glob("*/trials.csv")):
        name = path.parent.name
        for key in ignored:
            name = re.sub(rf"(?<=[-,]){re.escape(key)}=[^,]*,", "", name)
        found[name] = path.parent
    return found


def main() -> int:
    """Compares and prints; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--measured", default="cost.host", help="what columns measured on a clock begin with")
    parser.add_argument("--ignore", nargs="*", default=["tabular.path"], help="overrides in names of studies")
    args = parser.parse_args()
    before, after = studies_in(args.before, args.ignore), studies_in(args.after, args.ignore)
    for name in before.keys() - after.keys():
        print(f"{name}: only in {args.before}")
    same = [compare(path, after[name], args.measured) for name, path in before.items() if name in after]
    print(f"{sum(same)} of {len(before)} studies are the same")
    return 0 if same and sum(same) == len(before) else 1


if __name__ == "__main__":
    sys.exit(main())
