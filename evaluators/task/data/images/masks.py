"""Folders of images and of masks with the same names."""

from collections.abc import Sequence
from pathlib import Path

from evaluators.task.data.crops import opened_image
from evaluators.task.data.data import CONFIG_PATH, Data, Examples, needed_root
from evaluators.task.data.images.decoding import Channels, Frame, Mask, Photo
from evaluators.task.data.images.image_files import images_below
from evaluators.task.data.images.stored_pairs import StoredPairs
from evaluators.task.data.splits import Normalise
from evaluators.task.data.stored_rows import Store, store_rows
from spaces.errors import InputError
from spaces.stages.pixels import Layout


class MaskFolders(Data):
    """Reads pairs of an image and a mask, decoded once into files of `cache_dir`.

    The folder `root` has a folder of images and one of masks; a pair has the same path within them, but for the file's ending
    and `mask_suffix`. Images and masks are resized and cut alike.

    Args:
        cache_dir: Where decoded images are kept.
        images: Name of the folder of images.
        masks: Name of the folder of masks: grey images or such with a palette.
        mask_suffix: What names of masks have after the image's name, e.g. `_mask`.
        mask_values: The value of each class in the masks, e.g. `[0, 255]`; None if values are the classes' numbers.
        ignore: With `mask_values`: a further value, which is kept for `task.ignore`.
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
        images: str = "images",
        masks: str = "masks",
        mask_suffix: str = "",
        mask_values: Sequence[int] | None = None,
        ignore: int | None = None,
        resize: int | Sequence[int] | None = None,
        crop: int | Sequence[int] | None = None,
        channels: Channels = "rgb",
        layout: Layout = "NCHW",
        scale: float = 1 / 255,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        self._cache_dir = Path(cache_dir).expanduser()
        self._folders, self._mask_suffix = (images, masks), mask_suffix
        frame = Frame.of(resize, crop)
        self._photo = Photo(frame, channels)
        self._mask = Mask(frame, None if mask_values is None else tuple(mask_values), ignore)
        self._transform = Normalise(scale, tuple(mean), tuple(std), layout, where=CONFIG_PATH)

    def read(self, root: Path | None) -> Examples:
        """Returns all pairs, in the order of their names.

        Raises:
            InputError: An image has no mask or the reverse, their sizes differ, or a file is damaged; the message names it.
            ConfigError: `cache_dir` cannot be written.
        """
        folder = needed_root(root, "the folder with the folders of images and masks")
        images, masks = self._pairs(folder)
        for image, mask in zip(images, masks, strict=True):
            _check_sizes(image, mask)
        raw = store_rows(
            images, self._photo, Store(self._cache_dir, "images", "image", "task.data.cache_dir")
        )
        targets = store_rows(
            masks, self._mask, Store(self._cache_dir, "masks", "image", "task.data.cache_dir")
        )
        self._transform.shape(raw[:1].shape[1:])  # checks the numbers of means
        split = StoredPairs(raw, targets, self._transform)
        return Examples(split, where=[str(mask) for mask in masks], folder=str(folder))

    def preparation(self) -> str:
        """Returns how an image is resized and cut."""
        return self._photo.preparation()

    def _pairs(self, root: Path) -> tuple[list[Path], list[Path]]:
        folders = [root / name for name in self._folders]
        of_images, of_masks = (_by_name(folder) for folder in folders)
        images = {f"{name}{self._mask_suffix}": file for name, file in of_images.items()}
        for have, other, what in ((images, of_masks, "mask"), (of_masks, images, "image")):
            if lone := sorted(have.keys() - other.keys()):
                folder = folders[1] if what == "mask" else folders[0]
                raise InputError(
                    f"{have[lone[0]]} has no {what} in {folder} ({len(lone)} of {len(have)} have none; the names of masks are "
                    f"those of images and task.data.mask_suffix={self._mask_suffix!r})"
                )
        return [images[name] for name in sorted(images)], [of_masks[name] for name in sorted(images)]


def _by_name(folder: Path) -> dict[str, Path]:
    """Returns the images of a folder by their path within it, without ending."""
    found: dict[str, Path] = {}
    for file in images_below(folder):
        name = str(file.relative_to(folder).with_suffix(""))
        if name in found:
            raise InputError(f"{file} and {found[name].name} have the same name but for the ending")
        found[name] = file
    return found


def _check_sizes(image: Path, mask: Path) -> None:
    with opened_image(image) as one, opened_image(mask) as other:
        if one.size != other.size:
            raise InputError(
                f"{mask}: the mask has {other.height} x {other.width} pixels, but {image.name} has {one.height} x {one.width}"
            )
