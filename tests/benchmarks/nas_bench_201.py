"""NAS-Bench-201: latency models fitted to 100 architectures, against the measured latency of all other connected ones.

Run from the root of the repository::

    python tests/benchmarks/nas_bench_201.py --table ../shared/data/tables/nb201_latency.csv.gz --seeds 10

The method is the same for every device: four ways of counting what a network executes, non-negative least squares on
each, cross-validation on the 100 architectures alone chooses, and a Gaussian process or boosted trees on top where they
are surely better. Counts are of kernels in all cells (C = 16, 32, 64; N = 5; Dong, Yang 2020, "NAS-Bench-201", arXiv 2001.00326):

live    what lies between input and output: a runtime that also computes in advance what is constant
needed  what the output needs, also where its input is constant zero: a runtime that prunes an exported graph
eager   everything, zeroing an edge included: a framework that runs node by node
both    needed and eager side by side, for runtimes in between
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import spearmanr

from evaluators.cost.fit.features import fit_features

Array = NDArray[np.float64]
Edge = tuple[int, int, str]
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
OUTPUT = 3
CELLS = 15  # N = 5 in each of three stages
N_FIT = 100
# Best figure of any column of a published comparison of six simple models on the same task, each metric by itself
# (Spearman, share within 10 %, mean relative error).
REFERENCE = {
    "raspi4": (0.943, 0.56, 0.155),
    "gold_6226": (0.988, 0.94, 0.031),
    "1080ti_1": (0.988, 1.00, 0.019),
    "titan_rtx_256": (1.000, 1.00, 0.003),
    "samsung_a50": (0.982, 0.94, 0.036),
    "eyeriss": (0.995, 1.00, 0.000),
}


def edges(text: str) -> list[Edge]:
    """`|op~0|+|op~0|op~1|+...` as (from, to, operation)."""
    nodes = [node.strip("|").split("|") for node in text.split("+")]
    return [
        (int(edge.split("~")[1]), to, edge.split("~")[0]) for to, node in enumerate(nodes, 1) for edge in node
    ]


def needed(cell: Sequence[Edge]) -> list[Edge]:
    """Edges that the output depends on, once the edges without an operation are gone."""
    real = [edge for edge in cell if edge[2] != "none"]
    wanted = {OUTPUT}
    for node in range(OUTPUT, 0, -1):
        wanted |= {source for source, to, _ in real if to == node and node in wanted}
    return [edge for edge in real if edge[1] in wanted]


def live(cell: Sequence[Edge]) -> list[Edge]:
    """Edges of `needed` that the input reaches."""
    kept, reached = needed(cell), {0}
    for node in range(1, OUTPUT + 1):
        reached |= {to for source, to, _ in kept if to == node and source in reached}
    return [edge for edge in kept if edge[0] in reached]


def counts(cell: Sequence[Edge]) -> list[float]:
    """Kernels of the network: one a cell for each operation, one for each further edge that ends in a node."""
    ends = [to for _, to, _ in cell]
    additions = len(ends) - len(set(ends))
    operations = [sum(operation == name for _, _, operation in cell) for name in OPERATIONS]
    return [CELLS * float(number) for number in (*operations, additions)]


def features(architectures: Sequence[str]) -> dict[str, Array]:
    cells = [edges(text) for text in architectures]
    eager = np.array([counts(cell) for cell in cells])
    kept = np.array([counts(needed(cell)) for cell in cells])
    reached = np.array([counts(live(cell)) for cell in cells])
    return {"live": reached, "needed": kept, "eager": eager, "both": np.hstack([kept, eager])}


def scores(predicted: Array, measured: Array) -> tuple[float, float, float]:
    error = np.abs(predicted / measured - 1)
    return float(spearmanr(predicted, measured)[0]), float(np.mean(error <= 0.1)), float(error.mean())


def run(every: Mapping[str, Array], latency_ms: Array, seed: int) -> tuple[tuple[float, float, float], str]:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(latency_ms), N_FIT, replace=False)
    rest = np.setdiff1d(np.arange(len(latency_ms)), chosen)
    fit = fit_features({name: x[chosen] for name, x in every.items()}, latency_ms[chosen], rng)
    predicted = fit.predict({name: x[rest] for name, x in every.items()})
    return scores(predicted, latency_ms[rest]), f"{fit.counts}+{fit.correction}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=Path("../shared/data/tables/nb201_latency.csv.gz"))
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    console = Console(width=170, highlight=False, soft_wrap=True)
    rows = pd.read_csv(arguments.table)
    connected = np.array([any(to == OUTPUT for _, to, _ in live(edges(text))) for text in rows.arch_str])
    rows = rows[connected]
    every = features(rows.arch_str.tolist())
    console.print(
        f"{len(connected)} architectures, {len(rows)} connected, {N_FIT} to fit, {len(rows) - N_FIT} to predict; "
        f"{arguments.seeds} seeds, mean and 95 % interval of the mean"
    )
    console.print(f"{'':<14} {'Spearman':<26} {'within 10 %':<28} {'mean relative error':<28} chosen")
    for device, best in REFERENCE.items():
        results = [run(every, rows[device].to_numpy(float), seed) for seed in range(arguments.seeds)]
        print_row(console, device, best, np.array([r[0] for r in results]), [r[1] for r in results])


def print_row(
    console: Console, device: str, best: tuple[float, float, float], found: Array, chosen: Sequence[str]
) -> None:
    mean = found.mean(axis=0)
    half = 1.96 * found.std(axis=0, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.zeros(3)
    picks = ", ".join(f"{name} x{chosen.count(name)}" for name in dict.fromkeys(chosen))
    console.print(
        f"{device:<14} {mean[0]:.4f} ±{half[0]:.4f} (best {best[0]:.3f})  {mean[1]:6.2%} ±{half[1]:.2%} (best {best[1]:.0%})  "
        f"{mean[2]:6.2%} ±{half[2]:.2%} (best {best[2]:.1%})  {picks}"
    )


if __name__ == "__main__":
    main()
