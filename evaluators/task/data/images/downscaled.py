"""Images to be restored from a downscaled copy: of a folder, or two photographs that come with scikit-learn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import CONFIG_PATH, Data, Examples, needed_root
from evaluators.task.data.images.decoding import Channels, Sharp, Small, downscaled
from evaluators.task.data.images.image_files import images_below
from evaluators.task.data.images.stored_pairs import StoredPairs
from evaluators.task.data.splits import Normalise
from evaluators.task.data.stored_rows import Store, store_rows
from spaces.errors import ConfigError
from spaces.stages.array_split import ArraySplit
from spaces.stages.pixels import Layout


class DownscaledFolder(Data):
    """The centre of every image in a folder, as label, and its copy downscaled by Pillow's bicubic filter, as input.

    Both are decoded once into files of `cache_dir`.

    Args:
        cache_dir: Where decoded images are kept.
        factor: By which the sides are divided.
        size: Side of the square that is cut out of the centre, pixels; `factor` divides it.
        channels: `rgb` or `grey`.
        layout: Of the inputs, `NCHW` or `NHWC`.
        scale: Factor on bytes of the inputs.
        mean: Mean per channel of the inputs, or one for all, in scaled units.
        std: Standard deviation, likewise.
    """

    def __init__(
        self,
        cache_dir: str,
        factor: int = 2,
        size: int = 96,
        channels: Channels = "rgb",
        layout: Layout = "NCHW",
        scale: float = 1 / 255,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        _check(factor, size)
        self._cache_dir = Path(cache_dir).expanduser()
        self._sharp = Sharp(size, channels)
        self._small = Small(self._sharp, factor)
        self._transform = Normalise(scale, tuple(mean), tuple(std), layout, where=CONFIG_PATH)

    def read(self, root: Path | None) -> Examples:
        """Returns all pairs, in the order of the files' paths.

        Raises:
            InputError: An image is damaged or too small; the message names it.
            ConfigError: `cache_dir` cannot be written.
        """
        folder = needed_root(root, "the folder of images")
        files = images_below(folder)
        targets = store_rows(
            files, self._sharp, Store(self._cache_dir, "sharp", "image", "task.data.cache_dir")
        )
        raw = store_rows(files, self._small, Store(self._cache_dir, "small", "image", "task.data.cache_dir"))
        self._transform.shape(raw[:1].shape[1:])  # checks the numbers of means
        split = StoredPairs(raw, targets, self._transform)
        return Examples(split, where=[str(file) for file in files], folder=str(folder))


class SamplePhotographs(Data):
    """Tiles of scikit-learn's two photographs (a temple, a flower; 427 x 640 pixels), and their copies downscaled as in `DownscaledFolder`.

    Args:
        factor: By which the sides are divided.
        size: Side of a tile, pixels; `factor` divides it.
        layout: Of the inputs, `NCHW` or `NHWC`.
        least_deviation: Tiles whose bytes have a smaller standard deviation, such as those of the sky, are left out: a figure in dB
            would be mostly theirs.
    """

    def __init__(
        self, factor: int = 2, size: int = 48, layout: Layout = "NCHW", least_deviation: float = 20.0
    ) -> None:
        _check(factor, size)
        self._factor, self._size, self._layout = factor, size, layout
        self._least_deviation = least_deviation

    def read(self, root: Path | None) -> Examples:
        """Returns tiles `(n, size, size, 3)` uint8 as labels, and inputs in [0, 1]."""
        from PIL import Image
        from sklearn.datasets import load_sample_images

        data = load_sample_images()
        found = [
            (tile, f"{Path(name).name}, tile {i}")
            for image, name in zip(data.images, data.filenames, strict=True)
            for i, tile in enumerate(_tiles(image, self._size))
            if tile.std() >= self._least_deviation
        ]
        if not found:
            raise ConfigError(
                f"no tile has a deviation of task.data.least_deviation={self._least_deviation} at task.data.size={self._size}"
            )
        tiles, where = np.stack([tile for tile, _ in found]), [place for _, place in found]
        small = np.stack([downscaled(Image.fromarray(tile), self._factor) for tile in tiles])
        return Examples(
            ArraySplit(small, tiles, Normalise(layout=self._layout)), where=where, folder="the photographs"
        )


def _tiles(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Returns the tiles of an image that do not overlap, `(n, size, size, channels)`."""
    rows, columns = (side // size for side in image.shape[:2])
    cut = image[: rows * size, : columns * size].reshape(rows, size, columns, size, -1)
    return np.ascontiguousarray(cut.swapaxes(1, 2).reshape(rows * columns, size, size, -1))


def _check(factor: int, size: int) -> None:
    if factor < 1 or size < 1 or size % factor:
        raise ConfigError(
            f"task.data.size must be a multiple of task.data.factor, above 0, but size={size}, factor={factor}"
        )
