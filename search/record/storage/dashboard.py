"""What optuna-dashboard shows of a study beside its trials: names of the objectives, and a note.

The note is kept as the dashboard keeps one that is typed there: in system attributes of the study, cut to parts of 2,045
characters, with a version (`optuna_dashboard/_note.py` of 0.21). A note that somebody typed is left alone.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna

from search.record.results import Objective

_VERSION, _PART = "dashboard:note_ver", "dashboard:note_str:"
_LENGTH = 2045
_OURS = "paredown:note"  # the text that was written last


def name_objectives(study: optuna.Study, objectives: Sequence[Objective]) -> None:
    """Names the objectives of a study by their columns, unless it has these names."""
    names = [o.column for o in objectives]
    if study.metric_names == names:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(names)


def write_note(study: optuna.Study, text: str) -> None:
    """Writes the study's note, Markdown, unless it has this one or one that somebody else wrote."""
    storage, study_id = study._storage, study._study_id
    attributes = storage.get_study_system_attrs(study_id)
    present = note_in(attributes)
    if present == text or (present and present != attributes.get(_OURS)):
        return
    parts = [text[start : start + _LENGTH] for start in range(0, len(text), _LENGTH)]
    n_before = sum(key.startswith(_PART) for key in attributes)
    values: dict[str, Any] = {f"{_PART}{i}": part for i, part in enumerate(parts)}
    values |= {f"{_PART}{i}": "" for i in range(len(parts), n_before)}
    values |= {_VERSION: int(attributes.get(_VERSION, 0)) + 1, _OURS: text}
    for key, value in values.items():
        storage.set_study_system_attr(study_id, key, value)


def note_in(attributes: dict[str, Any]) -> str:
    """Returns the note in a study's system attributes; empty if there is none."""
    n_parts = sum(key.startswith(_PART) for key in attributes)
    return "".join(str(attributes[f"{_PART}{i}"]) for i in range(n_parts))
