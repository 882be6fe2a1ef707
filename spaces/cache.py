"""A content-addressed cache: memory first, then (optionally) a folder that processes share.

Keys are digests of everything that led to the value, so an entry is never stale. Values are bytes or
named arrays; nothing is ever unpickled.
"""

import io
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]


def digest_of(*parts: object) -> str:
    """Returns 16 hex digits of SHA-256 over the parts (bytes as they are, all else as `repr`)."""
    hasher = sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.hexdigest()[:16]


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` so that a reader, or a crash at any instant, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Cache:
    """Byte strings and named arrays under digests.

    Args:
        folder: Where entries are kept across processes; None keeps them in memory only.
        memory_bytes: Most bytes kept in memory; the least recently used entries go first.
    """

    def __init__(self, folder: Path | None = None, memory_bytes: int = 256 * 2**20) -> None:
        self.folder = folder
        self._memory_bytes = memory_bytes
        self._recent: OrderedDict[str, bytes] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "_memory_bytes": self._memory_bytes, "_recent": OrderedDict()}

    def blob(self, key: str, build: Callable[[], bytes]) -> bytes:
        """Returns the bytes under `key`, building and keeping them if they are not there yet."""
        found = self._recent.pop(key, None)
        if found is None:
            found = self._read(key)
        if found is None:
            found = build()
            if self.folder is not None:
                write_atomic(self.folder / key, found)
        self._remember(key, found)
        return found

    def arrays(self, key: str, build: Callable[[], Mapping[str, NDArray[np.generic]]]) -> Arrays:
        """Returns the named arrays under `key`, building and keeping them if they are not there yet."""

        def packed() -> bytes:
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **build())
            return buffer.getvalue()

        with np.load(io.BytesIO(self.blob(key, packed)), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}

    def _read(self, key: str) -> bytes | None:
        if self.folder is None:
            return None
        try:
            return (self.folder / key).read_bytes()
        except FileNotFoundError:
            return None

    def _remember(self, key: str, value: bytes) -> None:
        self._recent[key] = value
        while len(self._recent) > 1 and sum(map(len, self._recent.values())) > self._memory_bytes:
            self._recent.popitem(last=False)
