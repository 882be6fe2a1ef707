"""Bars of limits: what a model uses of each, and what is left."""

from collections.abc import Iterator
from dataclasses import dataclass

from evaluators.column import Column
from search.record.results import Constraint, StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import Figure, device_of, figure, label
from search.report.page.bars import bar
from search.report.page.markup import esc
from spaces.errors import ParedownError
from spaces.units import parse_bytes

_MEMORIES = {"ram_bytes": ("peak_sram_bytes", "RAM"), "flash_bytes": ("flash_bytes", "flash")}
"""Key of a device's profile to what a model uses of it, and its name."""
_ENDS = {"_high": "upper end of ", "_low": "lower end of "}


@dataclass(frozen=True)
class Target:
    """A limit, and what a model uses of it.

    Attributes:
        name: What is limited.
        used: The model's value.
        bound: The limit with its margin, in the same unit.
        is_most: Whether values above the bound break it, rather than those below.
        remark: Where the limit is from.
    """

    name: str
    used: Figure
    bound: float
    is_most: bool = True
    remark: str = ""

    @property
    def left(self) -> float:
        """How far the value is from the bound; below 0 it is beyond."""
        return self.bound - self.used.value if self.is_most else self.used.value - self.bound


def targets(results: StudyRecord, record: TrialRecord, device: str | None) -> str:
    """Returns the limits on a device as bars, HTML; empty if there are none."""
    found = [*_constraints(results, record, device), *_memories(results, record, device)]
    return f'<ul class="targets">{"".join(map(_item, found))}</ul>' if found else ""


def _constraints(results: StudyRecord, record: TrialRecord, device: str | None) -> Iterator[Target]:
    for constraint in results.constraints:
        used = figure(record.measurements, constraint.column)
        if used is not None and (device is None or device_of(constraint.column) in (None, device)):
            name = _name(constraint, with_device=device is None)
            remark = (
                ""
                if not constraint.margin
                else f"with a margin of {numbers.quantity(constraint.margin, _points(used))}"
            )
            yield Target(name, used, constraint.bound, constraint.kind == "max", remark)


def _name(constraint: Constraint, *, with_device: bool) -> str:
    end = next((e for e in _ENDS if constraint.column.endswith(e)), "")
    column = constraint.column.removesuffix(end)
    split = "" if Column.parse(column).is_cost or column.endswith("_bytes") else ", validation split"
    return _ENDS.get(end, "") + label(column, with_device=with_device) + split


def _memories(results: StudyRecord, record: TrialRecord, device: str | None) -> Iterator[Target]:
    """Yields the memories that the device's profile states, as far as no constraint limits their use."""
    profile = (results.config.get("device") or {}).get(device) or {}
    limited = {c.column.removesuffix("_high") for c in results.constraints}
    for key, (used_name, name) in _MEMORIES.items():
        column = str(Column.of(used_name, device))
        used = figure(record.measurements, column)
        if used is None or column in limited or not profile.get(key):
            continue
        try:
            size = float(parse_bytes(profile[key], f"device.{device}.{key}"))
        except ParedownError:  # a profile from an older version
            continue
        yield Target(name, used, size, remark="what the device has")


def _item(target: Target) -> str:
    used, unit = target.used, _points(target.used)
    bound, left = (numbers.quantity(v, unit) for v in (target.bound, abs(target.left)))
    kept = target.left >= 0
    if target.bound == 0 and target.is_most:
        text = f"{_used(target)}, none allowed"
    elif target.is_most:
        text = f"{_used(target)} of {bound}" + (f", {left} left" if kept else f", {left} too much")
    else:
        text = f"{_used(target)}, at least {bound}: " + (f"{left} above" if kept else f"{left} below")
    remark = f' <span class="quiet">{esc(target.remark)}</span>' if target.remark else ""
    head = f"<div><span>{esc(target.name)}{remark}</span><span><strong>{esc(text)}</strong></span></div>"
    if target.bound == 0:
        return f"<li>{head}</li>"
    whole = max(abs(v) for v in (target.bound, used.value, used.high or 0.0))
    ends = None if used.low is None or used.high is None else (used.low / whole, used.high / whole)
    css = "" if kept else "over"
    drawn = bar(used.value / whole, css, ends).replace(
        "<span ", f'<span style="--at:{100 * target.bound / whole:.1f}%" ', 1
    )
    return f"<li>{head}{drawn}</li>"


def _points(used: Figure) -> str:
    """Returns the unit of differences."""
    return "pp" if used.unit == "%" else used.unit


def _used(target: Target) -> str:
    """Returns the value: drops are points, and one below 0 is a gain."""
    used = target.used
    text = used.text.replace("%", "pp") if "drop" in target.name and used.unit == "%" else used.text
    return f"{text} {used.interval}".rstrip()
