"""Decodes images as ImageNet networks expect them, once, into a file that all processes share."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import StoredRows
from spaces.stages.cache import write_atomic

if TYPE_CHECKING:
    from PIL import Image

# Formats whose decoders work in this process; Pillow hands e.g. EPS to another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class Crop:
    """How an image becomes an array: the shorter side is resized, then the centre is cut out.

    Attributes:
        resize: Length of the shorter side, pixels.
        size: Side of the square that is cut out, pixels.
    """

    resize: int = 256
    size: int = 224

    def __post_init__(self) -> None:
        """Checks the sizes. Raises ConfigError."""
        if not 0 < self.size <= self.resize:
            raise ConfigError(
                f"task.crop must lie in 1..task.resize, but crop={self.size}, resize={self.resize}"
            )

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Returns the crop, `(size, size, 3)` uint8.

        Raises:
            InputError: The file is missing, or cannot be decoded as an image.
        """
        from PIL import Image

        try:
            with Image.open(path, formats=FORMATS) as image:
                return np.asarray(self._cut(image.convert("RGB")))
        except FileNotFoundError as error:
            raise InputError(f"{path}: there is no such image") from error
        except (
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as error:
            raise InputError(f"{path} cannot be decoded as an image: {error}") from error

    def _cut(self, image: "Image.Image") -> "Image.Image":
        from PIL import Image

        width, height = image.size
        short = min(width, height)
        if short != self.resize:
            width, height = (max(self.resize, self.resize * side // short) for side in (width, height))
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))


def store_crops(files: Sequence[Path], crop: Crop, cache_dir: Path) -> StoredRows:
    """Decodes images into one `.npy` file in `cache_dir`, unless the file exists.

    The file's name is a digest of the images' paths, sizes, times of change and of `crop`, so an image that
    changed is decoded again. 50,000 crops of 224 x 224 take 7.5 GB on disk, and no memory.

    Args:
        files: The images.
        crop: How they become arrays.
        cache_dir: Where the file is kept.

    Returns:
        Rows `(size, size, 3)` uint8 in the order of `files`.

    Raises:
        InputError: An image is missing or damaged.
        ConfigError: `cache_dir` cannot be written.
    """
    key = digest_of(crop, [_stamp(f) for f in files])
    path = cache_dir / f"crops-{key}.npy"
    content = _content(path, len(files))
    if content is None:
        content = _decode(files, crop, path)
    return StoredRows(path, content, np.arange(len(files)))


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: there is no such image") from error
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _content(path: Path, n: int) -> str | None:
    """Returns the digest of the stored crops; None if the file is missing or incomplete."""
    try:
        complete = len(np.load(path, mmap_mode="r", allow_pickle=False)) == n
        return _digest_path(path).read_text() if complete else None
    except (OSError, ValueError, EOFError):
        return None


def _decode(files: Sequence[Path], crop: Crop, path: Path) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"task.cache_dir={path.parent} cannot be written: {error.strerror}") from error
    os.close(handle)
    unfinished = Path(name)
    try:
        content = _write(files, crop, unfinished)
        unfinished.chmod(0o644)
        unfinished.replace(path)
        write_atomic(_digest_path(path), content.encode())
    except OSError as error:
        raise ConfigError(f"task.cache_dir={path.parent} cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return content


def _write(files: Sequence[Path], crop: Crop, path: Path) -> str:
    stored = np.lib.format.open_memmap(path, "w+", np.uint8, (len(files), crop.size, crop.size, 3))
    hasher = sha256()
    for row, file in enumerate(files):
        stored[row] = crop(file)
        hasher.update(stored[row].tobytes())
    stored.flush()
    return hasher.hexdigest()[:16]
