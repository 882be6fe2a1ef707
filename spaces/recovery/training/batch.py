"""What a training step gets, and what says how good the outputs are."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Examples of one step, as augmented, on the device that trains.

    Attributes:
        inputs: `(b, *input.shape)` float32.
        labels: `(b,)` int64; below 0 where there are none.
        partners: `(b,)` int64, labels of the examples that were mixed in; None if none were.
        shares: `(b,)` float32 in [0, 1], how much of every input is the labelled example; the rest is the partner.
    """

    inputs: Tensor
    labels: Tensor
    partners: Tensor | None = None
    shares: Tensor | None = None


class Loss(Protocol):
    """A training loss. One that is a `torch.nn.Module` has its own parameters trained along."""

    def __call__(self, outputs: Tensor, batch: Batch, /) -> Tensor:
        """Returns a scalar.

        Args:
            outputs: `(b, n_outputs)` float32, of the network in train mode on `batch.inputs`.
            batch: The batch.
        """
