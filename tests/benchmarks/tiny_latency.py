"""MLPerf Tiny: one profile per (board, runtime), fitted to the other networks, against the measured latency and energy.

Run from the root of the repository::

    python tests/benchmarks/tiny_latency.py --table ../shared/data/tables/mlperf_tiny.csv --models ../shared/data/mlperf_tiny

Every row is predicted by a profile that was fitted to the rows of the same system but not of the same network. What a
profile borrows comes from other (board, runtime) pairs only: all results of the same board with the same runtime are left
out, whoever submitted them in whatever round. Two protocols:

transfer  the other pairs' results of the held-out network may be borrowed from
strict    the held-out network is left out everywhere; nothing about any latency of it is known

How much is borrowed is chosen anew for each pair by what predicts the other pairs best (nested cross-validation).
`--constants` prints the reference boards as they stand in evaluators/cost/reference_boards.py.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from evaluators.cost.fit.costs import Amounts, ReferenceBoard, amounts_of, recast
from evaluators.cost.fit.reference_boards import COSTS
from evaluators.cost.fit.shrinkage import Borrowing, Candidates, blended, candidates, reference_board, weights
from evaluators.cost.graph import op_graph
from evaluators.cost.graph.dead_channels import without_dead_channels
from spaces.models.onnx_file import read_onnx
from spaces.stages.artifact import Artifact, InputSpec

Array = NDArray[np.float64]
FILES = {
    "ad": "ad01_fp32.onnx",
    "ic": "pretrainedResnet.onnx",
    "kws": "kws_ref_model_float32.onnx",
    "vww": "vww_96_float.onnx",
}
TASKS = tuple(FILES)
# Fixed-function designs: a bitstream for each network, so its four results are of four devices, not of one.
DESIGN_PER_NETWORK = ("fpgaconvnet", "kai_jiang")
ACCELERATED = ("Qualcomm", "greenwaves-technologies", "syntiant", "Skymizer/TinkerV")
POOLED = {"conv": 1.0, "pointwise": 1.40, "fully_connected": 1.40, "depthwise": 1.45}
GRID = [
    Borrowing(spread, noise, 0.1, *match)
    for spread, noise, match in product((0.1, 0.2, 0.4), (0.05, 0.1), ((1.0, 1.0), (2.0, 5.0), (2.0, 20.0)))
]


@dataclass(frozen=True)
class System:
    """One submitted system: a row of latencies."""

    name: str
    board: str
    runtime: str
    release: str
    tasks: tuple[int, ...]
    latency_ms: Array

    @property
    def pair(self) -> tuple[str, str]:
        return self.board, self.runtime


@dataclass(frozen=True)
class Networks:
    """Amounts of the four networks in 8 bits, with and without constant channels."""

    kept: Amounts
    removed: Amounts


def networks(folder: Path) -> Networks:
    graphs, reduced = [], []
    for file in FILES.values():
        proto = read_onnx(folder / file)
        value = proto.graph.input[0]
        shape = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)[1:]
        artifact = Artifact.onnx(proto, InputSpec(shape, value.name))
        graph = op_graph(artifact)
        graphs.append(recast(graph, "int8"))
        reduced.append(recast(without_dead_channels(graph, artifact), "int8"))
    kept = amounts_of(graphs)
    return Networks(kept, amounts_of(reduced, kept.columns, kept.activation_bytes.shape[1]))


def results(table: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows that are used, and what was left out."""
    rows = pd.read_csv(table)
    notes = [f"{len(rows)} rows in {table.name}"]
    steps = [
        ("with a latency of one of the four networks", rows.latency_ms.notna() & rows.task.isin(TASKS)),
        ("closed division (the open one runs other networks)", rows.division == "closed"),
        ("not a design per network (fpgaConvNet, Kai Jiang's ANPU)", ~rows.org.isin(DESIGN_PER_NETWORK)),
    ]
    kept = pd.Series(data=True, index=rows.index)
    for text, mask in steps:
        kept &= mask
        notes.append(f"{int(kept.sum())} {text}")
    rows = rows[kept].drop_duplicates(["org", "system", "task", "latency_ms"])
    notes.append(f"{len(rows)} after results that were submitted again unchanged")
    counts = rows.groupby(["round", "org", "system"]).task.transform("size")
    notes.append(
        f"{int((counts >= 3).sum())} of systems with at least 3 of the 4 networks: these are predicted"
    )
    return rows, notes


def systems(rows: pd.DataFrame) -> list[System]:
    found = []
    for (turn, org, name), group in rows.groupby(["round", "org", "system"], sort=False):
        if len(group) < 2:
            continue
        runtime, release = _runtime(str(turn), str(org), str(name), group.framework.iloc[0])
        tasks = tuple(TASKS.index(task) for task in group.task)
        # The chip's name without its package: the same silicon is the same board.
        board = re.sub(r"[^A-Z0-9]", "", str(group.board.iloc[0]).upper()).removeprefix("NUCLEO")[:6]
        latency = group.latency_ms.to_numpy(float)
        found.append(System(f"{turn}/{org}/{name}", board, runtime, release, tasks, latency))
    return found


