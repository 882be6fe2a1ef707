"""Reads untrusted data files without executing code in them; any damage raises InputError."""

import gzip
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.errors import InputError

DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,  # of zipfile, for an unknown compression method
)


@contextmanager
def reading(path: object, what: str) -> Iterator[None]:
    """Converts the errors of a missing or damaged file, or one of another format, to an InputError that names the file.

    Args:
        path: The file, for the message.
        what: The expected format, e.g. `an .npz file`.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file ({what} is needed)") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; {what} is needed") from error
    except NotADirectoryError as error:
        raise InputError(f"{path}: a folder is needed before the last /, but there is a file") from error
    except DAMAGE as error:
        if "pickled" in str(
            error
        ):  # what numpy says of any file that is none of its own, and how to run what is in it
            raise InputError(f"{path} is not {what}") from error
        detail = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path} is damaged, or not {what}: {detail}") from error


def read_npz(path: Path, *keys: str, hint: str = "") -> list[NDArray[Any]]:
    """Reads named arrays; nothing is unpickled.

    Args:
        path: The file.
        *keys: Names of its arrays.
        hint: End of the message if one is missing.

    Raises:
        InputError: The file is missing, damaged or of another format, or lacks a key.
    """
    with reading(path, "an .npz file"), path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is a single array; an .npz file with {', '.join(keys)} is needed")
        with loaded:
            missing = [key for key in keys if key not in loaded.files]
            if missing:
                raise InputError(
                    f"{path} has no array {missing[0]!r}; it has {', '.join(loaded.files)}{hint}"
                )
            return [loaded[key] for key in keys]


def read_bytes(path: Path) -> bytes:
    """Reads a file, uncompressed if its name ends in `.gz`.

    Raises:
        InputError: The file is missing or damaged.
    """
    with reading(path, "a gzip file" if path.suffix == ".gz" else "a readable file"):
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data


def read_tar(path: Path, names: list[str]) -> dict[str, bytes]:
    """Reads the members with these base names into memory; nothing is extracted to disk.

    Returns:
        Content by base name, of the members that the archive has.

    Raises:
        InputError: The archive is missing or damaged.
    """
    contents = {}
    with reading(path, "a tar archive"), tarfile.open(path) as archive:
        for member in archive:
            name = Path(member.name).name
            file = archive.extractfile(member) if name in names and member.isfile() else None
            if file is not None:
                contents[name] = file.read()
    return contents


def unpickle_plain(data: bytes, path: object) -> Any:
    """Reads a pickle of dicts, lists, strings, numbers and numeric arrays; a pickle of anything else is refused.

    Args:
        data: The pickle, of Python 2 or 3; Python 2's strings become bytes.
        path: The file that has the pickle, for the message.

    Raises:
        InputError: The pickle is damaged, or names any class or function besides those of plain arrays.
    """
    try:
        return _plain(_PlainUnpickler(BytesIO(data), encoding="bytes").load())
    except InputError:
        raise
    except _RefusedError as error:
        raise InputError(f"{path} is refused: {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path} is damaged, or not a pickle: {type(error).__name__}") from error


class _Dtype:
    """Stands in for numpy.dtype: keeps the code, e.g. `u1`."""

    def __init__(self, code: object = b"", *_: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else str(code)

    def __setstate__(self, state: object) -> None: ...


class _Array:
    """Stands in for numpy.ndarray: keeps shape, dtype and bytes, so that numpy's own unpickling is never used."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        _, shape, dtype, fortran, data = self.state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", "i1", "i2", "i4", "i8", "f4", "f8"):
            raise ValueError("an array of numbers is needed")
        return np.frombuffer(bytes(data), dtype.code).reshape(shape, order="F" if fortran else "C")


def _latin1(text: str, _: str) -> bytes:
    """Stands in for _codecs.encode, by which Python 3 writes bytes into old pickles."""
    return text.encode("latin1")


class _RefusedError(Exception):
    """The pickle names a class or function that is not allowed."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy._core.multiarray", "_reconstruct"): _Array,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in known:
            raise _RefusedError(f"it names {module}.{name}, but only plain arrays are allowed")
        return known[module, name]


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, dict):
        return {k.decode("latin1") if isinstance(k, bytes) else k: _plain(v) for k, v in value.items()}
    return value
