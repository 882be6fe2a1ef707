"""Tells from a file or folder what data it holds, and which task and loader read it for a network with a given input."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.archives import read_npz, reading
from evaluators.task.data.images.image_files import SUFFIXES
from evaluators.task.data.tables.read_table import read_table
from search.requests.choices import Choices
from spaces.errors import InputError

LABELS = ("label", "class", "target", "y")
"""Columns of a table that are labels by their name."""
_TABLES = (".csv", ".tsv", ".parquet")
_SPLITS = {
    "calibration": (0.2, 512),
    "validation": (0.4, 1000),
    "test": (0.4, 2000),
}  # share of the examples, and most: nothing is trained, and 1,000 images tell 2 points of accuracy from none
_MOST_ASPECTS = (
    20  # of a table's whole-number labels: with more values than this share of the rows they are no classes
)
_COLOURS, _BYTE = 3, 1 / 255

Shape = tuple[int, ...]


def data_choices(path: Path, shape: Shape, label: str | None = None) -> Choices:
    """Returns the task and the loader for a file or folder.

    Args:
        path: A folder of images or of wav files by class, a folder of images with `labels.csv`, an `.npz` file with `x` and `y`, or a
            `.csv`, `.tsv` or `.parquet` file.
        shape: Shape of one example as the network takes it.
        label: The column of labels in a table; None takes the one that is called `label`, `class`, `target` or `y`.

    Raises:
        InputError: It cannot be told, or does not fit the network; the message says what is there and what would be right.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder of data")
    if path.is_dir():
        return _folder(path, shape)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _arrays(path, shape)
    if suffix in _TABLES:
        return _table(path, label)
    raise InputError(f"{path}: {_unknown(f'a {suffix} file' if suffix else 'a file without a suffix')}")


def _unknown(what: str) -> str:
    return (
        f"{what} is not known as data. Known are a folder with a folder of images (or of wav files) for each class, a folder of images with "
        "labels.csv (columns file, class_index), an .npz file with arrays x and y, and .csv, .tsv and .parquet files; for others choose task= "
        "and task/data= yourself, e.g. task=text"
    )


def _folder(path: Path, shape: Shape) -> Choices:
    inner = sorted(
        folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith((".", "_"))
    )
    if (path / "labels.csv").is_file():
        rows = read_table(path / "labels.csv")
        classes = 1 + int(rows.numbers("class_index").max())
        return _images(path, shape, classes, len(rows.rows), {})
    images = {folder.name: _count(folder, SUFFIXES) for folder in inner}
    sounds = sum(_count(folder, (".wav",)) for folder in inner)
    if sum(images.values()):
        if empty := [name for name, count in images.items() if not count]:
            raise InputError(
                f"{path / empty[0]} has no images, although other folders have: each folder is a class"
            )
        return _images(path, shape, len(images), sum(images.values()), {"task.labels": None})
    if sounds:
        return Choices({"task": "sound_classes"}, {"task.root": str(path)})
    loose = [
        name for name, suffixes in (("images", SUFFIXES), ("wav files", (".wav",))) if _count(path, suffixes)
    ]
    if loose:
        raise InputError(
            f"{path} holds {loose[0]}, but no folder for each class and no labels.csv, so it has no labels"
        )
    raise InputError(f"{path}: {_unknown('a folder without images and wav files')}")


def _count(folder: Path, suffixes: Iterable[str]) -> int:
    return sum(file.suffix.lower() in suffixes for file in folder.rglob("*"))


def _images(path: Path, shape: Shape, n_classes: int, n: int, more: Mapping[str, Any]) -> Choices:
    first = len(shape) == 3 and shape[0] == _COLOURS
    height, width = (shape[1:] if first else shape[:2]) if len(shape) == 3 else (0, 0)
    if not (first or (len(shape) == 3 and shape[2] == _COLOURS)) or height != width or not height:
        raise InputError(
            f"{path} holds images, which are cut to squares of three colours, but the network takes {list(shape)} (0 is open); an .npz file "
            "with x and y holds examples of any shape"
        )
    values: dict[str, Any] = {
        "task.root": str(path), **more, "task.n_classes": n_classes, "task.resize": height, "task.crop": height,
        **({} if first else {"task.layout": "NHWC"}), **_sizes(n),
    }  # fmt: skip
    if height == 224:  # as ImageNet's validation images are cut: the file's own defaults
        del values["task.resize"], values["task.crop"]
    note = "images are scaled as for ImageNet; if the network was trained otherwise, set task.mean=[...] task.std=[...]"
    return Choices({"task": "image_folder"}, values, notes=(note,))


def _sizes(n: int) -> dict[str, int]:
    """Returns the sizes of the splits of so many examples."""
    return {f"task.{name}": min(int(n * share), most) for name, (share, most) in _SPLITS.items()}


def _arrays(path: Path, shape: Shape) -> Choices:
    with reading(path, "an .npz file"):
        x, y = read_npz(path, "x", "y")
    stored = x.shape[1:]
    moved = (*stored[-1:], *stored[:-1])
    layout = "NHWC" if _fits(stored, shape) else "NCHW" if _fits(moved, shape) else ""
    if not layout:
        raise InputError(
            f"{path}: examples x have shape {list(stored)}, but the network takes {list(shape)} (0 is open)"
        )
    values: dict[str, Any] = {"task.root": str(path)}
    if y.ndim == 1 and np.issubdtype(y.dtype, np.integer):
        values |= {
            "task.input_shape": list(shape),
            "task.n_classes": 1 + int(y.max(initial=0)),
            "task.layout": layout,
        }
        return Choices({"task": "npz"}, {**values, **_sizes(len(y))})
    if np.issubdtype(y.dtype, np.floating):
        return Choices({"task": "regression"}, {**values, "task.data.layout": layout})
    raise InputError(
        f"{path}: labels y are {y.dtype} of shape {list(y.shape)}. Known are whole numbers (n,), which are classes, and floats, which are predicted; "
        "for others choose task= yourself, e.g. task=segmentation"
    )


def _fits(stored: Shape, wanted: Shape) -> bool:
    return len(stored) == len(wanted) and all(w in (0, s) for s, w in zip(stored, wanted, strict=True))


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