def _runtime(turn: str, org: str, name: str, framework: object) -> tuple[str, str]:
    """Runtime and release as submitted; the submitter's own runtime where none is named."""
    text = f"{framework if isinstance(framework, str) else ''} {name}".lower()
    known = {
        "x-cube": "X-CUBE-AI",
        "stedge": "X-CUBE-AI",
        "plumerai": "Plumerai",
        "hale": "HALE",
        "onnc": "ONNC",
        "tensorflow lite": "TensorFlow Lite Micro",
        "tflite": "TensorFlow Lite Micro",
    }
    runtime = next((full for key, full in known.items() if key in text), "")
    if "microtvm" in text:
        runtime = "microTVM" if "native" in text else "microTVM CMSIS-NN"
    runtime = runtime or {"STMicroelectronics": "X-CUBE-AI", "plumerai": "Plumerai"}.get(org, org)
    version = re.search(r"(?:x-cube-ai[ -]v?)(\d+\.\d+)", text)
    return runtime, f"{runtime} {version[1] if version else turn}"


def references(
    every: Sequence[System], nets: Networks, without: int | None = None
) -> list[tuple[ReferenceBoard, tuple[str, str]]]:
    boards = []
    for system in every:
        chosen = [i for i, task in enumerate(system.tasks) if task != without]
        if len(chosen) < 2:
            continue
        tasks = [system.tasks[i] for i in chosen]
        board = reference_board(
            nets.kept.rows(tasks),
            nets.removed.rows(tasks),
            system.latency_ms[chosen],
            system.board,
            system.runtime,
            system.release,
        )
        boards.append((board, system.pair))
    return boards


@dataclass(frozen=True)
class Held:
    """One held-out row with every reference fitted to the others, per (spread, noise)."""

    system: System
    task: int
    latency_ms: float
    boards: Sequence[tuple[ReferenceBoard, tuple[str, str]]]
    fits: Mapping[tuple[float, float], Candidates]


def held_out(every: Sequence[System], nets: Networks, strict: bool) -> Iterator[Held]:
    whole = references(every, nets)
    by_task = {task: references(every, nets, task) if strict else whole for task in range(4)}
    for system in every:
        if len(system.tasks) < 3:
            continue
        for i, task in enumerate(system.tasks):
            rest = [j for j in range(len(system.tasks)) if j != i]
            tasks = [system.tasks[j] for j in rest]
            only = [board for board, _ in by_task[task]]
            fits = {
                (b.spread, b.noise): candidates(
                    nets.kept.rows(tasks), nets.removed.rows(tasks), system.latency_ms[rest], only, b
                )
                for b in {(b.spread, b.noise): b for b in GRID}.values()
            }
            yield Held(system, task, float(system.latency_ms[i]), by_task[task], fits)


def log_error(held: Held, nets: Networks, borrowing: Borrowing, hidden: set[tuple[str, str]]) -> float:
    found = held.fits[borrowing.spread, borrowing.noise]
    usable = np.array([pair not in hidden for _, pair in held.boards])
    both = np.append(usable, [True, True])
    part = Candidates(found.log_costs[both], found.log_evidence[both], found.removes_dead[both])
    boards = [board for (board, _), use in zip(held.boards, usable, strict=True) if use]
    share = weights(part, boards, borrowing, held.system.runtime, held.system.release)
    costs, removes = blended(part, share)
    amounts = (nets.removed if removes else nets.kept).rows([held.task])
    return float(np.log(amounts.times_ms(costs)[0] / held.latency_ms))


def nested(
    rows: Sequence[Held], nets: Networks, chosen: Counter[Borrowing], grid: Sequence[Borrowing] = GRID
) -> Array:
    """Log errors, `(n,)`, with the borrowing of each pair chosen on the other pairs, and counted in `chosen`."""
    errors = np.empty(len(rows))
    for pair in {row.system.pair for row in rows}:
        others = [row for row in rows if row.system.pair != pair]
        losses = [
            np.mean([abs(log_error(row, nets, b, {pair, row.system.pair})) for row in others]) for b in grid
        ]
        best = grid[int(np.argmin(losses))]
        chosen[best] += 1
        for i, row in enumerate(rows):
            if row.system.pair == pair:
                errors[i] = log_error(row, nets, best, {pair})
    return errors


def scaled(rows: Sequence[Held], nets: Networks, weights: Mapping[str, float]) -> Array:
    """Log errors of one scale per system for weighted multiply-accumulates."""
    factors = np.array([weights.get(kind, 1.0) for _, kind in nets.kept.columns])
    logs = np.log(nets.kept.macs @ factors)
    errors = []
    for row in rows:
        rest = [i for i, task in enumerate(row.system.tasks) if task != row.task]
        scale = np.mean([np.log(row.system.latency_ms[i]) - logs[row.system.tasks[i]] for i in rest])
        errors.append(scale + logs[row.task] - np.log(row.latency_ms))
    return np.array(errors)


