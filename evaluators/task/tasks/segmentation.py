"""Semantic segmentation: each position of an image has a class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data, Examples
from evaluators.task.data.images.stored_pairs import StoredPairs, labelled_pairs
from evaluators.task.metrics.segmentation.class_maps import ClassMaps, Upsample
from evaluators.task.metrics.segmentation.overlap import Dice, MIoU
from evaluators.task.metrics.segmentation.pixels import PixelAccuracy, SamePixels
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import Indices
from spaces.stages.pixels import Layout
from spaces.task_losses import IGNORED


class SegmentationTask(DataTask):
    """Tells the class of each position of an image. Labels are masks `(n, H, W)` of whole numbers.

    See `ClassMaps` for the outputs. Agreement is the share of positions that the float model gives the same class.

    Args:
        data: The loader.
        n_classes: Number of classes; masks hold 0 to `n_classes` - 1.
        ignore: Value of masks' positions that do not count; None if there is none.
        output_layout: `NCHW` for class scores `(n, C, h, w)`, `NHWC` for `(n, h, w, C)`.
        threshold: See `ClassMaps`.
        upsample: See `ClassMaps`.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "miou": MIoU, "dice": Dice, "pixel_accuracy": PixelAccuracy
    }  # fmt: skip

    def __init__(
        self,
        data: Data,
        n_classes: int,
        ignore: int | None = 255,
        output_layout: Layout = "NCHW",
        threshold: float | None = None,
        upsample: Upsample = "none",
        **settings: Any,
    ) -> None:
        super().__init__(data, **settings)
        if n_classes < 2 or (threshold is not None and n_classes != 2):
            wanted = "2, since task.threshold is given" if threshold is not None else "at least 2"
            raise ConfigError(f"task.n_classes must be {wanted} (the background is a class), not {n_classes}")
        if ignore is not None and 0 <= ignore < n_classes:
            raise ConfigError(
                f"task.ignore={ignore} is one of the {n_classes} classes (task.n_classes); null ignores no position"
            )
        self.n_classes, self._ignore = n_classes, ignore
        self._maps = ClassMaps(n_classes, output_layout, threshold, upsample)
        self.agreement = SamePixels(self._maps)
        self.loss = _loss(output_layout, threshold)

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric of class maps."""
        return factory(self._maps)

    def labelled(self, examples: Examples) -> Examples:
        """Returns the examples with masks whose ignored positions are -1; masks that are stored on disk stay there.

        Raises:
            InputError: A mask is wrong.
        """
        if not isinstance(examples.split, StoredPairs):
            return super().labelled(examples)
        return labelled_pairs(examples, self._check, MaskLabels(self._ignore))

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the masks as int16 `(n, H, W)`, -1 where they are ignored. Raises InputError if one is wrong."""
        self._check(examples.labels, examples)
        return MaskLabels(self._ignore)(examples.labels)

    def classes_of(self, examples: Examples) -> Indices | None:
        """Returns None: a mask has several classes."""
        return None

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has another number of classes, or another resolution."""
        _, labels = next(iter(self._examples.split.batches(1, 1)))
        return self._maps.misfit(output, n, labels.shape[1:])

    def _check(self, masks: NDArray[Any], examples: Examples, first: int = 0) -> None:
        """Raises InputError if a mask is wrong; `first` is the number of the first one."""
        squeezed = _squeezed(masks)
        if masks.dtype.kind not in "iub" or squeezed.ndim != 3:
            raise InputError(
                f"{examples.folder}: masks must be whole numbers (n, H, W), not {masks.dtype} of shape {masks.shape}"
            )
        n_classes = self.n_classes or 0
        bad = (squeezed < 0) | (squeezed >= n_classes)
        if self._ignore is not None:
            bad &= squeezed != self._ignore
        if bad.any():
            example, row, column = np.argwhere(bad)[0].tolist()
            ignored = "" if self._ignore is None else f", and task.ignore is {self._ignore}"
            raise InputError(
                f"{examples.place(first + example)}: the mask has {int(squeezed[example, row, column])} at row {row}, column "
                f"{column}, but classes are 0..{n_classes - 1} (task.n_classes){ignored}"
            )


@dataclass(frozen=True)
class MaskLabels:
    """Maps masks to labels.

    Attributes:
        ignore: Value that becomes -1; None if there is none.
    """

    ignore: int | None

    def __call__(self, masks: NDArray[Any]) -> NDArray[np.int16]:
        """Returns masks `(n, H, W)`, or with an axis of size 1, as int16 `(n, H, W)`."""
        squeezed = _squeezed(masks)
        labels = squeezed.astype(np.int16)
        if self.ignore is not None:
            labels[squeezed == self.ignore] = IGNORED
        return labels


def _squeezed(masks: NDArray[Any]) -> NDArray[Any]:
    """Returns masks without an axis of size 1 for the channels."""
    if masks.ndim == 4:
        axis = next((axis for axis in (1, 3) if masks.shape[axis] == 1), None)
        return masks if axis is None else masks.squeeze(axis)
    return masks


def _loss(layout: Layout, threshold: float | None) -> str:
    """Returns the name of the loss that suits the outputs."""
    if threshold is not None:
        return "probability" if 0 < threshold < 1 else "binary"
    return "cross_entropy" if layout == "NCHW" else "cross_entropy_last"
