"""Converts raw examples to model inputs, and divides examples into splits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import Indices
from spaces.stages.pixels import Layout, Pixels


@dataclass(frozen=True)
class Normalise:
    """Maps raw examples to model inputs: `(x * scale - mean) / std`, then the layout.

    Attributes:
        scale: Factor on raw values; 1/255 brings bytes to [0, 1].
        mean: One value per channel, or one for all, in scaled units.
        std: Like `mean`.
        layout: `NCHW` puts the last (channel) axis first; `NHWC` leaves the axes as they are. For examples of
            any number of axes, `NCHW` means channels first.
        white: Raw value of the brightest pixel, if examples are images; inputs do not depend on it.
        where: Config path of the section that states the others, for messages.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "NCHW"
    white: float = field(default=255.0, repr=False)  # not part of a split's digest
    where: str = field(default="task", repr=False, compare=False)

    def __post_init__(self) -> None:
        """Converts lists, as YAML has them, to tuples, and checks the values. Raises ConfigError."""
        object.__setattr__(self, "scale", float(self.scale))
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not values or not all(type(v) in (int, float) for v in values):
                raise ConfigError(
                    f"{self.where}.{name} must list numbers, one per channel or one for all, not {list(values)}"
                )
            object.__setattr__(self, name, tuple(float(v) for v in values))
        if self.layout not in ("NCHW", "NHWC"):
            raise ConfigError(f"{self.where}.layout must be NCHW or NHWC, not {self.layout!r}")
        if not all(self.std):
            raise ConfigError(f"{self.where}.std must not hold 0: {list(self.std)}")

    def __call__(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """Maps raw examples `(b, ..., channels)` to inputs, float32."""
        x: NDArray[np.float32] = raw.astype(np.float32)
        x *= np.float32(self.scale)
        x -= np.asarray(self.mean, np.float32)
        x /= np.asarray(self.std, np.float32)
        if self.layout == "NCHW" and x.ndim > 2:
            x = np.moveaxis(x, -1, 1)
        return np.ascontiguousarray(x, dtype=np.float32)

    def told(self) -> str:
        """Returns the mapping in words."""
        axes = "channels first" if self.layout == "NCHW" else "axes as stored"
        if self.is_identity:
            return f"values as stored, {axes}"
        scaled = "x" if self.scale == 1 else f"x · {self.scale:.6g}"
        if not any(self.mean) and all(value == 1 for value in self.std):
            return f"{scaled}, {axes}"
        return f"({scaled} − mean) / std, mean {listed(self.mean)}, std {listed(self.std)}, {axes}"

    @property
    def is_identity(self) -> bool:
        """Whether values stay as they are."""
        return self.scale == 1 and not any(self.mean) and all(value == 1 for value in self.std)

    def pixels(self) -> Pixels:
        """Returns the mapping between inputs and pixels, for raw examples that are images."""
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        black, white = ((level * self.scale - mean) / std for level in (0.0, self.white))
        return Pixels(self.layout, tuple(black.tolist()), tuple(white.tolist()))

    def shape(self, raw_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of one input, for the shape of one raw example.

        Raises:
            ConfigError: There are several means or deviations, but not one per channel.
        """
        if not raw_shape:
            return ()
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, raw_shape[-1]):
                raise ConfigError(
                    f"{self.where}.{name} has {len(values)} values, but the examples have {raw_shape[-1]} channels"
                )
        return (raw_shape[-1], *raw_shape[:-1]) if self.layout == "NCHW" else raw_shape


@dataclass(frozen=True)
class Unscaled:
    """Maps raw examples to inputs of the same values and type, in the layout of `Normalise`.

    Attributes:
        layout: As in `Normalise`.
    """

    layout: Layout

    def __call__(self, raw: NDArray[np.generic]) -> NDArray[Any]:
        """Maps raw examples `(b, ..., channels)` to inputs."""
        moved = np.moveaxis(raw, -1, 1) if self.layout == "NCHW" and raw.ndim > 2 else raw
        return np.ascontiguousarray(moved)

    def pixels(self) -> Pixels | None:
        """Returns None: the examples are not images of bytes."""
        return None


def listed(values: Iterable[float]) -> str:
    """Returns numbers as text, with six digits each."""
    return ", ".join(f"{value:.6g}" for value in values)


def carve(n: int, sizes: Mapping[str, int | None], labels: Indices | None, seed: int) -> dict[str, Indices]:
    """Divides `n` examples into disjoint parts, stratified by class.

    The examples of a class, shuffled, get evenly spaced positions in [0, 1) with a random offset, and each part is a
    contiguous run of all examples sorted by position. Any contiguous run has every class in proportion to within two
    examples, so the first examples of a part are balanced, too.

    Args:
        n: Number of examples.
        sizes: Size of each part by its name; None (at most once) takes the remaining examples.
        labels: `(n,)` classes; None divides without stratification.
        seed: Seed of the shuffling.

    Returns:
        Indices of each part, disjoint.

    Raises:
        ConfigError: A size is negative, a part other than `train` would be empty, or the sizes exceed `n`.
    """
    n_requested = check_sizes(n, sizes)
    order = _spread(np.zeros(n, np.int64) if labels is None else labels, seed)
    parts, start = {}, 0
    for name, size in sizes.items():
        stop = start + (n - n_requested if size is None else size)
        parts[name] = order[start:stop]
        start = stop
    return parts


def carve_groups(
    groups: NDArray[Any], counts: Mapping[str, int | None], classes: Indices | None, seed: int, hint: str
) -> dict[str, Indices]:
    """Divides examples so that no group is in two parts.

    Args:
        groups: `(n,)`, the group of each example.
        counts: Number of groups in each part by its name; None (at most once) takes the remaining ones.
        classes: `(n,)` from 0 on, for an order that mixes them; None without.
        seed: Seed of the shuffling.
        hint: What says, in a message, that numbers are those of groups.

    Returns:
        Indices of each part; any contiguous run has all groups and classes of the part in proportion.

    Raises:
        ConfigError: As `carve`.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    numbers = numbers.reshape(-1)
    try:
        parts = carve(len(names), counts, None, seed)
    except ConfigError as error:
        raise ConfigError(f"{error} ({hint}: sizes count groups)") from error
    strata = numbers if classes is None else numbers * (int(classes.max(initial=0)) + 1) + classes
    rows = {name: np.flatnonzero(np.isin(numbers, chosen)) for name, chosen in parts.items()}
    return {name: mixed(part, strata, seed) for name, part in rows.items()}


def mixed(rows: Indices, labels: Indices, seed: int) -> Indices:
    """Returns the rows in an order in which any contiguous run has every class in proportion, as in the parts of `carve`.

    Args:
        rows: Indices of examples.
        labels: Classes of all examples, `(n,)`.
        seed: Seed of the shuffling.
    """
    return rows[_spread(labels[rows], seed)]


def check_sizes(n: int, sizes: Mapping[str, int | None]) -> int:
    """Checks the sizes of parts of `n` examples, and returns their sum. Raises ConfigError as `carve` does."""
    for name, size in sizes.items():
        least = 0 if name == "train" else 1
        if size is not None and (type(size) is not int or size < least):
            raise ConfigError(
                f"task.{name} must be a whole number of examples, at least {least}, not {size!r}"
            )
    n_requested = sum(size or 0 for size in sizes.values())
    if n_requested > n:
        terms = " + ".join(f"task.{name}={size}" for name, size in sizes.items() if size is not None)
        raise ConfigError(f"{terms} asks for {n_requested} examples, but there are only {n}")
    empty = next(
        (name for name, size in sizes.items() if size is None and n_requested == n and name != "train"), None
    )
    if empty is not None:
        raise ConfigError(f"task.{empty} would be empty: the other splits take all {n} examples")
    return n_requested


def _spread(labels: Indices, seed: int) -> Indices:
    """Returns a permutation of all examples in which classes are evenly mixed."""
    rng = np.random.default_rng(seed)
    position = np.empty(len(labels))
    for value in np.unique(labels):
        rows = np.flatnonzero(labels == value)
        position[rng.permutation(rows)] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.argsort(position, kind="stable")


def check_labels(labels: NDArray[np.generic], n: int, n_classes: int, path: object) -> NDArray[np.int64]:
    """Returns the labels as `(n,)` int64.

    Raises:
        InputError: The labels are not whole numbers, not `n`, or outside `[0, n_classes)`.
    """
    if labels.dtype.kind not in "iu" or labels.size != n:
        raise InputError(
            f"{path}: {n} whole-number labels are needed, not {labels.dtype} of shape {labels.shape}"
        )
    flat = labels.reshape(-1).astype(np.int64)
    if n and (flat.min() < 0 or flat.max() >= n_classes):
        raise InputError(
            f"{path}: labels lie in {flat.min()}..{flat.max()}, but {n_classes} classes need 0..{n_classes - 1}"
        )
    return flat
