"""Images with boxes in COCO's format: where annotations and images lie, and which decoder reads the network's output."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluators.task.data.boxes.annotations import Annotations, read_annotations
from search.requests.choices import Choices
from search.requests.network import Network
from search.requests.sizes import split_sizes
from spaces.errors import InputError

CLASS_IDS, DECODER = "task.data.class_ids", "task/decoder"
_KEYS = {"images", "annotations", "categories"}
_BEGINNING = 4096  # bytes, within which a file of this format has one of its keys


def annotation_files(folder: Path) -> list[Path]:
    """Returns the files of COCO's format in a folder, and in its folder `annotations`."""
    files = sorted(file for place in (folder, folder / "annotations") for file in place.glob("*.json"))
    return [file for file in files if is_annotations(file)]


def is_annotations(file: Path) -> bool:
    """Whether a .json file has the keys of COCO's format."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(_BEGINNING)
        if not any(f'"{key}"'.encode() in beginning for key in ("info", "licenses", *_KEYS)):
            return False  # a long file of another kind is not read
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= _KEYS


def box_choices(file: Path, network: Network, given: Mapping[str, Any]) -> Choices:
    """Returns the task, the loader and the decoder for an annotation file.

    Args:
        file: The annotation file.
        network: The network.
        given: What the user sets, by key.

    Raises:
        InputError: There are no images, the network takes none, or nothing says how its outputs become boxes.
    """
    picture = network.picture
    if picture is None or not picture[1] or not picture[2]:
        raise InputError(
            f"{file} lists images with boxes, but the network takes {network.takes}; grey or RGB images of one size are needed "
            "(model.input_shape=[3,HEIGHT,WIDTH] fixes an open one)"
        )
    channels, height, width, layout = picture
    annotations = read_annotations(file, strict=False)
    root, images = _places(file, annotations)
    class_ids = given.get(CLASS_IDS)
    n_classes = len(class_ids if isinstance(class_ids, list) else annotations.class_ids)
    decoder, values = _decoder(file, network, n_classes, given)
    found = {
        "task.root": str(root), "task.data.annotations": file.relative_to(root).as_posix(), "task.data.images": images,
        "task.data.size": [height, width], **({"task.data.channels": 1} if channels == 1 else {}),
        **({"task.data.layout": layout} if layout != "NCHW" else {}), **values,
        **(split_sizes(len(annotations.images)) if network.folder is not None else {}),
    }  # fmt: skip
    notes = (
        "images are letterboxed and scaled to 0..1; if the network was trained otherwise, set task.data.resize, task.data.mean=[...], "
        "task.data.std=[...]",
    )
    groups = {"task": "detection", "task/data": "coco", **decoder}
    return Choices(groups, {key: value for key, value in found.items() if key not in given}, notes=notes)


def _places(file: Path, annotations: Annotations) -> tuple[Path, str]:
    """Returns the folder to read, and that of the images within it."""
    if not annotations.images:
        raise InputError(f"{file} lists no images")
    name = annotations.images[0].name
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    for folder in (root / "images", root, *_below(root, 2)):
        if (folder / name).is_file():
            return root, folder.relative_to(root).as_posix()
    raise InputError(
        f"{file} lists {name}, which is in no folder of {root}. If the images are elsewhere: task=detection task.root={root} "
        f"task.data.annotations={file.relative_to(root)} task.data.images=FOLDER"
    )


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for inner in sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")):
        yield inner
        if depth > 1:
            yield from _below(inner, depth - 1)


def _decoder(
    file: Path, network: Network, n_categories: int, given: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Returns the decoder and its settings, by the shape of the network's only output.

    Raises:
        InputError: It cannot be told, or the network tells another number of classes apart than the file.
    """
    if DECODER in given or network.folder is None:
        return ({} if DECODER in given else {DECODER: "grid"}), {}
    shapes = [output.shape for output in network.outputs.values()]
    if len(shapes) == 1 and len(shapes[0]) == 2 and any(shapes[0]):
        rows, columns = shapes[0]
        boxes_first = rows != 4 + n_categories and (not rows or (bool(columns) and columns < rows))
        numbers = columns if boxes_first else rows
        first = {"task.decoder.boxes_first": True} if boxes_first else {}
        if numbers == 4 + n_categories:
            return {DECODER: "yolo"}, first
        if boxes_first and numbers == 5 + n_categories:
            return {DECODER: "yolo"}, {**first, "task.decoder.objectness": True}
        if numbers > 4 + n_categories:
            raise InputError(
                f"{file} has {n_categories} categories, but the network's output {network.yields} tells {numbers - 4} classes apart, if it is "
                f"a head of YOLO. Add {CLASS_IDS}=[...], the category's id of each class in their order (null: none), or {DECODER}=decoded or "
                f"{DECODER}=grid"
            )
    raise InputError(
        f"{file}: nothing says how the network's outputs ({network.yields}) become boxes. Add {DECODER}=yolo, {DECODER}=grid, or {DECODER}=decoded "
        "task.decoder.boxes=NAME task.decoder.scores=NAME task.decoder.classes=NAME for outputs that are boxes already; `conf/README.md` "
        "has their keys"
    )
