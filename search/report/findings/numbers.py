"""How the report writes numbers: a value with its unit, a signed change, an interval, a ratio."""

import math
from collections.abc import Sequence

from evaluators.column import Column
from evaluators.cost.latency.order import TIE

_BINARY_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_MINUS = "−"  # a true minus sign is as wide as a plus
_LEAST = 1e-9  # in these units a smaller number is what rounding leaves of a difference of equal numbers
_COARSE_UNITS = ("%", "pp", "ms", "bytes", "dB", "uJ", "mJ", "x")


def plain(value: float) -> str:
    """Returns three or four significant digits, without an exponent where one can be avoided."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: f"{_MINUS}∞"}.get(value, "not a number")
    if value == int(value) and abs(value) < 1e7:
        text = f"{int(value):,}"
    elif abs(value) >= 1e4:
        text = f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    elif 1e-7 <= abs(value) < 1e-4:
        text = f"{value:.{_decimals(abs(value))}f}"
    else:
        text = f"{value:.4g}" if abs(value) >= 10 else f"{value:.3g}"
    return text.replace("-", _MINUS)


def quantity(value: float, unit: str) -> str:
    """Returns a value with its unit: bytes as KiB or MiB (1 KiB = 1024 bytes), per cent to a hundredth."""
    value = _without_rounding(value, unit)
    if unit in ("%", "pp") and math.isfinite(value):
        return f"{value:.2f} {unit}".replace("-", _MINUS)
    size, name = _scale(abs(value), unit)
    return f"{plain(float(f'{value / size:.3g}') if size > 1 else value)} {name}".rstrip()


def signed(value: float, unit: str) -> str:
    """Returns a change: `quantity` with a sign, where per cent become percentage points."""
    value = _without_rounding(value, unit)
    return _sign(value, quantity(abs(value), "pp" if unit == "%" else unit))


def with_bounds(
    value: float, low: float, high: float, unit: str, *, is_change: bool = False
) -> tuple[str, str]:
    """Returns a value and its interval in the same unit and with the same decimals: `97.60 %`, `[97.00, 98.20]`.

    Args:
        value: The value.
        low: Lower end of its interval.
        high: Upper end.
        unit: The unit of all three.
        is_change: Whether they are changes, which carry signs.
    """
    value, low, high = (_without_rounding(v, unit) for v in (value, low, high))
    largest = max(abs(v) for v in (value, low, high))
    if not math.isfinite(largest):
        return (signed if is_change else quantity)(value, unit), f"[{plain(low)}, {plain(high)}]"
    size, name = _scale(largest, "pp" if unit == "%" and is_change else unit)
    decimals = 2 if unit in ("%", "pp") else _decimals(largest / size)
    texts = [f"{abs(v) / size:,.{decimals}f}" for v in (value, low, high)]
    if is_change:
        texts = [_sign(v, t) for v, t in zip((value, low, high), texts, strict=True)]
    else:
        texts = [(_MINUS if v < 0 else "") + t for v, t in zip((value, low, high), texts, strict=True)]
    return f"{texts[0]} {name}".rstrip(), f"[{texts[1]}, {texts[2]}]"


def _without_rounding(value: float, unit: str) -> float:
    return 0.0 if unit in _COARSE_UNITS and abs(value) < _LEAST else value


def _scale(magnitude: float, unit: str) -> tuple[float, str]:
    if unit == "bytes" and math.isfinite(magnitude):
        return next(((float(s), name) for s, name in _BINARY_UNITS if magnitude >= s), (1.0, unit))
    return 1.0, unit


def _decimals(largest: float) -> int:
    """Returns the number of decimals at which the largest number of a group has three significant digits."""
    return 0 if largest == 0 else min(9, max(0, 2 - math.floor(math.log10(largest))))


def _sign(value: float, text: str) -> str:
    if not any(c in "123456789∞" for c in text):
        return text
    return ("+" if value > 0 else _MINUS) + text


def ratio(column: str, before: float, after: float) -> str | None:
    """Returns by what factor a cost is lower or higher than the float model's; None where a ratio means nothing.

    E.g. `3.9× smaller`, `1.3× slower`; times that differ by at most 3 % tie: `as fast as float`.
    """
    if not (before > 0 and after > 0 and math.isfinite(before) and math.isfinite(after)):
        return None
    name = Column.parse(column).name
    better, worse = "lower", "higher"
    if name.endswith("bytes"):
        better, worse = "smaller", "larger"
    elif name.endswith(("_ms", "_us", "_s")):
        better, worse = "faster", "slower"
    factor = before / after
    if better == "faster" and 1 / (1 + TIE) <= factor <= 1 + TIE:
        return "as fast as float"
    if abs(factor - 1) < 0.005:
        return "the same"
    return f"{_times(factor)} {better}" if factor > 1 else f"{_times(1 / factor)} {worse}"


def _times(factor: float) -> str:
    """Returns e.g. `1.04×`, `3.9×`, `12.5×`: never 1."""
    return f"{factor:.3g}×" if factor >= 10 or factor < 1.1 else f"{factor:.2g}×"


def duration(seconds: float) -> str:
    """Returns e.g. `12 ms`, `4.2 s`, `3 min 5 s` or `2 h 10 min`."""
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.2g} ms" if seconds >= 1e-3 else "< 1 ms"
    if seconds < 60:
        return f"{plain(float(f'{seconds:.2g}'))} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listing(words: Sequence[str]) -> str:
    """Joins words as a sentence does: `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def capitalized(text: str) -> str:
    """Returns a text with its first letter as a capital, and the others as they are."""
    return text[:1].upper() + text[1:]


def counted(count: int, noun: str) -> str:
    """Returns e.g. `1 trial`, `3 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
