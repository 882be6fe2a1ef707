"""Channel-wise distillation of features (CWD; Shu et al. 2021, arXiv 2011.13256): where each channel looks."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


def channel_wise_loss(features: Tensor, teacher_features: Tensor, temperature: float) -> Tensor:
    """Returns `T^2 / C * sum_c KL(phi(teacher_c) || phi(student_c))`, mean over examples; a scalar (equations 5 and 6).

    `phi` is the softmax of a channel over its places, at temperature T.

    Args:
        features: Of the student `(b, c, ...)`, with one or more axes of places.
        teacher_features: Of the teacher, of the same shape; no gradient goes there.
        temperature: T, above 0.
    """
    b, c = features.shape[:2]
    student = functional.log_softmax(features.flatten(2) / temperature, dim=2)
    teacher = functional.log_softmax(teacher_features.detach().flatten(2) / temperature, dim=2)
    divergence = functional.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * (temperature**2 / (b * c))


class ChannelWise(nn.Module):
    """The mean of the loss over several places of a network.

    Where the student has other channels than the teacher, a 1x1 convolution, which is trained along and then dropped,
    maps its features.

    Args:
        channels: By name of the place, channels of the student and of the teacher.
        temperature: T, above 0.
        seed: Draws the convolutions' weights.
    """

    def __init__(self, channels: Mapping[str, tuple[int, int]], temperature: float, seed: int) -> None:
        super().__init__()
        self.names = tuple(channels)
        self._temperature = temperature
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._projections = nn.ModuleList(
                nn.Identity() if ours == theirs else nn.Conv1d(ours, theirs, 1)
                for ours, theirs in channels.values()
            )

    def forward(self, features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]) -> Tensor:
        """Returns a scalar, from features `(b, c, ...)` by name."""
        losses = [
            channel_wise_loss(
                project(features[name].flatten(2)), teacher_features[name].flatten(2), self._temperature
            )
            for name, project in zip(self.names, self._projections, strict=True)
        ]
        return torch.stack(losses).mean()
