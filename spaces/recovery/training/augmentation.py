"""Random, seeded changes of a batch's normalised inputs that keep the labels valid."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from spaces.errors import StageError, unknown_name
from spaces.recovery.training.batch import Batch

# Images are shifted by up to an eighth of their size: 4 of 32 pixels (He et al. 2015, arXiv 1512.03385, 4.2).
SHIFT_SHARE = 8
# The augmentations of signals follow Um et al. 2017, arXiv 1706.00527.
NOISE = 0.1  # standard deviation of jitter, relative to that of the channel
SCALE_SPREAD = 0.1  # standard deviation of the factors of scale

Change = Callable[[Tensor, torch.Generator], Tensor]


def _is_signal(shape: tuple[int, ...]) -> bool:
    """Whether a shape is `(channels, time)`, possibly with another axis of size 1 before or after time."""
    return len(shape) == 2 or (len(shape) == 3 and 1 in shape[1:])


def flip(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Flips each image `(b, c, h, w)` horizontally with probability 1/2."""
    flipped = torch.rand(len(inputs), generator=generator).to(inputs.device) < 0.5
    return torch.where(flipped[:, None, None, None], inputs.flip(-1), inputs)


def crop(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts every image `(b, c, h, w)` by up to an eighth of its size, padding with zeros."""
    b, _, h, w = inputs.shape
    pads = max(1, h // SHIFT_SHARE), max(1, w // SHIFT_SHARE)
    padded = functional.pad(inputs, (pads[1], pads[1], pads[0], pads[0]))
    rows = _starts(pads[0], b, generator, inputs)[:, None] + torch.arange(h, device=inputs.device)  # (b, h)
    columns = _starts(pads[1], b, generator, inputs)[:, None] + torch.arange(w, device=inputs.device)
    example = torch.arange(b, device=inputs.device)[:, None, None]
    cropped = padded[example, :, rows[:, :, None], columns[:, None, :]]  # (b, h, w, c)
    return cropped.permute(0, 3, 1, 2)


def jitter(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Adds Gaussian noise to inputs `(b, c, ...)`, in proportion to a channel's spread in the batch."""
    axes = [axis for axis in range(inputs.ndim) if axis != 1]
    spread = inputs.std(axes, correction=0, keepdim=True)
    return inputs + NOISE * spread * torch.randn(inputs.shape, generator=generator).to(inputs.device)


def scale(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Multiplies every channel of every example `(b, c, ...)` by a factor around 1."""
    shape = (*inputs.shape[:2], *(1 for _ in inputs.shape[2:]))
    factors = 1 + SCALE_SPREAD * torch.randn(shape, generator=generator)
    return inputs * factors.to(inputs.device)


def time_shift(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts every signal by up to an eighth of its length; the value at the end is repeated."""
    axis = inputs.ndim - 1 if inputs.shape[-1] > 1 else inputs.ndim - 2
    n = inputs.shape[axis]
    most = max(1, n // SHIFT_SHARE)
    starts = _starts(most, len(inputs), generator, inputs) - most
    times = (starts[:, None] + torch.arange(n, device=inputs.device)).clamp(0, n - 1)  # (b, n)
    index = times.view(len(inputs), *(n if a == axis else 1 for a in range(1, inputs.ndim)))
    return inputs.gather(axis, index.expand_as(inputs))


@dataclass(frozen=True)
class Inputs:
    """The inputs that an augmentation is applicable to.

    Attributes:
        fit: Whether inputs of a shape (without the batch axis) are.
        wanted: The required shape, for error messages.
    """

    fit: Callable[[tuple[int, ...]], bool]
    wanted: str


ALL = Inputs(lambda shape: True, "any")
ANY = Inputs(lambda shape: len(shape) > 0, "(channels, ...)")
IMAGES = Inputs(lambda shape: len(shape) == 3, "(channels, height, width)")
SIGNALS = Inputs(_is_signal, "(channels, time)")


@dataclass(frozen=True)
class Augmentation:
    """One augmentation.

    Attributes:
        name: The knob's value.
        inputs: The inputs that it is applicable to.
        changes: The changes of inputs, in order.
        mixes: Whether every example is then mixed with another: mixup (Zhang et al. 2017, arXiv 1710.09412) with
            uniform shares in [0, 1], as suits distillation (Beyer et al. 2021, arXiv 2106.05237).
    """

    name: str
    inputs: Inputs
    changes: tuple[Change, ...]
    mixes: bool = False


_ROWS = (
    Augmentation("none", ALL, ()),
    Augmentation("mixup", ANY, (), mixes=True),
    Augmentation("flip", IMAGES, (flip,)),
    Augmentation("crop", IMAGES, (crop,)),
    Augmentation("crop_mixup", IMAGES, (crop,), mixes=True),
    Augmentation("flip_crop", IMAGES, (flip, crop)),
    Augmentation("flip_crop_mixup", IMAGES, (flip, crop), mixes=True),
    Augmentation("jitter", ANY, (jitter,)),
    Augmentation("scale", ANY, (scale,)),
    Augmentation("time_shift", SIGNALS, (time_shift,)),
    Augmentation("signal", SIGNALS, (time_shift, scale, jitter)),
)
AUGMENTATIONS = {row.name: row for row in _ROWS}


def check_augmentation(name: str, shape: tuple[int, ...]) -> None:
    """Checks that an augmentation is applicable to inputs of a shape (without the batch axis).

    Raises:
        StageError: It is not, or there is no such augmentation.

    The shape is `()` where there are several inputs, or one that takes no floating-point numbers.
    """
    if name not in AUGMENTATIONS:
        raise StageError(unknown_name("augmentation", name, AUGMENTATIONS))
    inputs = AUGMENTATIONS[name].inputs
    if not inputs.fit(shape):
        possible = ", ".join(row.name for row in _ROWS if row.inputs.fit(shape))
        found = (
            f"the inputs have the shape {shape}"
            if shape
            else "there is not one input of floating-point numbers"
        )
        raise StageError(
            f"augmentation={name} needs inputs of shape {inputs.wanted}, but {found}; applicable augmentations: {possible}"
        )


def augment(name: str, batch: Batch, generator: torch.Generator) -> Batch:
    """Returns the batch with its inputs changed.

    Args:
        name: One of `AUGMENTATIONS`; `check_augmentation` must accept it.
        batch: Examples as the split yields them.
        generator: Source of the random changes, on the CPU.
    """
    row = AUGMENTATIONS[name]
    inputs = batch.inputs
    for change in row.changes:
        inputs = change(inputs, generator)
    changed = replace(batch, inputs=inputs)
    return _mixed(changed, generator) if row.mixes else changed


def _mixed(batch: Batch, generator: torch.Generator) -> Batch:
    device = batch.inputs.device
    shares = torch.rand(len(batch.inputs), generator=generator).to(device)
    partners = torch.randperm(len(batch.inputs), generator=generator).to(device)
    weights = shares.view(-1, *(1 for _ in batch.inputs.shape[1:]))
    inputs = torch.lerp(batch.inputs[partners], batch.inputs, weights)
    return replace(batch, inputs=inputs, partners=batch.labels[partners], shares=shares)


def _starts(most: int, n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.randint(0, 2 * most + 1, (n,), generator=generator).to(like.device)
