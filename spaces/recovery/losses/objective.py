"""The loss of recovery: the task's on labels, distillation of outputs, distillation of features, balance of experts."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spaces.models.torch.distillation import distillation_loss
from spaces.recovery.losses.balance import Balance
from spaces.recovery.losses.channel_wise import ChannelWise
from spaces.recovery.losses.hooks import hooked
from spaces.recovery.losses.label_loss import LabelLoss
from spaces.recovery.training.batch import Batch
from spaces.stages.output_spec import FIRST_OUTPUT, OutputSpec
from spaces.stages.torch_outputs import judged_output


class Teacher:
    """A frozen copy of the uncompressed network.

    Args:
        module: The network.
        device: Device of the copy.
        names: Names of the modules whose outputs are the features.
        output: The output that is distilled.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        names: tuple[str, ...] = (),
        output: OutputSpec = FIRST_OUTPUT,
    ) -> None:
        self._module = copy.deepcopy(module).eval().requires_grad_(False).to(device)
        self._names, self._output = names, output

    def __call__(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the judged output, `(b, n_classes)` logits for classes, and features by name of the module."""
        with torch.no_grad(), hooked(self._module, self._names) as features:
            return judged_output(self._module(inputs), self._output), features


class Objective(nn.Module):
    """`(1 - d) * label loss + d * distillation + c * CWD + balance`; its parameters are those of CWD's projections.

    Args:
        hard: The loss on labels, whose class axis distillation follows.
        teacher: The teacher network, or None to train without distillation; then both weights are 0.
        distillation_weight: d, in [0, 1]; at 1, labels are not used.
        temperature: Temperature of the distillation of logits.
        channel_wise: The loss on features; None for none.
        channel_wise_weight: c, at least 0.
        balance: The loss on the routing to experts, with its weight; None for none.
    """

    def __init__(
        self,
        hard: LabelLoss,
        teacher: Teacher | None,
        distillation_weight: float,
        temperature: float,
        channel_wise: ChannelWise | None,
        channel_wise_weight: float,
        balance: Balance | None = None,
    ) -> None:
        super().__init__()
        self._hard, self._teacher = hard, teacher
        self._distillation_weight, self._temperature = distillation_weight, temperature
        self._channel_wise, self._channel_wise_weight = channel_wise, channel_wise_weight
        self._balance = balance
        self._features: Mapping[str, Tensor] = {}

    @contextmanager
    def watching(self, student: nn.Module) -> Iterator[None]:
        """Records the outputs of the student's modules that the loss uses until the block ends."""
        names = [
            name for part in (self._channel_wise, self._balance) if part is not None for name in part.names
        ]
        with hooked(student, names) as self._features:
            yield

    def forward(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Returns a scalar; `outputs` are the student's for the batch."""
        weight = self._distillation_weight
        terms = [] if weight == 1 else [(1 - weight) * self._hard(outputs, batch)]
        if self._teacher is not None:
            logits, features = self._teacher(batch.inputs)
            if weight:
                terms.append(
                    weight * distillation_loss(outputs, logits, self._temperature, self._hard.loss.class_axis)
                )
            if self._channel_wise is not None:
                terms.append(self._channel_wise_weight * self._channel_wise(self._features, features))
        if self._balance is not None:
            terms.append(self._balance(self._features))
        return torch.stack(terms).sum()
