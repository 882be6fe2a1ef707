"""Image to image: super-resolution, denoising and the like."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data, Examples
from evaluators.task.data.images.stored_pairs import StoredPairs, labelled_pairs
from evaluators.task.metrics.images.pictures import Pictures
from evaluators.task.metrics.images.psnr import PSNR
from evaluators.task.metrics.images.ssim import SSIM, WINDOW
from evaluators.task.metrics.numbers.r2 import R2
from evaluators.task.statistics.scores import statistics_of, value_of
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import Indices
from spaces.stages.pixels import Layout, pixels_of

if TYPE_CHECKING:
    from spaces.stages.artifact import Split

_CHUNK = 64  # images that are enlarged at once


class ImageToImageTask(DataTask):
    """Yields an image for each image. Labels are the wanted images, `(n, H, W, channels)` or `(n, H, W)`.

    Agreement is R2 with the float model's outputs as labels, over all values together.

    Args:
        data: The loader.
        label_white: White in the labels as they are stored: 255 for bytes; 0 is black.
        white: White in the model's outputs; 0 is black.
        output_layout: `NCHW` or `NHWC`, of the outputs.
        border: Pixels at each side that do not count; in super-resolution usually the factor.
        loss: `squared` or `absolute`, for trainings.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "psnr": PSNR, "psnr_y": partial(PSNR, on_luma=True), "ssim": SSIM
    }  # fmt: skip

    def __init__(
        self,
        data: Data,
        label_white: float = 255.0,
        white: float = 1.0,
        output_layout: Layout = "NCHW",
        border: int = 0,
        loss: Literal["squared", "absolute"] = "squared",
        **settings: Any,
    ) -> None:
        super().__init__(data, **settings)
        if not label_white > 0 or not white > 0 or border < 0:
            raise ConfigError(
                "task.label_white and task.white must be above 0, task.border at least 0, not "
                f"label_white={label_white}, white={white}, border={border}"
            )
        self._to_labels = PictureLabels(output_layout, white / label_white)
        self._label_white = label_white
        self._pictures = Pictures(output_layout, white, border)
        self.loss = loss
        self.agreement = PictureAgreement()

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric of pictures."""
        return factory(self._pictures)

    def labelled(self, examples: Examples) -> Examples:
        """Returns the examples with labels as outputs are; labels that are stored on disk stay there.

        Raises:
            InputError: A label is wrong.
        """
        if not isinstance(examples.split, StoredPairs):
            return super().labelled(examples)
        return labelled_pairs(examples, self._check, self._to_labels)

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the labels as float32, `(n, channels, H, W)` or `(n, H, W, channels)`. Raises InputError if one is wrong."""
        self._check(examples.labels, examples)
        return self._to_labels(examples.labels)

    def classes_of(self, examples: Examples) -> Indices | None:
        """Returns None: there are no classes."""
        return None

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has another shape than labels have."""
        _, labels = next(iter(self._examples.split.batches(1, 1)))
        if output.shape == (n, *labels.shape[1:]):
            return None
        return (
            f"the model yields {output.shape} for {n} examples, but images of shape {labels.shape[1:]} are wanted "
            f"(task.output_layout={self._pictures.layout})"
        )

    def notes(self) -> tuple[str, ...]:
        """Returns the quality of inputs that are enlarged by bicubic interpolation, which a network should exceed.

        There is none where it is not known which inputs are black and white.
        """
        enlarged = [*self._enlarged(self.splits().validation)]
        if not enlarged:
            return ()
        outputs, labels = (np.concatenate(parts) for parts in zip(*enlarged, strict=True))
        figures = []
        for metric in (self.metric, *self.others):
            value = value_of(metric, statistics_of(metric, outputs, labels))
            figures.append(f"{metric.name} {value:.4g}{f' {metric.unit}' if metric.unit else ''}")
        return (
            f"control: the inputs, brought to the labels' size by bicubic interpolation, have {', '.join(figures)} on the "
            "validation split",
        )

    def _enlarged(self, split: "Split") -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
        pixels = pixels_of(split)
        if pixels is None or pixels.assumed:
            return
        scale, layout = self._pictures.white / 255, self._pictures.layout
        for inputs, labels in split.batches(_CHUNK):
            assert isinstance(inputs, np.ndarray)
            images = pixels.images(inputs)
            axes = labels.shape[2:] if layout == "NCHW" else labels.shape[1:3]
            channels = labels.shape[1 if layout == "NCHW" else 3]
            if images.shape[-1] != channels:
                return
            large = np.stack([_bicubic(image, (axes[0], axes[1])) for image in images]) * np.float32(scale)
            yield (np.moveaxis(large, -1, 1) if layout == "NCHW" else large), labels

    def _check(self, labels: NDArray[Any], examples: Examples, first: int = 0) -> None:
        """Raises InputError if a label is wrong; `first` is the number of the first one."""
        if labels.dtype.kind not in "iuf" or labels.ndim not in (3, 4):
            raise InputError(
                f"{examples.folder}: labels must be images (n, H, W, channels) or (n, H, W), not {labels.dtype} of shape "
                f"{labels.shape}"
            )
        least = WINDOW + 2 * self._pictures.border
        if min(labels.shape[1:3]) < least:
            raise InputError(
                f"{examples.folder}: labels of {labels.shape[1]} x {labels.shape[2]} pixels are too small; {least} x {least} are "
                f"needed (task.border={self._pictures.border}, and SSIM's window of {WINDOW})"
            )
        rows = labels.reshape(len(labels), -1)
        bad = ~((rows >= 0) & (rows <= self._label_white)).all(axis=1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"{examples.place(first + row)}: the label has values in {rows[row].min()}..{rows[row].max()}, but 0 is black and "
                f"{self._label_white:g} white (task.label_white)"
            )


class PictureAgreement(R2):
    """R2 over all values together, so that pictures of any size cost little."""

    def __init__(self) -> None:
        super().__init__("agreement")

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns, for each example, the number of values, sums of labels and of their squares, and squared errors: `(b, 4, 1)`."""
        y = labels.reshape(len(labels), -1).astype(np.float64)
        errors = outputs.reshape(len(outputs), -1) - y
        sums = (np.full(len(y), float(y.shape[1])), y.sum(1), (y**2).sum(1), (errors**2).sum(1))
        return np.stack(sums, axis=1)[:, :, None]


@dataclass(frozen=True)
class PictureLabels:
    """Maps stored images to labels.

    Attributes:
        layout: That of the outputs.
        scale: Factor from stored values to those of outputs.
    """

    layout: Layout
    scale: float

    def __call__(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Returns images `(n, H, W, channels)` or `(n, H, W)` as float32 `(n, channels, H, W)` or `(n, H, W, channels)`."""
        last = stored[..., None] if stored.ndim == 3 else stored
        moved = np.moveaxis(last, -1, 1) if self.layout == "NCHW" else last
        return np.ascontiguousarray(moved, np.float32) * np.float32(self.scale)


def _bicubic(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns an image `(h, w, channels)` at another size, by Pillow's bicubic filter."""
    from PIL import Image

    height, width = size
    channels = [Image.fromarray(image[..., c]) for c in range(image.shape[-1])]
    return np.stack(
        [np.asarray(one.resize((width, height), Image.Resampling.BICUBIC)) for one in channels], -1
    )
