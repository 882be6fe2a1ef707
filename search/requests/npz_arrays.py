"""Tells from the arrays of an `.npz` file which task reads them for a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.archives import read_npz, reading
from search.requests.choices import Choices
from search.requests.masks import IGNORED, scores_of
from search.requests.network import Network, Shape
from search.requests.sizes import split_sizes
from search.requests.unlabelled import unlabelled
from spaces.errors import InputError

_EXAMPLES, _LABELS = "x", "y"
_STEPS = "labels y (n, steps) are taken as a class for each step; task=yes_no takes labels 0 and 1 as answers to as many questions"
_ANSWERS = "labels y of 0 and 1 are taken as answers to {n} yes-or-no questions about each example"


def array_choices(path: Path, network: Network) -> Choices:
    """Returns the task and the settings for a file with the network's inputs, by their names or the only one as `x`, and labels `y`, if there are any.

    Args:
        path: The file.
        network: What the network takes.

    Raises:
        InputError: The network's inputs are not known, an array is missing or does not fit them, or labels are of an unknown kind.
    """
    if not network.inputs:
        raise InputError(
            f"{path} holds arrays, but the network's config does not say what it takes; choose task= yourself, e.g. task=npz or task=text"
        )
    stored_names = _names(path)
    keys = _keys(stored_names, network)
    labels = [_LABELS] if _LABELS in stored_names else []
    with reading(path, "an .npz file"):
        read = read_npz(path, *keys.values(), *labels, hint=_needed(network))
    arrays, y = read[: len(keys)], read[-1]
    stored = {name: array.shape[1:] for name, array in zip(keys, arrays, strict=True)}
    layouts = {name: _layout(stored[name], network.shapes[name], path, key) for name, key in keys.items()}
    shapes = {
        name: stored[name] if layouts[name] == "NHWC" else _channels_first(stored[name]) for name in keys
    }
    if not labels:
        return _without_labels(path, network, keys, shapes, layouts, len(arrays[0]))
    task = _task_of(y, network, path)
    settings = _settings(keys, shapes, layouts, several=len(keys) > 1)
    if task.groups["task"] == "npz":
        where, settings = "task", {"input_shape": [*next(iter(shapes.values()))], **settings}
    else:
        where = "task.data"
    values = {"task.root": str(path), **{f"{where}.{key}": value for key, value in settings.items()}}
    sizes = (
        {} if network.folder is None else split_sizes(len(y))
    )  # the zoo's networks need a rest to learn from
    return Choices(values={**_model_shapes(network, shapes), **values}) | task | Choices(values=sizes)


def _without_labels(
    path: Path,
    network: Network,
    keys: Mapping[str, str],
    shapes: Mapping[str, Shape],
    layouts: Mapping[str, str],
    n: int,
) -> Choices:
    settings = {"y": None, **_settings(keys, shapes, layouts, several=len(keys) > 1)}
    values = {"task.root": str(path), **{f"task.data.{key}": value for key, value in settings.items()}}
    made = unlabelled(network, "npz", values, n, str(path))
    return Choices(values=_model_shapes(network, shapes)) | made


def _names(path: Path) -> list[str]:
    """Returns the names of the arrays of a file; none if it is a single array."""
    with reading(path, "an .npz file"), np.load(path, allow_pickle=False) as loaded:
        return loaded.files if isinstance(loaded, np.lib.npyio.NpzFile) else []


def _keys(stored: Sequence[str], network: Network) -> dict[str, str]:
    """Returns the name of the array of each input."""
    names = [*network.shapes]
    if len(names) > 1:
        return {name: name for name in names}
    return {names[0]: names[0] if _EXAMPLES not in stored and names[0] in stored else _EXAMPLES}


def _needed(network: Network) -> str:
    names = [*network.shapes] if len(network.inputs) > 1 else [_EXAMPLES]
    return f"; {', '.join(names)} and, if there are any, labels {_LABELS} are needed"


def _layout(stored: Shape, wanted: Shape, path: Path, key: str) -> str:
    """Returns how stored examples become the network's inputs."""
    for layout, shape in (("NHWC", stored), ("NCHW", _channels_first(stored))):
        if len(shape) == len(wanted) and all(w in (0, s) for s, w in zip(shape, wanted, strict=True)):
            return layout
    raise InputError(
        f"{path}: examples {key} have shape {list(stored)}, but the network takes {list(wanted)} (0 is open)"
    )


