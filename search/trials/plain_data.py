"""What a worker returns is plain data: numbers, texts, lists and mappings, which no reader has to run code for."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from evaluators.base import Evaluation, Measurement, Source
from spaces.errors import EvaluationError

_MOST_DEPTH = 64


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Returns a copy of `value` of Python's own types: None, bool, int, float, str, bytes, list and dict.

    Numbers of numpy become Python's, tuples lists, and keys that are numbers texts, as in JSON.

    Args:
        value: The value.
        where: What it is, for the message.
        depth: How many lists and mappings it is in.

    Raises:
        EvaluationError: It is, or holds, something else: a set, an array, a function, a text that is not Unicode.
    """
    if depth > _MOST_DEPTH:
        raise EvaluationError(f"{where} is nested more than {_MOST_DEPTH} deep, or contains itself")
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_key(k, where): plain(v, f"{where}[{k!r}]", depth + 1) for k, v in value.items()}
    raise EvaluationError(
        f"{where} is {kind_of(value)}, which is not data that a study can record: use numbers, texts, lists and mappings"
    )


def plain_evaluation(evaluation: Any, evaluator: str) -> Evaluation:
    """Returns what an evaluator returned, as plain data.

    Args:
        evaluation: What it returned.
        evaluator: Its name, for the message.

    Raises:
        EvaluationError: It is no `Evaluation`, or a value in it has a wrong type.
    """
    where = f"evaluator {evaluator}"
    if not isinstance(evaluation, Evaluation):
        raise EvaluationError(f"{where} must return an Evaluation, not {kind_of(evaluation)}")
    measurements = plain_measurements(evaluation.measurements, f"{where}: measurements")
    details = plain(evaluation.details, f"{where}: details")
    if not isinstance(details, dict):
        raise EvaluationError(f"{where}: details must be a mapping, not {kind_of(evaluation.details)}")
    if not isinstance(evaluation.pruned, str):
        raise EvaluationError(f"{where}: pruned must be a text, not {kind_of(evaluation.pruned)}")
    return Evaluation(measurements, details, _text(evaluation.pruned, f"{where}: pruned"))


def plain_measurements(measurements: Any, where: str) -> tuple[Measurement, ...]:
    """Returns measurements whose names, units and devices are texts and whose values are Python's numbers.

    Raises:
        EvaluationError: One is something else.
    """
    if not isinstance(measurements, list | tuple):
        raise EvaluationError(f"{where} must be a tuple of Measurement, not {kind_of(measurements)}")
    return tuple(_measurement(m, f"{where}[{i}]") for i, m in enumerate(measurements))


def _measurement(m: Any, where: str) -> Measurement:
    if not isinstance(m, Measurement):
        raise EvaluationError(f"{where} must be a Measurement, not {kind_of(m)}")
    name = _required(m.name, f"{where}: name")
    where = f"measurement {name!r}"
    if m.source not in get_args(Source):
        raise EvaluationError(
            f"{where}: source must be one of {', '.join(get_args(Source))}, not {m.source!r}"
        )
    device = None if m.device is None else _required(m.device, f"{where}: device")
    if not isinstance(m.unit, str):
        raise EvaluationError(f"{where}: unit must be a text, not {kind_of(m.unit)}")
    return Measurement(name, plain_number(m.value, where), _text(m.unit, f"{where}: unit"), m.source, device)


def plain_number(value: Any, where: str) -> float:
    """Returns a Python number; 0-dimensional arrays and tensors are no numbers."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise EvaluationError(f"{where} must be a number, not {kind_of(value)}")
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value)


def _required(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise EvaluationError(f"{where} must be a text, not {kind_of(value)}")
    return _text(value, where)


def _text(value: str, where: str) -> str:
    """Returns the text.

    Raises:
        EvaluationError: It has a lone surrogate, which no file in UTF-8 can hold.
    """
    if legible(value) != value:
        raise EvaluationError(f"{where} is no valid Unicode text: {legible(value)[:80]!r}")
    return str(value)


def legible(text: str) -> str:
    """Returns the text with lone surrogates replaced by escapes, e.g. of a file name that is not Unicode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return _text(key, f"a key of {where}")
    if key is None or isinstance(key, bool | int | float | np.integer | np.floating):
        return str(key)
    raise EvaluationError(f"a key of {where} is {kind_of(key)}: use texts as keys")


def kind_of(value: Any) -> str:
    """Returns what a value is, for a message: `a list`, `None`, `a numpy.ndarray`."""
    if value is None:
        return "None"
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
