"""What led an allocator to its widths: the layers' losses, and the curve of bits against loss."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.record.results import StudyRecord, TrialRecord

LOSSES = {
    "kl": "KL divergence of the output",
    "soft_kl": "KL divergence of the output at temperature 2",
    "mse": "mean squared error of the output",
    "sqnr": "noise-to-signal ratio of the output",
    "ssim": "1 - SSIM of the output",
    "fisher": "Fisher loss",
    "hessian": "Hessian loss",
}


@dataclass(frozen=True)
class Unit:
    """One layer, or several with a common width.

    Attributes:
        path: The knob.
        name: Name of the layer, or of the first one and how many more.
        n_weights: Number of weights.
        losses: Width in bits to the loss of the output with only this unit at that width.
    """

    path: str
    name: str
    n_weights: int
    losses: Mapping[int, float]


@dataclass(frozen=True)
class BudgetMark:
    """A budget, and the bits per weight of the allocation of least loss that keeps it."""

    name: str
    limit: float
    bits: float


@dataclass(frozen=True)
class Allocation:
    """An allocator's explanation, read back.

    Attributes:
        loss: What the loss is, in words.
        units: The units in the network's order.
        curve: Pairs of bits per weight and predicted loss, fewest bits first.
        budgets: The budgets that are on the curve.
    """

    loss: str
    units: tuple[Unit, ...]
    curve: tuple[tuple[float, float], ...]
    budgets: tuple[BudgetMark, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """All widths, ascending."""
        return tuple(sorted({width for unit in self.units for width in unit.losses}))

    def widths_of(self, record: TrialRecord) -> dict[str, int] | None:
        """Returns the widths of a trial by knob; None if a unit has none, or one whose loss is not known."""
        found = {unit.path: record.candidate.get(unit.path) for unit in self.units}
        known = all(found[unit.path] in unit.losses for unit in self.units)
        return {path: int(str(width)) for path, width in found.items()} if known else None

    def place(self, widths: Mapping[str, int]) -> tuple[float, float]:
        """Returns the bits per weight and the predicted loss of an allocation."""
        bits = sum(unit.n_weights * widths[unit.path] for unit in self.units)
        total = sum(unit.n_weights for unit in self.units)
        return bits / total, math.fsum(unit.losses[widths[unit.path]] for unit in self.units)

    def most_sensitive(self) -> Unit:
        """Returns the unit with the largest loss at its smallest width."""
        return max(self.units, key=lambda unit: unit.losses[min(unit.losses)])


def allocation_of(results: StudyRecord) -> Allocation | None:
    """Returns what led to the proposals; None if no allocator made them."""
    given = results.proposals
    if not given.get("units") or len(given.get("curve", ())) < 2:
        return None
    marks = (BudgetMark(str(b["name"]), float(b["limit"]), float(b["bits"])) for b in given["budgets"])
    return Allocation(
        LOSSES.get(given["sensitivity"], "predicted loss"),
        tuple(_unit(path, unit) for path, unit in given["units"].items()),
        tuple((float(bits), float(loss)) for bits, loss in given["curve"]),
        tuple(marks),
    )


def rounding_of(record: TrialRecord, unit: Unit) -> str:
    """Returns the method that rounded a unit's weights; empty if the study has no such knob."""
    stage, _, inner = unit.path.partition(".")
    layers = inner.partition("[")[2]
    own = record.candidate.get(f"{stage}.rounding[{layers}", record.candidate.get(f"{stage}.rounding"))
    return "" if own is None else str(own)


def _unit(path: str, unit: Mapping[str, Any]) -> Unit:
    first, *more = unit["layers"]
    name = f"{first} and {len(more)} more" if more else str(first)
    return Unit(path, name, int(unit["n_weights"]), {int(w): float(x) for w, x in unit["losses"].items()})