def energies(table: Path) -> tuple[Array, list[str], int]:
    """Relative errors of median power x measured latency, leave one network out; the systems; rows without repeats."""
    rows = pd.read_csv(table)
    rows = rows[
        rows.energy_uJ.notna() & rows.latency_ms.notna() & rows.task.isin(TASKS) & (rows.division == "closed")
    ]
    repeated = rows.duplicated(["org", "system", "task", "energy_uJ"])
    errors, names, fresh = [], [], []
    for (_, org, name), group in rows.groupby(["round", "org", "system"], sort=False):
        power = (group.energy_uJ / group.latency_ms).to_numpy(float)
        for i in range(len(group)):
            if len(group) > 1:
                errors.append(float(np.median(np.delete(power, i)) / power[i] - 1))
                names.append(f"{org}/{name}")
                fresh.append(not repeated[group.index[i]])
    order = np.argsort(~np.array(fresh), kind="stable")
    return np.array(errors)[order], [names[i] for i in order], int(np.sum(fresh))


def line(console: Console, name: str, log_errors: Array) -> None:
    relative = np.abs(np.expm1(log_errors))
    console.print(
        f"  {name:<52} n {len(relative):>3}  median {np.median(relative):6.1%}  mean {relative.mean():6.1%}"
        f"  within 10 % {np.mean(relative <= 0.1):6.1%}  within 25 % {np.mean(relative <= 0.25):6.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=Path("../shared/data/tables/mlperf_tiny.csv"))
    parser.add_argument("--models", type=Path, default=Path("../shared/data/mlperf_tiny"))
    parser.add_argument("--constants", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=160, highlight=False, soft_wrap=True)
    nets = networks(arguments.models)
    rows, notes = results(arguments.table)
    every = systems(rows)
    if arguments.constants:
        print_constants(console, [board for board, _ in references(every, nets)])
        return
    for note in notes:
        console.print(note)
    whole = dict(zip(TASKS, map(int, nets.kept.macs.sum(axis=1)), strict=True))
    live = dict(zip(TASKS, map(int, nets.removed.macs.sum(axis=1)), strict=True))
    console.print(f"MACs {whole}\nwithout constant channels {live}\n")
    print_latency(console, every, nets)
    print_energy(console, arguments.table)


def print_latency(console: Console, every: Sequence[System], nets: Networks) -> None:
    transfer = list(held_out(every, nets, strict=False))
    strict = list(held_out(every, nets, strict=True))
    cpu = np.array([not any(word in row.system.name for word in ACCELERATED) for row in transfer])
    chosen: Counter[Borrowing] = Counter()
    blind = [b for b in GRID if b.same_release == 1.0]
    predicted = {
        "MACs, one scale per system": scaled(transfer, nets, {}),
        "pooled constants 1 : 1.40 : 1.45 (seen on these rows)": scaled(transfer, nets, POOLED),
        "fit, transfer": nested(transfer, nets, chosen),
        "fit, transfer, nobody else's runtime known": nested(transfer, nets, Counter(), blind),
        "fit, strict": nested(strict, nets, Counter()),
    }
    for title, mask in {"all systems": np.ones(len(cpu), bool), "CPUs of microcontrollers": cpu}.items():
        console.print(
            f"{title}: {len({r.system.name for r, m in zip(transfer, mask, strict=True) if m})} systems"
        )
        for name, errors in predicted.items():
            line(console, name, errors[mask])
    console.print(f"borrowing chosen in transfer: {dict(chosen)}")
    tasks = np.array([row.task for row in transfer])
    for name in ("fit, transfer", "fit, strict"):
        for task, label in enumerate(TASKS):
            line(console, f"{name}, {label}", predicted[name][tasks == task])
    console.print("transfer, off by more than 25 %:")
    for row, error in zip(transfer, predicted["fit, transfer"], strict=True):
        if abs(np.expm1(error)) > 0.25:
            console.print(f"  {row.system.name} {TASKS[row.task]} {np.expm1(error):+.0%}")


def print_energy(console: Console, table: Path) -> None:
    errors, names, n_fresh = energies(table)
    console.print("\nenergy: median power of the other networks x measured latency")
    line(console, "all results", np.log1p(errors))
    line(console, "without results that were submitted again", np.log1p(errors[:n_fresh]))
    per_system = pd.Series(np.abs(errors)).groupby(names).mean().sort_values()
    console.print(
        "  worst systems: " + ", ".join(f"{name} {value:.0%}" for name, value in per_system.tail(5).items())
    )


def print_constants(console: Console, boards: Sequence[ReferenceBoard]) -> None:
    """The table of evaluators/cost/reference_boards.py."""
    for b in boards:
        version, dead = (
            b.release.removeprefix(b.runtime).strip(),
            "removed" if b.removes_dead_channels else "kept",
        )
        costs = " ".join(f"{b.log_costs[name]:.2f}" for name in COSTS)
        console.print(f"{b.name} | {version:<4} | {b.runtime} | {dead} | {costs}", markup=False)


if __name__ == "__main__":
    main()
