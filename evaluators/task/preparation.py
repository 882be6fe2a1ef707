"""How raw data become a network's inputs, and what its outputs stand for, as the task tells: for whoever runs a compressed file."""

from typing import Any

from evaluators.task.tasks.task import Task
from spaces.stages.artifact import Split

_MOST_CLASSES = 30
_UNTOLD = "the task does not say how inputs are made: as for the network that was compressed"


def preparation_of(task: Task, split: Split) -> dict[str, str]:
    """Returns texts by what they tell: `scaling`, and where there are classes `classes`.

    Args:
        task: The task, whose splits are loaded.
        split: One of these.
    """
    steps = [text for text in (task.preparation(), _scaling(split)) if text]
    classes = _classes(task)
    return {"scaling": "; ".join(steps) or _UNTOLD, **({"classes": classes} if classes else {})}


def _scaling(split: Any) -> str:
    """Returns what a split's transform tells of itself; of several inputs each by its name."""
    if hasattr(split, "parts"):
        parts = {name: _scaling(part) for name, part in split.parts.items()}
        return "; ".join(f"{name}: {text}" for name, text in parts.items() if text)
    if told := getattr(getattr(split, "transform", None), "told", None):
        return str(told())
    return _scaling(split.examples) if hasattr(split, "examples") else ""


def _classes(task: Task) -> str:
    names, n_classes = task.class_names(), task.n_classes
    if names:
        shown = ", ".join(f"{number} {name}" for number, name in enumerate(names[:_MOST_CLASSES]))
        return shown + (f" ... ({len(names)} classes)" if len(names) > _MOST_CLASSES else "")
    return f"numbers 0 to {n_classes - 1}; the data do not name them" if n_classes else ""
