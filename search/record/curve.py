"""The training curve of a trial, stored in its details."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DETAIL = "curve"  # key in a trial's details


@dataclass(frozen=True)
class Curve:
    """The metric after each epoch of one trial's trainings, on the first examples of the validation split.

    Attributes:
        metric: Name of the task's metric, e.g. `top1`.
        values: The metric after epochs 1, 2, ..., higher is better; of the network before export and
            quantization.
        macs: Multiply-accumulates of the network that was trained.
    """

    metric: str
    values: tuple[float, ...]
    macs: int

    def to_detail(self) -> dict[str, Any]:
        """Returns the curve as a JSON-able dict for a trial's details."""
        return {"metric": self.metric, "values": list(self.values), "macs": self.macs}


def curve_of(details: Mapping[str, Any]) -> Curve | None:
    """Returns the curve in a trial's details; None if nothing was trained, or the network was cached."""
    detail = details.get(DETAIL)
    if not detail:
        return None
    return Curve(str(detail["metric"]), tuple(detail["values"]), int(detail["macs"]))
