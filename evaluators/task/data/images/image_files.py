"""Which image files there are, and their classes: from a label file, or from the folders that they lie in."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluators.task.data.archives import reading
from spaces.errors import InputError, unknown_name
from spaces.stages.array_split import Indices

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_LABELS = "a CSV file with labels, or task.labels=null for a folder of images for each class,"

Labelled = tuple[list[Path], Indices]
"""Files, and their classes `(n,)`."""


def images_below(folder: Path) -> list[Path]:
    """Returns all images in a folder and the folders in it, sorted by path.

    Raises:
        InputError: There is no such folder, or it has no images.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of images")
    files = sorted(path for path in folder.rglob("*") if _is_image(path))
    if not files:
        raise InputError(f"{folder} has no images ({', '.join(SUFFIXES)})")
    return files


def images_by_folder(root: Path, classes: str | None, n_classes: int) -> Labelled:
    """Returns the images below `root/CLASS`.

    Args:
        root: The folder of the class folders.
        classes: A text file within `root` with the name of a class folder in each line, in the classes' order; a class may have no
            folder. None sorts the folders by name.
        n_classes: Number of classes.

    Raises:
        InputError: There are no class folders, or not as many as classes; one has no images, or is not in the file.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder")
    folders = _folders(root)
    stray = next((path for path in sorted(root.iterdir()) if _is_image(path)), None)
    if not folders:
        raise InputError(f"{root} has no class folders (root/CLASS/*.jpg), which task.labels=null needs")
    if stray is not None:
        raise InputError(f"{stray} lies in no class folder (root/CLASS/*.jpg; task.labels=null)")
    names = class_folders(root, classes)
    what = (
        f"{root} has {len(names)} class folders"
        if classes is None
        else f"{root / classes} names {len(names)} classes"
    )
    if len(names) != n_classes:
        hint = ", or name all classes in their order in a file (task.classes)" if classes is None else ""
        raise InputError(f"{what}, but task.n_classes is {n_classes}: set task.n_classes={len(names)}{hint}")
    unknown = next((name for name in folders if name not in names), None)
    if unknown is not None:
        raise InputError(
            f"{root / unknown}: {unknown_name('class', unknown, names, str(root / str(classes)))}"
        )
    files, labels = [], []
    for label, name in enumerate(names):
        if name in folders:
            found = images_below(root / name)
            files += found
            labels += [label] * len(found)
    return files, np.asarray(labels, np.int64)


def class_folders(root: Path, classes: str | None) -> list[str]:
    """Returns the names of the class folders in the classes' order: see `images_by_folder`."""
    return _folders(root) if classes is None else _class_names(root / classes)


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not _is_hidden(path))


def images_in_table(root: Path, table: str, columns: tuple[str, str], n_classes: int) -> Labelled:
    """Returns the images that a label file lists.

    Args:
        root: The folder.
        table: A CSV file with a header within `root`.
        columns: Its columns of file names, relative to `root`, and of class indices.
        n_classes: Number of classes.

    Raises:
        InputError: The file is missing or damaged, lacks a column, lists an image twice, or a row is wrong; the message names
            the line.
    """
    path = root / table
    try:
        with reading(path, _LABELS), path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_header(reader.fieldnames or [], columns, path)
            rows = [_row(row, columns, n_classes, root, f"{path}, line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}") from error
    files = [file for file, _ in rows]
    duplicate = next((f for f, n in zip(sorted(files), sorted(files)[1:], strict=False) if f == n), None)
    if duplicate is not None:
        raise InputError(f"{path} lists {duplicate.name} twice: splits would not be disjoint")
    return files, np.asarray([label for _, label in rows], np.int64)


def _check_header(names: Sequence[str], columns: tuple[str, str], path: Path) -> None:
    for key, column in zip(("file_column", "class_column"), columns, strict=True):
        if column not in names:
            raise InputError(f"{path} has no column {column!r} (task.{key}); it has {', '.join(names)[:200]}")


def _row(
    row: dict[str, str], columns: tuple[str, str], n_classes: int, root: Path, where: str
) -> tuple[Path, int]:
    name, text = (row[column] for column in columns)
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{where}: {name!r} is not a file name within {root}")
    try:
        label = int(text)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: class index {text!r} is not a whole number") from error
    if not 0 <= label < n_classes:
        raise InputError(
            f"{where}: class index {label} of {name} is outside 0..{n_classes - 1} (task.n_classes)"
        )
    return root / name, label


def _class_names(path: Path) -> list[str]:
    with reading(path, "a text file with a class folder in each line"):
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(f"{path} names the class {twice} twice")
    return names


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not _is_hidden(path) and path.is_file()
