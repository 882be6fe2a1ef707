"""Tells from a file or folder what data it holds, and which task and loader read it for a network with given inputs and outputs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.images.image_files import SUFFIXES
from evaluators.task.data.tables.read_table import read_table
from search.requests.boxes import annotation_files, box_choices, is_annotations
from search.requests.choices import Choices
from search.requests.masks import IMAGES, MASKS, mask_choices
from search.requests.network import Network, Shape
from search.requests.npz_arrays import array_choices
from search.requests.sizes import split_sizes
from search.requests.texts import text_choices
from search.requests.unlabelled import unlabelled
from spaces.errors import InputError

LABELS = ("label", "class", "target", "y")
"""Columns of a table that are labels by their name."""
_TABLES = (".csv", ".tsv", ".parquet")
_MOST_ASPECTS = (
    20  # of a table's whole-number labels: with more values than this share of the rows they are no classes
)
_COLOURS = 3
_FEWEST_CLASSES = 2  # folders of images
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SCALED = "images are scaled as for ImageNet; if the network was trained otherwise, set task.data.mean=[...] task.data.std=[...]"


def data_choices(
    path: Path, network: Network, label: str | None = None, given: Mapping[str, Any] | None = None
) -> Choices:
    """Returns the task and the loader for a file or folder.

    Args:
        path: A folder of images, wav files or texts by class, a folder of images with `labels.csv` or without labels, one with the folders
            `images` and `masks`, one with images and annotations in COCO's format, or that file, an `.npz` file with `x` (or the
            network's inputs by their names), with `y` or without, or a `.csv`, `.tsv` or `.parquet` file.
        network: The network.
        label: The column of labels in a table; None takes the one that is called `label`, `class`, `target` or `y`.
        given: What the user sets of the config, by key.

    Raises:
        InputError: It cannot be told, or does not fit the network; the message says what is there and what would be right.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder of data")
    if path.is_dir() and (texts := _texts(path)):
        return text_choices(path, network, split_sizes(texts), given or {})
    if path.suffix.lower() == ".npz" and path.is_file():
        return array_choices(path, network)
    if len(network.inputs) > 1:
        raise InputError(
            f"{path}: the network has the inputs {', '.join(i.name for i in network.inputs)}, which an .npz file with arrays of these names, and "
            "labels y, holds; for others choose task= and task/data= yourself"
        )
    return _of_one_input(path, network, label, given or {})


def _of_one_input(path: Path, network: Network, label: str | None, given: Mapping[str, Any]) -> Choices:
    if path.is_dir():
        return _pictures(path, network, given) or _folder(path, network)
    suffix = path.suffix.lower()
    if suffix == ".json" and is_annotations(path):
        return box_choices(path, network, given)
    if suffix in _TABLES:
        return _table(path, label)
    raise InputError(f"{path}: {_unknown(f'a {suffix} file' if suffix else 'a file without a suffix')}")


def _unknown(what: str) -> str:
    return (
        f"{what} is not known as data. Known are a folder with a folder of images (or of wav files, or of .txt files) for each class, a folder "
        "of images with labels.csv (columns file, class_index), the folders images and masks with files of the same names, annotations of "
        "boxes in COCO's .json with a folder of images, an .npz file with arrays x and y, and .csv, .tsv and .parquet files; for others "
        "choose task= and task/data= yourself, e.g. task=text"
    )


def _inner(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith((".", "_")))


def _texts(path: Path) -> int:
    """Returns the number of texts in a folder of texts by class; 0 if it is none."""
    others = any(_count(folder, (*SUFFIXES, ".wav")) for folder in _inner(path))
    return 0 if others or annotation_files(path) else len([*path.glob("*/*.txt")])


def _pictures(path: Path, network: Network, given: Mapping[str, Any]) -> Choices | None:
    """Returns the choices for images whose labels are masks or boxes; None for others."""
    files = annotation_files(path)
    if len(files) > 1:
        named = ", ".join(file.relative_to(path).as_posix() for file in files)
        raise InputError(
            f"{path} has several annotation files: name one, e.g. --data {files[0]} ({named}); task.data.test_annotations=FILE takes "
            "another one as the test split"
        )
    if files:
        return box_choices(files[0], network, given)
    n_images, n_masks = (_count(path / name, SUFFIXES) for name in (IMAGES, MASKS))
    return mask_choices(path, network, split_sizes(n_images), given) if n_images and n_masks else None


