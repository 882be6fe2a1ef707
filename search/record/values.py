"""Values as other files write them: text in CSV cells and MLflow params."""

import json
import math

from spaces.candidate import Value, freeze, value_text
from spaces.knobs import Choices, Domain, same


def number(text: object) -> float | None:
    """Returns the finite number that a cell holds, or None."""
    try:
        found = float(str(text)) if "_" not in str(text) else math.nan  # float("1_000") is 1000
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def value_in(domain: Domain, given: Value) -> tuple[Value] | None:
    """Returns the domain's value that a cell (or a value) stands for, as a tuple of one; None if it has none such."""
    if isinstance(domain, Choices):
        for test in (same, _same_text, _same_number, _same_truth):
            hits = [v for v in domain.values if test(v, given)]
            if hits:
                return (hits[0],)
        return None
    found = number(given)
    if found is None or isinstance(given, bool):
        return None
    value = (round(found) if found == round(found) else found) if domain.integer else found
    return (value,) if value in domain else None


def equal(value: Value, given: Value) -> bool:
    """Whether a cell (or a value) stands for `value`."""
    return value_in(Choices((value,)), given) is not None


def text_of(value: Value) -> str:
    """Returns a cell for people."""
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
    found = number(given)
    return found is not None and math.isclose(found, value, rel_tol=1e-12, abs_tol=0.0)


def _same_truth(value: Value, given: Value) -> bool:
    return isinstance(value, bool) and isinstance(given, str) and given.lower() == str(value).lower()
