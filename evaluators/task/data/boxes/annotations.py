"""Reads and checks annotation files in COCO's JSON format."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.boxes.labels import COUNTS, CROWD, IGNORED
from evaluators.task.data.archives import reading
from spaces.errors import ConfigError, InputError

BEYOND = 1.0  # pixels by which a box may reach beyond its image: annotations are rounded


@dataclass
class AnnotatedImage:
    """An image and its boxes.

    Attributes:
        id: COCO's id of the image.
        name: Its file name.
        width: Its width, pixels.
        height: Its height.
        boxes: For each box x1, y1, x2, y2 in pixels of the image, the class, and whether it counts (`labels.COUNTS`, ...).
    """

    id: int
    name: str
    width: int
    height: int
    boxes: list[tuple[float, float, float, float, int, int]] = field(default_factory=list)

    @property
    def rows(self) -> NDArray[np.float64]:
        """The boxes, `(m, 6)`."""
        return np.asarray(self.boxes, np.float64).reshape(-1, 6)


@dataclass(frozen=True)
class Annotations:
    """What an annotation file says.

    Attributes:
        path: The file.
        images: Its images, in the file's order.
        class_ids: COCO's id of the category of each class; None for a class without one.
    """

    path: Path
    images: Sequence[AnnotatedImage]
    class_ids: Sequence[int | None]


def read_annotations(
    path: Path, class_ids: Sequence[int | None] | None = None, strict: bool = True
) -> Annotations:
    """Reads a file of COCO's format.

    Args:
        path: The file.
        class_ids: Ids of the categories in the order of the network's classes; None takes all, ascending. Boxes of other
            categories are left out.
        strict: Whether a box without area, or beyond its image, is refused; otherwise it is left out.

    Raises:
        InputError: The file is missing or damaged, or an annotation is wrong; the message names the file and the id.
        ConfigError: `class_ids` names a category twice, or one that the file lacks.
    """
    content = _content(path)
    images = _images(content["images"], path)
    ids = _ids(content["categories"], path)
    chosen = sorted(ids) if class_ids is None else [*class_ids]
    _check_classes(chosen, ids, path)
    numbers = {identity: number for number, identity in enumerate(chosen) if identity is not None}
    for position, annotation in enumerate(content["annotations"]):
        where = f"{path}, annotation {_identity(annotation, position)}"
        image = images.get(_of(annotation, "image_id", where))
        if image is None:
            raise InputError(f"{where}: there is no image {annotation['image_id']!r} in the file's `images`")
        category = _of(annotation, "category_id", where)
        if category not in ids:
            raise InputError(f"{where}: there is no category {category!r} in the file's `categories`")
        problem, corners = _corners(annotation, image, where)
        if problem and strict:
            raise InputError(f"{where}: {problem} (task.data.strict=false leaves such boxes out)")
        if not problem and category in numbers:
            image.boxes.append((*corners, numbers[category], _state(annotation)))
    return Annotations(path, [*images.values()], chosen)


def check_examples(annotations: Annotations) -> None:
    """Raises InputError if a class has no box that counts."""
    found = {row[4] for image in annotations.images for row in image.boxes if row[5] == COUNTS}
    for number, identity in enumerate(annotations.class_ids):
        if identity is not None and number not in found:
            raise InputError(
                f"{annotations.path}: category {identity} has no box that counts; list the categories that the network knows in "
                "task.data.class_ids, or set task.data.strict=false to judge the other ones"
            )


def _content(path: Path) -> Mapping[str, Any]:
    with reading(path, "a JSON file of COCO's format"):
        content = json.loads(path.read_bytes())
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{path}: a list {key!r} of objects is needed, as in COCO's format")
    return content  # type: ignore[no-any-return]


def _images(entries: Sequence[Mapping[str, Any]], path: Path) -> dict[Any, AnnotatedImage]:
    images: dict[Any, AnnotatedImage] = {}
    for position, entry in enumerate(entries):
        where = f"{path}, image {entry.get('id', f'at position {position}')!r}"
        identity, name = _of(entry, "id", where), _of(entry, "file_name", where)
        if identity in images:
            raise InputError(f"{where} is listed twice")
        if not isinstance(name, str) or not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{where}: {name!r} is not a file name within the folder of the images")
        sides = [_of(entry, key, where) for key in ("width", "height")]
        if not all(type(side) is int and side > 0 for side in sides):
            raise InputError(f"{where}: width and height must be whole numbers of pixels, not {sides}")
        images[identity] = AnnotatedImage(identity, name, *sides)
    return images


def _ids(entries: Sequence[Mapping[str, Any]], path: Path) -> set[int]:
    ids = [entry.get("id") for entry in entries]
    for identity in ids:
        if type(identity) is not int or ids.count(identity) > 1:
            raise InputError(
                f"{path}: categories need ids that differ, whole numbers, but one has {identity!r}"
            )
    return set(ids)  # type: ignore[arg-type]


def _check_classes(chosen: Sequence[int | None], ids: set[int], path: Path) -> None:
    given = [identity for identity in chosen if identity is not None]
    for identity in given:
        if identity not in ids:
            raise ConfigError(
                f"task.data.class_ids: {path} has no category {identity!r}, but {', '.join(map(str, sorted(ids)))[:200]}"
            )
        if given.count(identity) > 1:
            raise ConfigError(f"task.data.class_ids names category {identity} twice")


def _identity(annotation: Mapping[str, Any], position: int) -> str:
    """Returns the annotation's id, or its position if it has none, for messages."""
    identity = annotation.get("id")
    return f"at position {position}" if identity is None else str(identity)


def _of(entry: Mapping[str, Any], key: str, where: str) -> Any:
    value = entry.get(key)
    if value is None or (isinstance(value, list | dict) and key != "bbox"):
        raise InputError(f"{where} has no {key!r}" if value is None else f"{where}: {key} is {value!r}")
    return value


def _corners(
    annotation: Mapping[str, Any], image: AnnotatedImage, where: str
) -> tuple[str, tuple[float, float, float, float]]:
    """Returns what is wrong with a box, empty if nothing is, and its corners."""
    box = _of(annotation, "bbox", where)
    is_box = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box)
    if not is_box or not np.isfinite(box).all():
        raise InputError(f"{where}: bbox must be four numbers, x, y, width, height, not {box!r}")
    x, y, width, height = map(float, box)
    corners = (x, y, x + width, y + height)
    if width <= 0 or height <= 0:
        return f"the box {box} has no area", corners
    if min(x, y) < -BEYOND or corners[2] > image.width + BEYOND or corners[3] > image.height + BEYOND:
        return (
            f"the box {box} lies outside image {image.id!r} of {image.width} x {image.height} pixels",
            corners,
        )
    return "", corners


def _state(annotation: Mapping[str, Any]) -> int:
    if annotation.get("iscrowd"):
        return CROWD
    return IGNORED if annotation.get("ignore") else COUNTS
