"""Scales columns by what the training split has."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.splits import listed
from spaces.stages.pixels import Pixels


@dataclass(frozen=True)
class Scaling:
    """Maps raw examples to `(x - mean) / std`, float32.

    Attributes:
        mean: One value for each entry of the last axis.
        std: Likewise, above 0.
        channels_first: Whether the last axis becomes the first, as `(n, time, columns)` to `(n, columns, time)`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_first: bool = False

    @classmethod
    def of(cls, values: NDArray[np.float64], channels_first: bool = False) -> "Scaling":
        """Returns the scaling that gives each column mean 0 and deviation 1; a constant column becomes 0.

        Args:
            values: `(..., columns)`; without any values nothing is scaled.
            channels_first: As in the attribute.
        """
        flat = values.reshape(-1, values.shape[-1])
        if not len(flat):
            return cls.none(values.shape[-1], channels_first)
        mean, std = flat.mean(axis=0), flat.std(axis=0)
        least = 1e-12 * np.maximum(np.abs(mean), 1)
        return cls(tuple(mean.tolist()), tuple(np.where(std > least, std, 1.0).tolist()), channels_first)

    @classmethod
    def none(cls, n_columns: int, channels_first: bool = False) -> "Scaling":
        """Returns the scaling that changes nothing."""
        return cls((0.0,) * n_columns, (1.0,) * n_columns, channels_first)

    def told(self) -> str:
        """Returns the mapping in words."""
        if not any(self.mean) and all(value == 1 for value in self.std):
            return "values as stored"
        return f"(x − mean) / std by column, mean {listed(self.mean)}, std {listed(self.std)}"

    def __call__(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """Maps raw examples `(b, ..., columns)` to inputs."""
        scaled = (raw.astype(np.float64) - self.mean) / self.std
        moved = np.moveaxis(scaled, -1, 1) if self.channels_first else scaled
        return np.ascontiguousarray(moved, dtype=np.float32)

    def pixels(self) -> Pixels | None:
        """Returns None: the examples are no images."""
        return None
