"""The column that a measurement has in trials.csv, summary.json and MLflow: the only place that builds or splits its text."""

from dataclasses import dataclass
from typing import Literal, Self

from spaces.errors import InputError

Kind = Literal["metric", "cost"]


@dataclass(frozen=True, order=True)
class Column:
    """Identifies a measurement: a metric of the model itself, or a cost on one device.

    The text is `metric.<name>` or `cost.<device>.<name>`. A device's name may have dots, so a cost's own name has none.

    Attributes:
        kind: `metric` or `cost`.
        device: The device that a cost is for; None for a metric.
        name: The measurement's name, e.g. `top1`, `latency_ms`.

    Raises:
        InputError: The parts do not form a column whose text can be parsed back.
    """

    kind: Kind
    device: str | None
    name: str

    def __post_init__(self) -> None:
        if self.kind not in ("metric", "cost"):
            raise InputError(f"a column is of kind `metric` or `cost`, not {self.kind!r}")
        if not self.name:
            raise InputError(f"a {self.kind} column needs the name of a measurement")
        if self.kind == "metric" and self.device is not None:
            raise InputError(
                f"metric {self.name!r} belongs to the model and has no device, but got {self.device!r}"
            )
        if self.kind == "cost" and not self.device:
            raise InputError(f"cost {self.name!r} needs the name of a device")
        if self.kind == "cost" and "." in self.name:
            raise InputError(f"the name of a cost has no dots, but got {self.name!r}")

    @classmethod
    def of(cls, name: str, device: str | None = None) -> Self:
        """Returns the column of a cost on `device`, or of a metric where there is none."""
        return cls("metric" if device is None else "cost", device, name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the column that a text stands for.

        Raises:
            InputError: The text is neither `metric.<name>` nor `cost.<device>.<name>`.
        """
        column = cls.find(text)
        if column is None:
            raise InputError(
                f"{text!r} is not a column: it must be `metric.<name>` or `cost.<device>.<name>`"
            )
        return column

    @classmethod
    def find(cls, text: str) -> Self | None:
        """Returns the column that a text stands for; None if it stands for something else (`number`, `knob.bits`)."""
        kind, _, rest = text.partition(".")
        if kind == "metric" and rest:
            return cls("metric", None, rest)
        device, _, name = rest.rpartition(".")
        return cls("cost", device, name) if kind == "cost" and device and name else None

    def __str__(self) -> str:
        return f"{self.kind}.{self.short}"

    @property
    def short(self) -> str:
        """The text without its kind, for display: `<name>` or `<device>.<name>`."""
        return self.name if self.device is None else f"{self.device}.{self.name}"

    @property
    def is_cost(self) -> bool:
        """Whether the column is a cost on a device."""
        return self.kind == "cost"

    def named(self, name: str) -> Self:
        """Returns the column of another measurement of the same kind, on the same device."""
        return type(self)(self.kind, self.device, name)
