"""Prepares examples from files once, into a file that all processes share: no memory, whatever their number."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import StoredRows
from spaces.stages.cache import write_atomic


@dataclass(frozen=True)
class Store:
    """Where prepared examples are kept.

    Attributes:
        folder: The folder.
        kind: What the examples are, e.g. `crops`: the names of their files begin with it.
        source: What they are made from, for messages, e.g. `image`.
        setting: Config path of the folder, for messages.
    """

    folder: Path
    kind: str
    source: str
    setting: str = "task.cache_dir"


def store_rows(
    files: Sequence[Path],
    read: Callable[[Path], NDArray[Any]],
    store: Store,
) -> StoredRows:
    """Reads an example from each file into one `.npy` file in the store's folder, unless that exists; one at a time is in memory.

    The file's name is a digest of the sources' paths, sizes, times of change and of `read`, so a source that changed is read
    again.

    Args:
        files: The sources, at least one.
        read: Returns a source's example; its `repr` shows everything that the example depends on.
        store: Where the file is kept.

    Returns:
        Rows in the order of `files`.

    Raises:
        InputError: A source is missing or damaged, or its example has another shape than the first one's.
        ConfigError: The folder cannot be written to.
    """
    key = digest_of(repr(read), [_stamp(file, store.source) for file in files])
    path = store.folder / f"{store.kind}-{key}.npy"
    content = _content(path, len(files))
    if content is None:
        content = _make(lambda file: _write(files, read, file), path, store.setting)
    return StoredRows(path, content, np.arange(len(files)))


def _stamp(path: Path, source: str) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: there is no such {source}") from error
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _content(path: Path, n: int) -> str | None:
    """Returns the digest of the stored rows; None if the file is missing or incomplete."""
    try:
        complete = len(np.load(path, mmap_mode="r", allow_pickle=False)) == n
        return _digest_path(path).read_text() if complete else None
    except (OSError, ValueError, EOFError):
        return None


def _make(write: Callable[[Path], str], path: Path, setting: str) -> str:
    """Writes a file as a whole, and its digest beside it; returns the digest."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"{setting}={path.parent} cannot be written: {error.strerror}") from error
    os.close(handle)
    unfinished = Path(name)
    try:
        content = write(unfinished)
        unfinished.chmod(0o644)
        unfinished.replace(path)
        write_atomic(_digest_path(path), content.encode())
    except OSError as error:
        raise ConfigError(f"{setting}={path.parent} cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return content


def _write(files: Sequence[Path], read: Callable[[Path], NDArray[Any]], path: Path) -> str:
    first = read(files[0])
    stored = np.lib.format.open_memmap(path, "w+", first.dtype, (len(files), *first.shape))
    hasher = sha256()
    for row, file in enumerate(files):
        example = read(file) if row else first
        if example.shape != first.shape:
            raise InputError(
                f"{file} gives {example.shape}, but {files[0].name} gives {first.shape}; one shape is needed"
            )
        stored[row] = example
        hasher.update(stored[row].tobytes())
    stored.flush()
    return hasher.hexdigest()[:16]
