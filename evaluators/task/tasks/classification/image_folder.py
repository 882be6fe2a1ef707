"""A folder of images with a label file or with class folders, preprocessed like ImageNet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.task.data.crops import Crop, store_crops
from evaluators.task.data.images.image_files import (
    Labelled,
    class_folders,
    images_below,
    images_by_folder,
    images_in_table,
)
from evaluators.task.data.splits import Normalise, carve
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import ConfigError
from spaces.stages.array_split import ArraySplit, Indices
from spaces.stages.pixels import Layout
from spaces.task_losses import IGNORED


class ImageFolderTask(Task):
    """Classifies images: the shorter side resized, the centre cut out, normalised per channel.

    Args:
        root: The folder.
        cache_dir: Where decoded images are kept.
        labels: The label file, CSV with a header, within `root`; None takes the folder `root/CLASS` of an image as its class.
        file_column: The column of file names, relative to `root`.
        class_column: The column of class indices.
        n_classes: Number of classes.
        classes: Without a label file, a text file within `root` with the class folders in their order; None sorts them by name.
        resize: Length of the shorter side, pixels.
        crop: Side of the square that is cut out, pixels.
        interpolation: `bilinear`, `bicubic`, `nearest`, `area` or `lanczos`.
        layout: `NCHW` or `NHWC`.
        scale: Factor on bytes.
        mean: Mean per channel, in scaled units.
        std: Standard deviation per channel.
        calibration: Images in the calibration split.
        calibration_root: A folder of images without labels that the calibration split is taken from; None takes it from `root`.
        validation: Images in the validation split.
        test: Images in the test split.
        train: Images in the train split; None takes what is left. Images in no split are not decoded.
        split_seed: Seed of the division.
        output: Name of the model's output that is judged; None takes the first, or the only one whose shape fits.
        metric: A metric of classes; None is top-1 accuracy.
    """

    n_classes: int

    def __init__(
        self,
        root: str,
        cache_dir: str,
        labels: str | None = "labels.csv",
        file_column: str = "file",
        class_column: str = "class_index",
        n_classes: int = 1000,
        resize: int = 256,
        crop: int = 224,
        layout: Layout = "NCHW",
        scale: float = 1 / 255,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        calibration: int = 100,
        validation: int = 200,
        test: int = 200,
        train: int | None = 0,
        split_seed: int = 0,
        output: str | None = None,
        metric: Any = None,
        classes: str | None = None,
        interpolation: str = "bilinear",
        calibration_root: str | None = None,
    ) -> None:
        if classes is not None and labels is not None:
            raise ConfigError(
                f"task.classes={classes} is the order of class folders, which task.labels=null reads; task.labels is {labels}"
            )
        self.metric = Top1() if metric is None else metric
        self.output = output
        self.n_classes = n_classes
        self._root, self._cache_dir = Path(root).expanduser(), Path(cache_dir).expanduser()
        self._labels, self._columns = labels, (file_column, class_column)
        self._classes = classes
        self._calibration_root = None if calibration_root is None else Path(calibration_root).expanduser()
        self._crop = Crop(resize, crop, interpolation)
        self._transform = Normalise(scale, tuple(mean), tuple(std), layout)
        self.input_shape = self._transform.shape((crop, crop, 3))
        self._sizes = {"test": test, "validation": validation, "calibration": calibration, "train": train}
        self._split_seed = split_seed

    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the class folders; a label file has numbers only."""
        return () if self._labels is not None else tuple(class_folders(self._root, self._classes))

    def preparation(self) -> str:
        """Returns how an image is resized and cut."""
        crop = self._crop
        return f"RGB, the shorter side resized to {crop.resize} pixels ({crop.interpolation}), the centre of {crop.size} x {crop.size} cut out"

    def splits(self) -> Splits:
        """Lists the images and decodes those of all splits.

        Raises:
            InputError: The label file, a folder or an image is missing, damaged or of another format; the message names it.
            ConfigError: More images are asked for than there are.
        """
        files, labels = self._labelled()
        own = self._calibration_root
        sizes = {name: size for name, size in self._sizes.items() if name != "calibration" or own is None}
        parts = carve(len(files), sizes, labels, self._split_seed)
        if own is not None:
            parts["calibration"] = len(files) + self._unlabelled(unlabelled := images_below(own))
            files = [*files, *unlabelled]
            labels = np.concatenate([labels, np.full(len(unlabelled), IGNORED)])
        chosen = np.concatenate(list(parts.values()))
        rows = store_crops([files[i] for i in chosen], self._crop, self._cache_dir)
        whole = ArraySplit(rows, labels[chosen], self._transform)
        splits, start = {}, 0
        for name, part in parts.items():
            splits[name] = whole.subset(np.arange(start, start + len(part)))
            start += len(part)
        return Splits(**splits)

    def _labelled(self) -> Labelled:
        if self._labels is None:
            return images_by_folder(self._root, self._classes, self.n_classes)
        return images_in_table(self._root, self._labels, self._columns, self.n_classes)

    def _unlabelled(self, files: Sequence[Path]) -> Indices:
        """Returns which of the images without labels are for calibration."""
        sizes = {"calibration": self._sizes["calibration"], "train": None}
        try:
            return carve(len(files), sizes, None, self._split_seed)["calibration"]
        except ConfigError as error:
            raise ConfigError(f"task.calibration_root={self._calibration_root}: {error}") from error