def _folder(path: Path, network: Network) -> Choices:
    inner, shape = _inner(path), network.shape
    if (path / "labels.csv").is_file():
        rows = read_table(path / "labels.csv")
        classes = 1 + int(rows.numbers("class_index").max())
        return _images(path, shape, classes, len(rows.rows), {})
    images = {folder.name: _count(folder, SUFFIXES) for folder in inner}
    sounds = sum(_count(folder, (".wav",)) for folder in inner)
    if len(inner) < _FEWEST_CLASSES and _count(path, SUFFIXES):
        return _loose_images(path, network)
    if sum(images.values()):
        if empty := [name for name, count in images.items() if not count]:
            raise InputError(
                f"{path / empty[0]} has no images, although other folders have: each folder is a class"
            )
        made = _images(path, shape, len(images), sum(images.values()), {"task.labels": None})
        return made | Choices(notes=_fewer_classes(network, len(images)))
    if sounds:
        return Choices({"task": "sound_classes"}, {"task.root": str(path)})
    if _count(path, (".wav",)):
        raise InputError(f"{path} holds wav files, but no folder for each class, so it has no labels")
    raise InputError(f"{path}: {_unknown('a folder without images, wav files and texts')}")


def _fewer_classes(network: Network, n_folders: int) -> tuple[str, ...]:
    """Returns a remark where the network tells more classes apart than there are folders."""
    outputs = [output.shape[0] for output in network.outputs.values() if len(output.shape) == 1]
    if not outputs or outputs[0] <= n_folders:
        return ()
    return (
        f"the {n_folders} class folders, in the order of their names, are taken for the first of the network's {outputs[0]} classes; if they are "
        f"others, name all in their order in a text file: task.classes=FILE task.n_classes={outputs[0]}",
    )


def _loose_images(path: Path, network: Network) -> Choices:
    """Returns the choices for images without labels: squares are cut out of the middle, else images are resized to the input's sides."""
    picture = network.picture
    if picture is None or not all(picture):
        raise InputError(
            f"{path} holds images, but the network takes {network.takes} (0 is open, and set with model.input_shape=[3,224,224]); an .npz "
            "file with x holds examples of any shape"
        )
    channels, height, width, layout = picture
    colours = channels == _COLOURS
    values: dict[str, Any] = {
        "task.root": str(path),
        **({"task.data.resize": height, "task.data.crop": height} if height == width else {"task.data.resize": [height, width]}),
        **({"task.data.mean": [*_MEAN], "task.data.std": [*_STD]} if colours else {"task.data.channels": "grey"}),
        **({} if layout == "NCHW" else {"task.data.layout": layout}),
    }  # fmt: skip
    note = (
        _SCALED
        if colours
        else "grey values are scaled to [0, 1]; if the network was trained otherwise, set task.data.mean=[...] task.data.std=[...]"
    )
    made = unlabelled(network, "images", values, _count(path, SUFFIXES), str(path), are_images=True)
    return made | Choices(notes=(note,))


def _count(folder: Path, suffixes: Iterable[str]) -> int:
    return sum(file.suffix.lower() in suffixes for file in folder.rglob("*"))


def _images(path: Path, shape: Shape, n_classes: int, n: int, more: Mapping[str, Any]) -> Choices:
    first = len(shape) == 3 and shape[0] == _COLOURS
    height, width = (shape[1:] if first else shape[:2]) if len(shape) == 3 else (0, 0)
    if not (first or (len(shape) == 3 and shape[2] == _COLOURS)) or height != width or not height:
        raise InputError(
            f"{path} holds images, which are cut to squares of three colours, but the network takes {list(shape)} (0 is open, and "
            "set with model.input_shape=[3,224,224]); an .npz file with x and y holds examples of any shape"
        )
    values: dict[str, Any] = {
        "task.root": str(path), **more, "task.n_classes": n_classes, "task.resize": height, "task.crop": height,
        **({} if first else {"task.layout": "NHWC"}), **split_sizes(n),
    }  # fmt: skip
    if height == 224:  # as ImageNet's validation images are cut: the file's own defaults
        del values["task.resize"], values["task.crop"]
    return Choices({"task": "image_folder"}, values, notes=(_SCALED.replace("task.data", "task"),))


def _table(path: Path, label: str | None) -> Choices:
    table = read_table(path)
    names = list(table.columns)
    named = [name for name in names if name.lower() in LABELS]
    if label is None and len(named) != 1:
        raise InputError(f"{path}: which column is the label? Say it with --label COLUMN: {', '.join(names)}")
    chosen = named[0] if label is None else label
    labels = table.labels(chosen)
    values = {"task.root": str(path), "task.data.label": chosen}
    if _are_classes(labels):
        return Choices({"task": "classes", "task/data": "table"}, values)
    note = f"{chosen} is predicted as a number; task=classes would take it as a class"
    return Choices({"task": "regression", "task/data": "table"}, values, notes=(note,))


def _are_classes(labels: NDArray[Any]) -> bool:
    """Whether labels are names, or whole numbers of which each is there many times."""
    if not np.issubdtype(labels.dtype, np.number):
        return True
    return np.issubdtype(labels.dtype, np.integer) and len(np.unique(labels)) * _MOST_ASPECTS <= max(
        len(labels), 40
    )
