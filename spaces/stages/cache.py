"""A content-addressed cache: memory first, then (optionally) a folder that processes and studies share.

Keys are digests of everything that led to the value, so an entry is never stale. Values are bytes or named
arrays; nothing is ever unpickled. Errors of the folder are never raised: an entry that cannot be read is
built again, one that cannot be written is kept in memory.
"""

import contextlib
import io
import logging
import os
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]

_LOG = logging.getLogger(__name__)
_MARK = b"paredown"  # an entry is: mark, length, check sum, value
_HEAD_BYTES = len(_MARK) + 8 + 4
_FULL_SHARE = 0.9  # of the size limit: eviction deletes down to this share, so that not every write evicts
_SCAN_SHARE = 0.02  # of the size limit: bytes written between two scans of the folder
_ABANDONED_S = 3600.0  # a temporary file that is older was left by a killed process


def write_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Writes `data` so that a reader, or a crash at any instant, sees the old file or the new one.

    Args:
        path: The file.
        data: The content to write.
        durable: Whether to call `fsync`, so that the file survives a power cut; this takes many milliseconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Cache:
    """Stores byte strings and named arrays under digests.

    The folder may be used by several processes at once, and files may vanish from it at any time. Its least recently
    used entries are deleted when it exceeds its size limit.

    Args:
        folder: Where entries are kept across processes; None keeps them in memory only.
        memory_bytes: Maximum bytes in memory; the least recently used entries are evicted first.
        cache_bytes: Maximum bytes in the folder (exceeded by at most 2 %); larger values are not stored
            there.
        prefix: Prefix of every key in the folder, for what all values depend on, e.g. the version of the code
            that builds them.
        writes: Whether the folder may be written to.
    """

    def __init__(
        self,
        folder: Path | None = None,
        memory_bytes: int = 256 * 2**20,
        cache_bytes: int = 2 * 2**30,
        prefix: str = "",
        writes: bool = True,
    ) -> None:
        self.folder = folder
        self._writes = writes
        self._prefix = prefix
        self._memory = _Memory(memory_bytes)
        self._disk = None if folder is None else _Folder(folder, cache_bytes)

    def blob(self, key: str, build: Callable[[], bytes]) -> bytes:
        """Returns the bytes under `key`, building and storing them if they are absent."""
        found = self._memory.get(key)
        if not isinstance(found, bytes):
            found = self._read(key)
            if found is None:
                found = build()
                self._write(key, found)
            self._memory.put(key, found, len(found))
        return found

    def arrays(self, key: str, build: Callable[[], Mapping[str, NDArray[np.generic]]]) -> Arrays:
        """Returns the named arrays under `key`, building and storing them if they are absent.

        The arrays are shared with later callers and cannot be written to.
        """
        found = self._memory.get(key)
        if not isinstance(found, dict):
            stored = self._read(key)
            found = None if stored is None else _unpacked(stored)
            if found is None:
                found = {name: np.asarray(array).view() for name, array in build().items()}
                if self._disk is not None:
                    self._write(key, _packed(found))
            for array in found.values():
                array.flags.writeable = False
            self._memory.put(key, found, sum(a.nbytes for a in found.values()))
        return dict(found)

    def find(self, key: str) -> bytes | None:
        """Returns the bytes under `key`; None if they were never stored, or have been evicted."""
        found = self._memory.get(key)
        return found if isinstance(found, bytes) else self._read(key)

    def keep(self, key: str, value: bytes) -> None:
        """Stores the bytes under `key`, replacing an earlier value, e.g. the checkpoint of a training."""
        self._write(key, value)
        self._memory.put(key, value, len(value))

    def drop(self, key: str) -> None:
        """Deletes the entry under `key`, if there is one."""
        self._memory.drop(key)
        if self._disk is not None and self._writes:
            self._disk.drop(self._prefix + key)

    def _read(self, key: str) -> bytes | None:
        return None if self._disk is None else self._disk.read(self._prefix + key)

    def _write(self, key: str, value: bytes) -> None:
        if self._disk is not None and self._writes:
            self._disk.write(self._prefix + key, value)


class _Memory:
    """The most recently used values of this process; they are not pickled."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._values: OrderedDict[str, tuple[bytes | Arrays, int]] = OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict[str, object]:
        return {"_most_bytes": self._most_bytes, "_values": OrderedDict(), "_bytes": 0}

    def get(self, key: str) -> bytes | Arrays | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: str, value: bytes | Arrays, n_bytes: int) -> None:
        self._bytes += n_bytes - self._values.pop(key, (b"", 0))[1]
        self._values[key] = (value, n_bytes)
        while len(self._values) > 1 and self._bytes > self._most_bytes:
            self._bytes -= self._values.popitem(last=False)[1][1]

    def drop(self, key: str) -> None:
        self._bytes -= self._values.pop(key, (b"", 0))[1]


class _Folder:
    """Entries as files: atomic writes, damaged entries count as absent, only the first error is logged."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._since_scan: int | None = None  # bytes written since the last scan of the folder
        self._broken = self._warned = False

    def read(self, key: str) -> bytes | None:
        path = self._folder / key
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn_once("read", error)
            return None
        value = data[_HEAD_BYTES:]
        if data[:_HEAD_BYTES] != _head(value):
            _LOG.warning("%s: a damaged cache entry, built again", path)
            return None
        with contextlib.suppress(OSError):  # evicted meanwhile, or another user's file
            os.utime(path)  # most recently used
        return value

    def write(self, key: str, value: bytes) -> None:
        if self._broken or len(value) > self._most_bytes:
            return
        try:
            write_atomic(self._folder / key, _head(value) + value, durable=False)
        except OSError as error:
            self._warn_once("write", error)
            self._broken = True
            return
        if self._since_scan is not None:
            self._since_scan += len(value)
        if self._since_scan is None or self._since_scan > _SCAN_SHARE * self._most_bytes:
            self._since_scan = 0
            self._evict(keep=key)

    def drop(self, key: str) -> None:
        _delete(self._folder / key)

    def _evict(self, keep: str) -> None:
        files = _files(self._folder)
        total = sum(size for _, size, _ in files)
        if total <= self._most_bytes:
            return
        for _, size, path in sorted(files):
            if total <= _FULL_SHARE * self._most_bytes:
                break
            if path.name != keep:
                total -= size
                _delete(path)

    def _warn_once(self, what: str, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "cannot %s the cache in %s: %s; going on without it, which only costs time",
                what, self._folder, error.strerror or error,
            )  # fmt: skip


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """Returns `(time of last use, bytes, path)` of every entry; deletes abandoned temporary files."""
    found = []
    now = time.time()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    stat = entry.stat(follow_symlinks=False)
                except OSError:  # another process deleted it
                    continue
                if not entry.is_file(follow_symlinks=False):
                    continue
                if not entry.name.startswith("."):
                    found.append((stat.st_mtime, stat.st_size, Path(entry.path)))
                elif now - stat.st_mtime > _ABANDONED_S:
                    _delete(Path(entry.path))
    except OSError:
        return []
    return found


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):  # another user's file
        path.unlink(missing_ok=True)


def _head(value: bytes) -> bytes:
    return _MARK + len(value).to_bytes(8, "little") + crc32(value).to_bytes(4, "little")


def _packed(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(data: bytes) -> Arrays | None:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, KeyError, zipfile.BadZipFile):  # undamaged, but not an archive of arrays
        return None
