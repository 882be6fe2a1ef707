"""A folder of images with a label file, preprocessed like ImageNet."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluators.task.data.archives import reading
from evaluators.task.data.crops import Crop, store_crops
from evaluators.task.data.splits import Normalise, carve
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import InputError
from spaces.stages.array_split import ArraySplit, Indices
from spaces.stages.pixels import Layout


class ImageFolderTask(Task):
    """Classifies images: the shorter side resized (bilinear), the centre cut out, normalised per channel.

    Args:
        root: The folder.
        cache_dir: Where decoded images are kept.
        labels: The label file, CSV with a header, within `root`.
        file_column: The column of file names, relative to `root`.
        class_column: The column of class indices.
        n_classes: Number of classes.
        resize: Length of the shorter side, pixels.
        crop: Side of the square that is cut out, pixels.
        layout: `NCHW` or `NHWC`.
        scale: Factor on bytes.
        mean: Mean per channel, in scaled units.
        std: Standard deviation per channel.
        calibration: Images in the calibration split.
        validation: Images in the validation split.
        test: Images in the test split.
        train: Images in the train split; None takes what is left. Images in no split are not decoded.
        split_seed: Seed of the division.
        output: Name of the model's output that is judged; None takes the first, or the only one whose shape fits.
    """

    def __init__(
        self,
        root: str,
        cache_dir: str,
        labels: str = "labels.csv",
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
    ) -> None:
        self.metric = Top1()
        self.output = output
        self.n_classes = n_classes
        self._root, self._cache_dir = Path(root).expanduser(), Path(cache_dir).expanduser()
        self._labels, self._columns = labels, (file_column, class_column)
        self._crop = Crop(resize, crop)
        self._transform = Normalise(scale, tuple(mean), tuple(std), layout)
        self.input_shape = self._transform.shape((crop, crop, 3))
        self._sizes = {"test": test, "validation": validation, "calibration": calibration, "train": train}
        self._split_seed = split_seed

    def splits(self) -> Splits:
        """Reads the label file and decodes the images of all splits.

        Raises:
            InputError: The label file or an image is missing, damaged or of another format; the message names the file.
            ConfigError: More images are asked for than there are.
        """
        files, labels = self._read_labels()
        parts = carve(len(files), self._sizes, labels, self._split_seed)
        chosen = np.concatenate(list(parts.values()))
        rows = store_crops([files[i] for i in chosen], self._crop, self._cache_dir)
        whole = ArraySplit(rows, labels[chosen], self._transform)
        splits, start = {}, 0
        for name, part in parts.items():
            splits[name] = whole.subset(np.arange(start, start + len(part)))
            start += len(part)
        return Splits(**splits)

    def _read_labels(self) -> tuple[list[Path], Indices]:
        path = self._root / self._labels
        try:
            with reading(path, "a CSV file with labels"), path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                self._check_header(reader.fieldnames or [], path)
                rows = [self._row(row, f"{path}, line {reader.line_num}") for row in reader]
        except csv.Error as error:
            raise InputError(f"{path} is not a CSV file: {error}") from error
        files = [file for file, _ in rows]
        duplicate = next((f for f, n in zip(sorted(files), sorted(files)[1:], strict=False) if f == n), None)
        if duplicate is not None:
            raise InputError(f"{path} lists {duplicate.name} twice: splits would not be disjoint")
        return files, np.asarray([label for _, label in rows], np.int64)

    def _check_header(self, names: Sequence[str], path: Path) -> None:
        for key, column in zip(("file_column", "class_column"), self._columns, strict=True):
            if column not in names:
                raise InputError(
                    f"{path} has no column {column!r} (task.{key}); it has {', '.join(names)[:200]}"
                )

    def _row(self, row: dict[str, str], where: str) -> tuple[Path, int]:
        name, text = (row[column] for column in self._columns)
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{where}: {name!r} is not a file name within {self._root}")
        try:
            label = int(text)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: class index {text!r} is not a whole number") from error
        if not 0 <= label < self.n_classes:
            raise InputError(
                f"{where}: class index {label} of {name} is outside 0..{self.n_classes - 1} (task.n_classes)"
            )
        return self._root / name, label
