"""How many full evaluations a network needs, with the trials of other networks as knowledge and without.

Run from the root of the repository, with what `truth_table.py` prepared (FOLDER) and measured (PARTS)::

    python tests/benchmarks/second_network.py FOLDER PARTS --networks resnet20 resnet32 mobilenet_v2 --seeds 20

The first network is searched from scratch with a budget of `--budget` trials, as a user's study would be. Its trials (not its
table) are the knowledge of the second; the third has those of both. The same search from scratch, with the
same seed, is the comparison. Trials are counted until one is within `--within` points of the best candidate;
a candidate that was measured before is answered from the study and does not count. Searches are without
low-fidelity evaluations, or with them (`--low-fidelity`, see `one_network.py`). `--limits` are each network's
most bytes of file, as in `one_network.py`. `--reversed` reverses the ranking of the knowledge: the worst
candidates are reported as the best.

Prints, per network, means and medians with 95 % intervals over seeds, and the ratio of the means (its interval by bootstrap
over seeds); the target is at most half.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
from replayed_low_fidelity import KnownOnly, ReplayedLowFidelity, Truth, read_truth, table_of
from table_search import RESAMPLES, SAMPLERS, mean_text, median_text, search

from search.record.results import Constraint, Objective
from search.samplers.candidates.context import KnowledgeRow

TOP1 = Objective("metric.top1", "maximize")


class Network:
    """One network's measurements with its limit, to be searched.

    Args:
        truth: The measurements.
        limit: Most bytes of file; "none" for no limit.
        within: Difference from the best candidate at which a search is done, in points.
        given: The command line.
    """

    def __init__(self, truth: Truth, limit: str, within: float, given: argparse.Namespace) -> None:
        self.truth, self.within, self._given = truth, within, given
        self._constraints = (
            [] if limit == "none" else [Constraint("file_bytes", "metric.file_bytes", "max", float(limit))]
        )
        self.table = table_of(truth, [TOP1], self._constraints)
        self.fits = np.all(
            [np.ones(len(self.table.candidates)), *(e <= 0 for e in self.table.excesses.values())], axis=0
        )
        self._wanted = self.table.values[self.fits, 0].max() - within - 1e-9

    def __str__(self) -> str:
        top1 = self.table.values[self.fits, 0]
        best, n_images = top1.max(), self.truth.n_full
        good = np.unique(self.table.same[self.fits][top1 >= self._wanted])
        return (
            f"{self.truth.network}: {self.fits.sum()} of {len(self.fits)} candidates fit; top-1 best {best:.2f}, median "
            f"{np.median(top1):.2f}; {len(good)} files within {self.within:g} points; standard error of a top-1 of {n_images} "
            f"images {100 * np.sqrt(best / 100 * (1 - best / 100) / n_images):.2f} points"
        )

    def measured(
        self, knowledge: Sequence[KnowledgeRow], seed: int, n_trials: int | None = None
    ) -> tuple[list[int], float]:
        """Returns the positions of the measured candidates, and the cost of the low-fidelity evaluations.

        It ends after `n_trials`, or without that when the goal is reached.
        """
        low_fidelity = (ReplayedLowFidelity if self._given.low_fidelity else KnownOnly)(
            self.truth, [TOP1], self._constraints, seed
        )
        context = self.table.context(low_fidelity, knowledge, [self.truth.baseline["metric.top1"]])
        found: list[int] = []
        for at in search(self.table, SAMPLERS["surrogate"](seed), seed, context):
            found.append(at)
            there = self.fits[at] and self.table.values[at, 0] >= self._wanted
            if len(found) >= (n_trials or self._given.most) or (there and n_trials is None):
                break
        return found, low_fidelity.cost(self._given.overhead)

    def knowledge_of(self, found: Sequence[int]) -> list[KnowledgeRow]:
        """Returns the measurements of these candidates as knowledge rows."""
        base = self.truth.baseline["metric.top1"]
        rows = [
            KnowledgeRow(
                self.truth.network, self.table.candidates[at], float(self.table.values[at, 0]), {}, base
            )
            for at in found
        ]
        return [replace(row, values=(row.value - base,)) for row in rows]


def upside_down(rows: Sequence[KnowledgeRow]) -> list[KnowledgeRow]:
    """Returns the rows with the values in reversed order: the best row gets the worst value."""
    order = np.argsort([row.value for row in rows], kind="stable")
    return [
        replace(rows[a], value=rows[b].value, values=rows[b].values)
        for a, b in zip(order, order[::-1], strict=True)
    ]


def chain(networks: Sequence[Network], given: argparse.Namespace, seed: int) -> list[list[float]]:
    """Returns per network trials and low-fidelity cost, from scratch and with knowledge of those before."""
    known: list[KnowledgeRow] = []
    counts = []
    for network in networks:
        scratch = network.measured((), seed)
        informed = network.measured(known, seed) if known else scratch
        counts.append([float(len(scratch[0])), scratch[1], float(len(informed[0])), informed[1]])
        if network is not networks[-1]:
            knowledge_of = network.knowledge_of(network.measured(known, seed, given.budget)[0])
            known += upside_down(knowledge_of) if given.reversed else knowledge_of
    return counts


def ratio_text(before: np.ndarray, after: np.ndarray) -> str:
    """Returns the ratio of the means `after / before`, `(n_seeds,)` each, with its 95 % bootstrap interval."""
    chosen = np.random.default_rng(0).integers(len(before), size=(RESAMPLES, len(before)))
    low, high = np.quantile(after[chosen].mean(axis=1) / before[chosen].mean(axis=1), [0.025, 0.975])
    return f"{after.mean() / before.mean():.2f} [{low:.2f}, {high:.2f}]"


def show(networks: Sequence[Network], counts: np.ndarray, given: argparse.Namespace) -> None:
    """Prints `(n_seeds, n_networks, 4)` counts."""
    low_fidelity = f"{'with' if given.low_fidelity else 'without'} low-fidelity evaluations"
    print(f"\ntrials until near the best, {len(counts)} seeds, {low_fidelity}")
    print(f"{'':17}{'from scratch':50}{'with the trials of those before':50}ratio of means")
    half = f"{'mean':22}{'median':18}{'low-fid.':10}"
    print(f"{'network':17}{half}{half}{'trials':20}trials and low-fidelity cost")
    for at, network in enumerate(networks):
        cells = f"{network.truth.network:17}"
        for kind in (0, 2):
            column = counts[:, at, kind]
            cells += (
                f"{mean_text(column):22}{median_text(column):18}{np.median(counts[:, at, kind + 1]):<10.2f}"
            )
        if at:
            totals = counts[:, at, 0] + counts[:, at, 1], counts[:, at, 2] + counts[:, at, 3]
            cells += f"{ratio_text(counts[:, at, 0], counts[:, at, 2]):20}{ratio_text(*totals)}"
        print(cells)
    missed = int((counts[:, :, ::2] >= given.most).sum())
    if missed:
        print(f"{missed} searches were stopped at {given.most} trials (--most): these means are lower bounds")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs all searches, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", type=Path)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet32", "mobilenet_v2"])
    parser.add_argument("--limits", nargs="+", help="a network's most bytes of file each, or none")
    parser.add_argument("--low-fidelity", action="store_true", help="with low-fidelity evaluations")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=24, help="trials of a study that others learn from")
    parser.add_argument(
        "--within",
        type=float,
        nargs="+",
        default=[0.1],
        help="points from the best candidate, one or each network's",
    )
    parser.add_argument("--most", type=int, default=200, help="trials after which a search gives up")
    parser.add_argument(
        "--overhead",
        type=float,
        default=0.01,
        help="of evaluating a candidate at low fidelity, in full evaluations",
    )
    parser.add_argument("--reversed", action="store_true", help="reverse the ranking of the knowledge")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    limits = given.limits or ["none"] * len(given.networks)
    if len(limits) != len(given.networks):
        parser.error(f"--limits needs one for each of {len(given.networks)} networks, not {len(limits)}")
    truths = [read_truth(given.folder, given.parts, name) for name in given.networks]
    within = given.within * (len(truths) if len(given.within) == 1 else 1)
    if len(within) != len(truths):
        parser.error(f"--within needs one, or one for each of {len(truths)} networks, not {len(within)}")
    networks = [Network(*each, given) for each in zip(truths, limits, within, strict=True)]
    for n in networks:
        print(n)
    began, counts = time.monotonic(), []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        counts.append(chain(networks, given, seed))
        print(
            f"seed {seed}: {np.round(counts[-1], 1).tolist()}, {time.monotonic() - began:.0f} s", flush=True
        )
    show(networks, np.array(counts), given)


if __name__ == "__main__":
    main()
