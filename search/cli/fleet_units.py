"""How the values of a sweep are named and written: summaries have no units, so they follow from the names."""

from search.report.findings import numbers
from search.report.findings.figures import name_label

_UNITS = {"_bytes": "bytes", "_ms": "ms", "_uj": "uJ"}


def unit_of_name(name: str) -> str:
    """Returns the unit of a cost; empty for a metric."""
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def text_of(name: str, value: float) -> str:
    """Returns a value with its unit."""
    return numbers.quantity(value, unit_of_name(name)) if unit_of_name(name) else numbers.plain(value)


def bounded(name: str, value: float, low: float, high: float) -> str:
    """Returns a value with its interval, e.g. `2.16 ms [2.00, 2.31]`; a cost is never below 0, and an interval of no width is left out."""
    unit = unit_of_name(name)
    if low == high:
        return text_of(name, value)
    if unit:
        return " ".join(numbers.with_bounds(value, max(low, 0.0), high, unit))
    return f"{text_of(name, value)} [{text_of(name, low)}, {text_of(name, high)}]"


def label_of(name: str) -> str:
    """Returns a value's name as it is shown."""
    return f"test {name_label(name[5:])}" if name.startswith("test_") else name_label(name)
