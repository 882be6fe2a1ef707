"""Images with masks: the classes of the masks against the network's scores, and the size of both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.task.data.images.decoding import Frame, Mask
from evaluators.task.data.images.image_files import images_below
from search.requests.choices import Choices
from search.requests.network import Network, Output, Shape
from spaces.errors import InputError

IMAGES, MASKS = "images", "masks"
_MOST_READ = 200  # masks, for the values that they hold
IGNORED = 255  # as `task.ignore` has it
_MOST_LISTED = 10


def mask_choices(path: Path, network: Network, sizes: dict[str, int], given: Mapping[str, Any]) -> Choices:
    """Returns the task and the loader for pairs of an image and a mask.

    Args:
        path: The folder, with the folders `images` and `masks`.
        network: The network.
        sizes: Those of the splits.
        given: What the user sets, by key.

    Raises:
        InputError: The network takes no images, or its scores do not fit the masks.
    """
    picture = network.picture
    if picture is None:
        raise InputError(
            f"{path} holds images with masks, but the network takes {network.takes}; grey or RGB images are needed"
        )
    channels, height, width, layout = picture
    frame = {"task.data.resize": [height, width]} if height and width else {}
    values: dict[str, Any] = {
        "task.root": str(path), **frame,
        **({"task.data.channels": "grey"} if channels == 1 else {}),
        **({"task.data.layout": layout} if layout != "NCHW" else {}),
        **(sizes if network.folder is not None else {}),
    }  # fmt: skip
    scores, notes = scores_of(network, (height, width))
    classes, more = _classes(path / MASKS, int(scores.pop("n_scores", 0)), given)
    scale = (
        "images are scaled to 0..1; if the network was trained otherwise, set task.data.mean=[...] task.data.std=[...]",
    )
    found = {**values, **scores, **classes}
    kept = {key: value for key, value in found.items() if key not in given}
    return Choices({"task": "segmentation", "task/data": "mask_folders"}, kept, notes=(*more, *notes, *scale))


def scores_of(network: Network, size: tuple[int, int]) -> tuple[dict[str, Any], list[str]]:
    """Returns how the scores lie, their number as `n_scores` where it is known, and what was assumed."""
    output = next(iter(network.outputs.values()), Output(()))
    if len(output.shape) != 3:
        return {}, []
    last = _is_last(output.shape, size)
    n_scores, places = (output.shape[2], output.shape[:2]) if last else (output.shape[0], output.shape[1:])
    found: dict[str, Any] = {"task.output_layout": "NHWC"} if last else {}
    notes = []
    if all(places) and all(size) and places != size:
        found["task.upsample"] = "bilinear"
        notes.append(f"scores of {places[0]} x {places[1]} positions are enlarged: task.upsample=bilinear")
    if n_scores == 1:
        threshold = 0.5 if output.is_probability else 0
        found |= {"task.threshold": threshold}
        kind = "probabilities" if threshold else "logits"
        notes.append(f"class 1 is where the score lies above {threshold}, as for {kind}: task.threshold")
    return {**found, "n_scores": n_scores}, notes


def _is_last(shape: Shape, size: tuple[int, int]) -> bool:
    """Whether classes lie along the last axis: the first two have the proportions of the image."""
    if all(size) and all(shape):
        first, last = (a * size[1] == b * size[0] for a, b in (shape[1:], shape[:2]))
        return last and not first
    return bool(shape[2]) and not shape[0]


def _classes(folder: Path, n_scores: int, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the number of classes, and the values that stand for them if these are not their numbers.

    Raises:
        InputError: The masks have more values than the network has scores.
    """
    n_classes = 2 if n_scores == 1 else n_scores
    if "task.data.mask_values" in given or "task.n_classes" in given:
        return ({"task.n_classes": n_classes} if n_classes else {}), []
    found = _values(folder)
    plain = [value for value in found if value != IGNORED]
    binary = IGNORED in found and plain in ([], [0]) and n_classes in (0, 2)
    largest = max(plain, default=0)
    are_numbers = largest < n_classes or (not n_classes and largest < 2 * len(plain))
    if are_numbers and (len(plain) > 1 or IGNORED not in found):
        ignored = [f"positions of value {IGNORED} do not count: task.ignore"] * (IGNORED in found)
        return {"task.n_classes": n_classes or max(largest + 1, 2)}, ignored
    values = [0, IGNORED] if binary else plain if len(plain) in (0, n_classes) or not n_classes else found
    if len(values) != (n_classes or len(values)) or len(values) < 2:
        raise InputError(
            f"{folder} holds the values {_listed(found)}, but the network tells {n_classes} classes apart. Add task.data.mask_values=[...], the "
            "value of each class in their order, and task.data.ignore=VALUE task.ignore=VALUE for one that does not count"
        )
    left_out = {"task.data.ignore": IGNORED} if IGNORED in found and IGNORED not in values else {}
    note = f"the masks' values {_listed(values)} are the classes 0 to {len(values) - 1} in this order: task.data.mask_values"
    return {"task.n_classes": len(values), "task.data.mask_values": values, **left_out}, [note]


def _listed(values: list[int]) -> str:
    more = " ..." if len(values) > _MOST_LISTED else ""
    return ", ".join(map(str, values[:_MOST_LISTED])) + more


def _values(folder: Path) -> list[int]:
    """Returns the values of the first masks, ascending."""
    read = Mask(Frame())
    values: set[int] = set()
    for file in images_below(folder)[:_MOST_READ]:
        values.update(np.unique(read(file)).tolist())
    return sorted(values)
