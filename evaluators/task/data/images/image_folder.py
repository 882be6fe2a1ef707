"""All images below a folder, without labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluators.task.data.data import CONFIG_PATH, Data, Examples, needed_root
from evaluators.task.data.images.decoding import Channels, Frame, Photo
from evaluators.task.data.images.image_files import images_below
from evaluators.task.data.splits import Normalise
from evaluators.task.data.stored_rows import Store, store_rows
from spaces.stages.array_split import ArraySplit
from spaces.stages.pixels import Layout
from spaces.task_losses import IGNORED


class ImageFolder(Data):
    """Reads the images of a folder and of the folders in it, decoded once into a file of `cache_dir`.

    Args:
        cache_dir: Where decoded images are kept.
        resize: See `Frame`.
        crop: See `Frame`.
        channels: `rgb` or `grey`.
        layout: `NCHW` or `NHWC`.
        scale: Factor on bytes.
        mean: Mean per channel, or one for all, in scaled units.
        std: Standard deviation, likewise.
    """

    def __init__(
        self,
        cache_dir: str,
        resize: int | Sequence[int] | None = None,
        crop: int | Sequence[int] | None = None,
        channels: Channels = "rgb",
        layout: Layout = "NCHW",
        scale: float = 1 / 255,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        self._cache_dir = Path(cache_dir).expanduser()
        self._photo = Photo(Frame.of(resize, crop), channels)
        self._transform = Normalise(scale, tuple(mean), tuple(std), layout, where=CONFIG_PATH)

    def read(self, root: Path | None) -> Examples:
        """Returns all images, in the order of their paths.

        Raises:
            InputError: There are none, one is damaged, or sizes differ; the message names it.
            ConfigError: `cache_dir` cannot be written.
        """
        folder = needed_root(root, "the folder of images")
        files = images_below(folder)
        raw = store_rows(files, self._photo, Store(self._cache_dir, "images", "image", "task.data.cache_dir"))
        self._transform.shape(raw[:1].shape[1:])  # checks the numbers of means
        split = ArraySplit(raw, np.full(len(files), IGNORED), self._transform)
        return Examples(split, where=[str(file) for file in files], folder=str(folder))

    def preparation(self) -> str:
        """Returns how an image is resized and cut."""
        return self._photo.preparation()
