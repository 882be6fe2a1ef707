"""The batch of a training step, and the interface of training losses."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The augmented examples of one step, on the training device.

    Attributes:
        inputs: `(b, *input.shape)` float32.
        labels: `(b, ...)` as the task's loss takes them; classes `(b,)` int64, below 0 where there are none.
        partners: `(b, ...)`, labels of the examples that were mixed in; None without mixup.
        shares: `(b,)` float32 in [0, 1], weight of the example with `labels` in every input; the rest is the
            partner's.
    """

    inputs: Tensor
    labels: Tensor
    partners: Tensor | None = None
    shares: Tensor | None = None


class Loss(Protocol):
    """A training loss. If it is a `torch.nn.Module`, its parameters are trained with the network's."""

    def __call__(self, outputs: Tensor, batch: Batch, /) -> Tensor:
        """Returns a scalar.

        Args:
            outputs: `(b, n_outputs)` float32, outputs of the network in train mode on `batch.inputs`.
            batch: The batch.
        """