def _channels_first(shape: Shape) -> Shape:
    return (*shape[-1:], *shape[:-1])


def _settings(
    keys: Mapping[str, str], shapes: Mapping[str, Shape], layouts: Mapping[str, str], several: bool
) -> dict[str, Any]:
    """Returns the keys of the loader."""
    if several:
        alike = len(set(layouts.values())) == 1
        layout: Any = next(iter(layouts.values())) if alike else dict(layouts)
        return {"input_shape": {name: [*shape] for name, shape in shapes.items()}, "layout": layout}
    (key,), (layout,) = keys.values(), layouts.values()
    return {**({} if key == _EXAMPLES else {"x": key}), "layout": layout}


def _model_shapes(network: Network, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Returns the shapes of inputs whose axes are open, as the data has them."""
    is_open = {name: [*shapes[name]] for name, shape in network.shapes.items() if 0 in shape}
    if network.folder is None or network.given or not is_open:
        return {}
    return {"model.input_shape": is_open if len(shapes) > 1 else next(iter(is_open.values()))}


def _task_of(y: NDArray[Any], network: Network, path: Path) -> Choices:
    """Returns the task for the labels."""
    n = len(y) if y.ndim else 0
    if np.issubdtype(y.dtype, np.floating):
        return Choices({"task": "regression"})
    if np.issubdtype(y.dtype, np.integer) and y.size == n:
        return Choices({"task": "npz"}, {"task.n_classes": 1 + int(y.max(initial=0))})
    if y.dtype.kind in "iu" and y.ndim == 3 and (scores := _of_positions(network, y, path)):
        return scores
    is_number = n > 0 and y.size > 0 and y.dtype.kind in "iub"
    if is_number and y.ndim == 2 and (steps := _of_steps(network, y.shape[1], int(y.max()) + 1)):
        return Choices({"task": "step_classes"}, steps, notes=(_STEPS,))
    if is_number and np.isin(y, (0, 1)).all():
        above = {"task.threshold": 0.5} if any(out.is_probability for out in network.outputs.values()) else {}
        return Choices({"task": "yes_no"}, above, notes=(_ANSWERS.format(n=y.size // n),))
    other = "transcripts with task.alphabet=..." if y.dtype.kind in "US" else "segmentation"
    raise InputError(
        f"{path}: labels y are {y.dtype} of shape {list(y.shape)}. Known are whole numbers (n,), which are classes, (n, steps), which are "
        "classes of steps, or (n, h, w), which are masks, 0 and 1 of any shape, which are answers, and floats, which are predicted; for others choose task= yourself, "
        f"e.g. task={other}"
    )


def _of_positions(network: Network, y: NDArray[Any], path: Path) -> Choices | None:
    """Returns the choices for masks `(n, h, w)`; None where no output has class scores for positions.

    Raises:
        InputError: The masks have more classes than the output.
    """
    settings, notes = scores_of(network, (y.shape[1], y.shape[2]))
    n_classes = int(settings.pop("n_scores", 0))
    if n_classes < 2:
        return None
    largest = int(y[y != IGNORED].max(initial=0))
    if largest >= n_classes:
        raise InputError(
            f"{path}: masks y hold the class {largest}, but the network yields scores of {n_classes} classes"
        )
    return Choices(
        {"task": "segmentation", "task/data": "npz"},
        {"task.n_classes": n_classes, **settings},
        notes=tuple(notes),
    )


def _of_steps(network: Network, steps: int, n_classes: int) -> dict[str, Any]:
    """Returns the settings of a task that judges classes of steps; nothing if no output yields those.

    Labels 0 and 1 are classes only where there are as many outputs a step: one more would as well be another value of it.
    """
    for output in network.outputs.values():
        if len(output.shape) != 2 or output.shape[0] not in (0, steps):
            continue
        if output.shape[1] in (0, n_classes) or output.shape[1] > n_classes > 2:
            return {"task.time_first": output.time_first}
    return {}
