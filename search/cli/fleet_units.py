"""How the values of a sweep are named and written: a cost's unit follows from its name, a metric's is in the summary."""

from search.report.findings import numbers
from search.report.findings.figures import name_label

_UNITS = {"_bytes": "bytes", "_ms": "ms", "_uj": "uJ"}
_OF_STUDIES = {"hypervolume", "n_trials", "n_complete", "n_failed", "wall_s"}  # no metrics of a model


def unit_of_name(name: str) -> str:
    """Returns the unit of a cost; empty for a metric."""
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def text_of(value: float, unit: str) -> str:
    """Returns a value with its unit."""
    return numbers.quantity(value, unit) if unit else numbers.plain(value)


def bounded(value: float, low: float, high: float, unit: str) -> str:
    """Returns a value with its interval, e.g. `2.16 ms [2.00, 2.31]`; an interval of no width is left out."""
    if low == high:
        return text_of(value, unit)
    if unit:
        return " ".join(numbers.with_bounds(value, low, high, unit))
    return f"{text_of(value, unit)} [{text_of(low, unit)}, {text_of(high, unit)}]"


def possible(name: str, ends: tuple[float, float], unit: str) -> tuple[float, float]:
    """Returns the part of an interval that a value can have: no cost is below 0, no percentage above 100."""
    low, high = ends
    return max(low, 0.0) if unit_of_name(name) else low, min(high, 100.0) if unit == "%" else high


def label_of(name: str) -> str:
    """Returns a value's name as it is shown, a metric's with its split."""
    if name.startswith("test_"):
        return f"test {name_label(name[5:])}"
    is_metric = not unit_of_name(name) and name not in _OF_STUDIES
    return f"validation {name_label(name)}" if is_metric else name_label(name)
