"""Which output of a model is judged, and how it is read as one row of outputs per example."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Binary = Literal["logit", "probability"]
_LEAST = 1e-7  # probability whose logarithm is taken


@dataclass(frozen=True)
class OutputSpec:
    """The output of a model that a task judges.

    Attributes:
        name: The output's name in the ONNX graph; None is the first.
        position: Its place among the outputs.
        binary: What the only value per example says where two classes are told apart: `logit` (class 1 above 0) or
            `probability` of class 1 (above 0.5). None where every class has an output.
    """

    name: str | None = None
    position: int = 0
    binary: Binary | None = None

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

        An output with several axes of more than one value is returned as it is.
        """
        import torch

        is_row = sum(size != 1 for size in output.shape[1:]) <= 1
        flat = output.reshape(len(output), -1) if is_row and output.ndim else output
        if self.binary is None:
            return flat
        if self.binary == "logit":
            return torch.cat([torch.zeros_like(flat), flat], 1)
        share = flat.clamp(_LEAST, 1 - _LEAST)
        return torch.cat([1 - share, share], 1).log()


FIRST_OUTPUT = OutputSpec()


def squeezed_size(shape: tuple[Any, ...], n: int) -> int | None:
    """Returns how many values each of `n` examples has in an output; None if they are no single row per example.

    Args:
        shape: The output's shape: `(n,)`, `(n, K)`, or `(n, ...)` with at most one further axis of more than one value.
        n: Number of examples.
    """
    if not shape or shape[0] != n or sum(size != 1 for size in shape[1:]) > 1:
        return None
    return int(np.prod(shape[1:], dtype=np.int64))
