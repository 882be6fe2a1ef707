"""The metric after each epoch of a trial's trainings, as the trial's details keep it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DETAIL = "curve"  # of a trial's details


@dataclass(frozen=True)
class Curve:
    """The metric after each epoch of one trial's trainings, on the first examples of the validation split.

    Attributes:
        metric: The task's metric, e.g. `top1`.
        values: After epochs 1, 2, ..., higher is better; before export and quantization.
        macs: Multiply-accumulates of the network that was trained.
    """

    metric: str
    values: tuple[float, ...]
    macs: int

    def to_detail(self) -> dict[str, Any]:
        """Returns it as a trial's detail, JSON-able."""
        return {"metric": self.metric, "values": list(self.values), "macs": self.macs}


def curve_of(details: Mapping[str, Any]) -> Curve | None:
    """Returns the curve in a trial's details, or None: nothing was trained, or it had been trained before."""
    found = details.get(DETAIL)
    if not found:
        return None
    return Curve(str(found["metric"]), tuple(found["values"]), int(found["macs"]))
