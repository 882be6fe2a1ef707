"""How many full evaluations a search of one network needs without knowledge of other networks.

Run from the root of the repository, with what `truth_table.py` prepared (FOLDER) and measured (PARTS)::

    python tests/benchmarks/one_network.py FOLDER PARTS resnet20 --limits 200000 175000 none --seeds 20

The objective is top-1, under a limit of the file's bytes (`--limits`). Trials are counted until one is within
`--within` points of the best feasible candidate. Optuna's samplers get the limit as a constraint with every
trial (`trial.set_constraint`), and once more "fitting only": on a table without the candidates that are too
large. Ours knows the bytes, as in a study. `surrogate` also has statistics that need no run, and low-fidelity
evaluations: runs on the first examples, in another order for every seed. `surrogate_no_low_fidelity` has
neither. The cost of low-fidelity evaluations is reported in full evaluations: examples over all examples,
plus for each evaluated candidate `--overhead`, the share of a full evaluation that building and loading it
takes.

A search that is not done within `--most` trials counts as `--most`; random search runs to the end. CMA-ES
is left out: all knobs but one are categorical, which it draws at random.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
from replayed_low_fidelity import KnownOnly, ReplayedLowFidelity, Truth, read_truth, table_of
from table_search import SAMPLERS, Table, mean_text, median_text, search

from search.record.results import Constraint, Objective

TOP1 = Objective("metric.top1", "maximize")
OURS = ("surrogate", "surrogate_no_low_fidelity")
FITTING_ONLY = " (fitting only)"


@dataclass
class Result:
    """Cost of one sampler's searches.

    Attributes:
        trials: Trials of each seed.
        low_fidelity: Cost of each seed's low-fidelity evaluations, in full evaluations.
        missed: Number of searches that were not done within `--most` trials.
        seconds: Mean seconds per trial.
    """

    trials: list[int] = field(default_factory=list)
    low_fidelity: list[float] = field(default_factory=list)
    missed: int = 0
    seconds: float = 0.0

    @property
    def totals(self) -> list[float]:
        """Trials and low-fidelity evaluations together, in full evaluations."""
        return [n + cost for n, cost in zip(self.trials, self.low_fidelity, strict=True)]


def run(truth: Truth, constraints: Sequence[Constraint], name: str, seed: int, given: argparse.Namespace):
    """Searches once; returns trials, the cost of low-fidelity evaluations, and whether the goal was reached."""
    table = table_of(truth, [TOP1], constraints)
    fits = feasible(table)
    wanted = table.values[fits, 0].max() - given.within - 1e-9
    context, low_fidelity = None, None
    if name.endswith(FITTING_ONLY):
        table = table.part(fits)
    if name in OURS:
        low_fidelity = (ReplayedLowFidelity if name == "surrogate" else KnownOnly)(
            truth, [TOP1], constraints, seed
        )
        context = table.context(low_fidelity, baselines=[truth.baseline["metric.top1"]])
    made = SAMPLERS[name.removesuffix(FITTING_ONLY).removesuffix("_no_low_fidelity")](seed)
    most = len(table.candidates) if name.startswith("random") else given.most
    fits = feasible(table)
    for n, at in enumerate(search(table, made, seed, context), 1):
        reached = fits[at] and table.values[at, 0] >= wanted
        if reached or n == most:
            return n, low_fidelity.cost(given.overhead) if low_fidelity else 0.0, bool(reached)
    raise AssertionError("the best candidate is in the table")


def feasible(table: Table) -> np.ndarray:
    """Returns where every constraint holds, `(n,)`."""
    return np.all([np.ones(len(table.candidates)), *(e <= 0 for e in table.excesses.values())], axis=0)


def compare(truth: Truth, limit: str, given: argparse.Namespace) -> None:
    """Runs all samplers with one limit, prints their table."""
    constraints = (
        [] if limit == "none" else [Constraint("file_bytes", "metric.file_bytes", "max", float(limit))]
    )
    describe(table_of(truth, [TOP1], constraints), truth, limit, given.within)
    names = [
        name
        for sampler in given.samplers
        for name in (sampler, *([sampler + FITTING_ONLY] if constraints and sampler not in OURS else []))
    ]
    results: dict[str, Result] = {}
    for name in names:
        result = results[name] = Result()
        began, n_seeds = time.monotonic(), given.gp_seeds if name.startswith("gp") else given.seeds
        for seed in range(given.first_seed, given.first_seed + n_seeds):
            n, cost, reached = run(truth, constraints, name, seed, given)
            result.trials.append(n)
            result.low_fidelity.append(cost)
            result.missed += not reached
        result.seconds = (time.monotonic() - began) / sum(result.trials)
        print(f"  {name}: {result.trials}", flush=True)
    show(results)


def describe(table: Table, truth: Truth, limit: str, within: float) -> None:
    """Prints how many candidates are feasible and how many are good enough."""
    top1 = table.values[feasible(table), 0]
    best = top1.max()
    error = 100 * np.sqrt(best / 100 * (1 - best / 100) / truth.n_full)
    n_good = int((top1 >= best - within - 1e-9).sum())
    print(
        f"\n{truth.network}, at most {limit} bytes: {len(top1)} of {len(table.candidates)} candidates fit; top-1 best {best:.2f}, "
        f"median {np.median(top1):.2f}; {n_good} within {within:g} points of the best; a top-1 of {truth.n_full} images has a "
        f"standard error of {error:.2f} points"
    )


def show(results: dict[str, Result]) -> None:
    """Prints the table."""
    optunas = {name: r for name, r in results.items() if name not in OURS and not name.startswith("random")}
    best = min(optunas, key=lambda name: np.median(optunas[name].trials), default=None)
    print(
        f"\n{'sampler':26}{'seeds':>6} {'median trials':18}{'mean trials':22}{'low-fidelity':>13} {'median in all':18}{'missed':>7}"
        f"{'s/trial':>9}  ratio of medians to the best of Optuna's: trials, in all"
    )
    for name, r in results.items():
        ratio = ""
        if best is not None and name in OURS:
            top = np.median(optunas[best].trials)
            ratio = f"{top / np.median(r.trials):.1f}, {top / np.median(r.totals):.1f} ({best})"
        print(
            f"{name:26}{len(r.trials):6} {median_text(r.trials):18}{mean_text(r.trials):22}{np.median(r.low_fidelity):13.2f} "
            f"{median_text(np.round(r.totals, 2)):18}{r.missed:7}{r.seconds:9.3f}  {ratio}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs all searches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", type=Path)
    parser.add_argument("network")
    parser.add_argument("--limits", nargs="+", default=["none"], help="bytes of file, or none")
    parser.add_argument("--within", type=float, default=0.1, help="points from the best feasible candidate")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--gp-seeds", type=int, default=5, help="seeds of gp, which is slow")
    parser.add_argument("--most", type=int, default=300, help="trials of one search")
    parser.add_argument(
        "--overhead",
        type=float,
        default=0.01,
        help="of evaluating a candidate at low fidelity, in full evaluations",
    )
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe", "nsga2", "gp", *OURS])
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    truth = read_truth(given.folder, given.parts, given.network)
    for limit in given.limits:
        compare(truth, limit, given)


if __name__ == "__main__":
    main()
