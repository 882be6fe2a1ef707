"""Collects rows one by one: in memory while they are few, else in a file, so that any number of them takes little memory."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spaces.errors import ConfigError
from spaces.stages.array_split import StoredRows

_WRITE_BYTES = 8 * 2**20  # that are written together


class RowWriter:
    """Takes rows of one shape and type.

    Args:
        first: A row; it is not added.
        folder: Where the file is kept, if there is one; its name is a digest of the rows, so that equal rows are kept once.
        most_bytes: Size up to which rows stay in memory.
    """

    def __init__(self, first: NDArray[Any], folder: Path, most_bytes: int) -> None:
        self._shape, self._dtype = first.shape, first.dtype
        self._folder, self._most = folder, most_bytes
        self._waiting: list[NDArray[Any]] = []  # rows that are not in the file
        self._bytes = self._n = 0
        self._file: Path | None = None  # unfinished
        self._hasher = sha256(f"{self._dtype} {self._shape}".encode())

    def add(self, row: NDArray[Any]) -> None:
        """Adds a row. Raises ConfigError if the file cannot be written."""
        self._waiting.append(np.array(row, order="C"))  # a copy: the giver may write into it again
        self._bytes += row.nbytes
        self._n += 1
        if self._bytes > (self._most if self._file is None else _WRITE_BYTES):
            with self._writing():
                self._flush()

    def rows(self) -> NDArray[Any] | StoredRows:
        """Returns all rows, `(n, ...)`. Raises ConfigError if the file cannot be written."""
        if self._file is None:
            return np.stack(self._waiting) if self._waiting else np.empty((0, *self._shape), self._dtype)
        with self._writing():
            self._flush()
            content = self._hasher.hexdigest()[:16]
            with self._file.open("r+b") as file:
                self._write_header(file)
            path = self._folder / f"rows-{content}.npy"
            self._file.chmod(0o644)
            self._file.replace(path)
        self._file = None
        return StoredRows(path, content, np.arange(self._n))

    def discard(self) -> None:
        """Deletes an unfinished file."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None

    def _flush(self) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder, prefix=".rows-")
            os.close(handle)
            self._file = Path(name)
            with self._file.open("wb") as file:
                self._write_header(file)
        with self._file.open("ab") as file:
            for row in self._waiting:
                data = row.tobytes()
                self._hasher.update(data)
                file.write(data)
        self._waiting, self._bytes = [], 0

    def _write_header(self, file: IO[bytes]) -> None:
        """Writes the header for the rows so far; numpy makes it equally long for any number of them."""
        shape = {"descr": np.lib.format.dtype_to_descr(self._dtype), "shape": (self._n, *self._shape)}
        np.lib.format.write_array_header_1_0(file, {**shape, "fortran_order": False})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.discard()
            raise ConfigError(f"cache_dir={self._folder} cannot be written: {error}") from error
