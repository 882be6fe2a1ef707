"""Images with boxes in COCO's JSON format."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.task.boxes.labels import label_rows
from evaluators.task.data.boxes.annotations import (
    AnnotatedImage,
    Annotations,
    check_examples,
    read_annotations,
)
from evaluators.task.data.boxes.resized import Resize, Resized
from evaluators.task.data.crops import opened_image
from evaluators.task.data.data import CONFIG_PATH, Data, Examples, needed_root
from evaluators.task.data.splits import Normalise
from evaluators.task.data.stored_rows import Store, store_rows
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit, ragged
from spaces.stages.pixels import Layout


class CocoData(Data):
    """Reads a folder of images and an annotation file.

    Labels are `(n,)` objects, each `(m, 6)` float64 as in `evaluators.task.boxes.labels`: corners in pixels of the network's
    input, not of the image, so that what a network yields needs no way back. Overlaps are the same in both, since a resized
    image's axes are scaled and moved. Classes are the categories of the file in the order of their ids, or of `class_ids`.
    Images are decoded once, into a file in `cache_dir`, and take no memory.

    Args:
        cache_dir: Where decoded images are kept, height x width x channels bytes each.
        size: Height and width of the network's input, pixels.
        annotations: The annotation file, within `task.root`.
        images: The folder of the images, within `task.root`.
        test_annotations: A second annotation file, whose images are the test split; None carves it from the first.
        test_images: Their folder; None is `images`.
        class_ids: Ids of the categories in the order of the network's classes; null stands for a class without category.
        strict: Whether bad boxes and classes without boxes are refused; otherwise these boxes are left out.
        n_images: Images that are drawn of each file, by `draw_seed`; None takes all.
        resize: `letterbox`, `corner` or `stretch`.
        fill: Grey level of what a letterboxed image does not cover.
        channels: 3, or 1 for grey.
        layout: `NCHW` or `NHWC`.
        scale: Factor on bytes.
        mean: Mean per channel, in scaled units.
        std: Standard deviation per channel.
        draw_seed: Seed of the drawing.
    """

    def __init__(
        self,
        cache_dir: Path,
        size: Sequence[int] = (640, 640),
        annotations: str = "annotations.json",
        images: str = "images",
        test_annotations: str | None = None,
        test_images: str | None = None,
        class_ids: Sequence[int | None] | None = None,
        strict: bool = True,
        n_images: int | None = None,
        resize: Resize = "letterbox",
        fill: int = 114,
        channels: int = 3,
        layout: Layout = "NCHW",
        scale: float = 1 / 255,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        draw_seed: int = 0,
    ) -> None:
        if n_images is not None and n_images < 1:
            raise ConfigError(f"task.data.n_images must be at least 1, not {n_images}")
        self._cache_dir = Path(cache_dir).expanduser()
        self._sources = [(annotations, images)]
        if test_annotations is not None:
            self._sources.append((test_annotations, images if test_images is None else test_images))
        self._class_ids, self._strict = class_ids, strict
        self._n_images, self._seed = n_images, draw_seed
        self._resized = Resized((size[0], size[1]) if len(size) == 2 else tuple(size), resize, fill, channels)  # type: ignore[arg-type]
        self._transform = Normalise(scale, tuple(mean), tuple(std), layout, where=CONFIG_PATH)
        self._transform.shape(self._resized.shape)

    def read(self, root: Path | None) -> Examples:
        """Returns all images with their boxes.

        Raises:
            InputError: An image or annotation is missing or wrong; the message names the file, and the id in the annotation
                file.
        """
        folder = needed_root(root, "the folder of the images and the annotation file")
        files: list[Path] = []
        where: list[str] = []
        labels: list[NDArray[np.float64]] = []
        counts: list[int] = []
        for name, images in self._sources:
            annotations = read_annotations(folder / name, self._class_ids, self._strict)
            if self._strict and not counts:
                check_examples(annotations)
            chosen = self._drawn(annotations)
            counts.append(len(chosen))
            files += [_checked_file(folder / images, image, annotations) for image in chosen]
            where += [f"{annotations.path}, image {image.id}" for image in chosen]
            labels += [self._label(image) for image in chosen]
        _check_once(files, where)
        rows = store_rows(
            files, self._resized, Store(self._cache_dir, "boxes", "image", "task.data.cache_dir")
        )
        parts = {"test": np.arange(counts[0], len(files))} if len(counts) > 1 else None
        split = ArraySplit(rows, ragged(labels), self._transform)
        return Examples(split, where=where, parts=parts, folder=str(folder))

    def preparation(self) -> str:
        """Returns how an image is brought to the network's size."""
        height, width = self._resized.size
        colours = "RGB" if self._resized.channels > 1 else "grey"
        return f"{colours}, {self._resized.resize} to {height} x {width} pixels, grey level {self._resized.fill} where there is no image"

    def _drawn(self, annotations: Annotations) -> list[AnnotatedImage]:
        images = annotations.images
        if not images:
            raise InputError(f"{annotations.path} lists no images")
        if self._n_images is None or self._n_images >= len(images):
            return [*images]
        rows = np.random.default_rng(self._seed).permutation(len(images))[: self._n_images]
        return [images[row] for row in sorted(rows.tolist())]

    def _label(self, image: AnnotatedImage) -> NDArray[np.float64]:
        rows = image.rows
        return label_rows(self._resized.moved(rows[:, :4], image.width, image.height), rows[:, 4], rows[:, 5])


def _checked_file(folder: Path, image: AnnotatedImage, annotations: Annotations) -> Path:
    """Returns the image's file. Raises InputError if it cannot be read or has another size than the annotations say."""
    path = folder / image.name
    try:
        with opened_image(path) as opened:
            size = opened.size
    except InputError as error:
        raise InputError(f"{annotations.path}, image {image.id}: {error}") from error
    if size != (image.width, image.height):
        raise InputError(
            f"{annotations.path}, image {image.id}: {path} has {size[0]} x {size[1]} pixels, but the annotations say "
            f"{image.width} x {image.height}"
        )
    return path


def _check_once(files: Sequence[Path], where: Sequence[str]) -> None:
    first: dict[Path, str] = {}
    for path, place in zip(files, where, strict=True):
        if path in first:
            raise InputError(f"{place}: {path} is also that of {first[path]}: splits would not be disjoint")
        first[path] = place
