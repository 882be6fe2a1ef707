"""Which outputs of a model are judged, and how they are read: as one row of outputs per example, or in their own shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", bound=Any)  # of numpy or torch
Binary = Literal["logit", "probability"]
_LEAST = 1e-7  # probability whose logarithm is taken


@dataclass(frozen=True)
class OutputSpec:
    """The outputs of a model that a task judges.

    Attributes:
        name: The output's name in the ONNX graph; None is the first.
        position: Its place among the outputs.
        binary: What the only value per example says where two classes are told apart: `logit` (class 1 above 0) or
            `probability` of class 1 (above 0.5). None where every class has an output.
        whole: Whether outputs keep their shape, because they are no row of class scores per example.
        further: Names of further outputs that are judged together with the first.
        further_positions: Their places among the outputs.
        batch_axis: The axis of the examples; it is moved to the front when outputs are read.
    """

    name: str | None = None
    position: int = 0
    binary: Binary | None = None
    whole: bool = False
    further: tuple[str, ...] = ()
    further_positions: tuple[int, ...] = ()
    batch_axis: int = 0

    def __post_init__(self) -> None:
        """Makes tuples of lists, as JSON has them."""
        object.__setattr__(self, "further", tuple(self.further))
        object.__setattr__(self, "further_positions", tuple(self.further_positions))

    def read(self, outputs: Mapping[str, NDArray[Any]]) -> Any:
        """Returns the judged outputs of a batch as a metric takes them.

        Args:
            outputs: `(n, ...)` by name, see `batch_first`: first that of `name`, then the further ones.

        Returns:
            `(n, n_outputs)` float32; for whole outputs `(n, ...)`, floating-point numbers as float32; with further outputs such
            an array for each by name.
        """
        if not self.whole:
            return self.rows(next(iter(outputs.values())))
        read = {name: _as_float32(output) for name, output in outputs.items()}
        return read if self.further else next(iter(read.values()))

    def batch_first(self, output: Array) -> Array:
        """Returns an output of the model with the axis of the examples in front."""
        moved: Array = output.swapaxes(0, self.batch_axis) if self.batch_axis < output.ndim else output
        return moved

    def rows(self, output: NDArray[np.generic]) -> NDArray[np.float32]:
        """Returns an output `(n, ...)` as `(n, n_outputs)` float32; a binary one gets a column for each of its two classes.

        The columns of a logit z are 0 and z, whose softmax is the sigmoid of z; those of a probability p are 1 - p and p.
        """
        flat: NDArray[np.float32] = output.reshape(len(output), -1).astype(np.float32, copy=False)
        if self.binary is None:
            return flat
        other = np.zeros_like(flat) if self.binary == "logit" else np.float32(1) - flat
        return np.concatenate([other, flat], axis=1)

    def logits(self, output: "torch.Tensor") -> "torch.Tensor":
        """Returns a torch output as logits `(n, n_classes)` for a loss: as `rows`, but with logarithms of probabilities.

        An output with several axes of more than one value is returned as it is, and so is a whole one.
        """
        import torch

        if self.whole:
            return output

        is_row = sum(size != 1 for size in output.shape[1:]) <= 1
        flat = output.reshape(len(output), -1) if is_row and output.ndim else output
        if self.binary is None:
            return flat
        if self.binary == "logit":
            return torch.cat([torch.zeros_like(flat), flat], 1)
        share = flat.clamp(_LEAST, 1 - _LEAST)
        return torch.cat([1 - share, share], 1).log()


FIRST_OUTPUT = OutputSpec()


def _as_float32(output: NDArray[Any]) -> NDArray[Any]:
    return output.astype(np.float32, copy=False) if output.dtype.kind == "f" else output


def squeezed_size(shape: tuple[Any, ...], n: int) -> int | None:
    """Returns how many values each of `n` examples has in an output; None if they are no single row per example.

    Args:
        shape: The output's shape: `(n,)`, `(n, K)`, or `(n, ...)` with at most one further axis of more than one value.
        n: Number of examples.
    """
    if not shape or shape[0] != n or sum(size != 1 for size in shape[1:]) > 1:
        return None
    return int(np.prod(shape[1:], dtype=np.int64))
