"""Reads knob values from text: CSV cells and MLflow params."""

import json
import math
import re

from spaces.candidate import Value, freeze, value_text
from spaces.knobs import Choices, Domain, same

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity|nan)", re.IGNORECASE)


def number(text: object) -> float | None:
    """Returns the finite number in a cell, or None if it contains anything else."""
    try:
        value = float(str(text)) if "_" not in str(text) else math.nan  # float("1_000") is 1000
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def text_cell(text: str) -> str:
    """Returns a text as a CSV cell that no spreadsheet takes for a formula: behind an apostrophe where it looks like one."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def cell_text(cell: str) -> str:
    """The inverse of `text_cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def value_in(domain: Domain, given: Value) -> tuple[Value] | None:
    """Returns the domain's value that equals a cell (or a value), as a tuple of one; None if there is none.

    The tuple distinguishes the value None from its absence.
    """
    if isinstance(domain, Choices):
        for test in (same, _same_text, _same_number, _same_boolean):
            equal_values = [v for v in domain.values if test(v, given)]
            if equal_values:
                return (equal_values[0],)
        return None
    parsed = number(given)
    if parsed is None or isinstance(given, bool):
        return None
    value = (round(parsed) if parsed == round(parsed) else parsed) if domain.integer else parsed
    return (value,) if value in domain else None


def equal(value: Value, given: Value) -> bool:
    """Returns whether a cell (or a value) equals `value`."""
    return value_in(Choices((value,)), given) is not None


def text_of(value: Value) -> str:
    """Returns a value as text, for messages."""
    return value_text(value)


def _same_text(value: Value, given: Value) -> bool:
    if not isinstance(given, str):
        return isinstance(value, tuple) and value_text(value) == value_text(given)
    if value_text(value) == given:
        return True
    if not isinstance(value, tuple):
        return False
    try:
        return freeze(json.loads(given)) == value
    except (ValueError, TypeError):
        return False


def _same_number(value: Value, given: Value) -> bool:
    if isinstance(value, bool) or isinstance(given, bool) or not isinstance(value, int | float):
        return False
    parsed = number(given)
    return parsed is not None and math.isclose(parsed, value, rel_tol=1e-12, abs_tol=0.0)


def _same_boolean(value: Value, given: Value) -> bool:
    return isinstance(value, bool) and isinstance(given, str) and given.lower() == str(value).lower()
