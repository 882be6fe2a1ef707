"""Channel-wise distillation of features (CWD; Shu et al. 2021, arXiv 2011.13256)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


def channel_wise_loss(features: Tensor, teacher_features: Tensor, temperature: float) -> Tensor:
    """Returns `T^2 / C * sum_c KL(phi(teacher_c) || phi(student_c))`, mean over examples; a scalar (equations 5 and 6).

    `phi` is the softmax of a channel over its positions, at temperature T.

    Args:
        features: Features of the student `(b, c, ...)`, with one or more axes of positions.
        teacher_features: Features of the teacher, of the same shape; no gradient flows to them.
        temperature: T, above 0.
    """
    b, c = features.shape[:2]
    student = functional.log_softmax(features.flatten(2) / temperature, dim=2)
    teacher = functional.log_softmax(teacher_features.detach().flatten(2) / temperature, dim=2)
    divergence = functional.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * (temperature**2 / (b * c))


class ChannelWise(nn.Module):
    """The mean of the loss over several modules of a network.

    Where student and teacher differ in the number of channels, a 1x1 convolution maps the student's features;
    it is trained with the student and then dropped.

    Args:
        channels: By name of the module, numbers of channels of the student and of the teacher.
        temperature: T, above 0.
        seed: Seed of the convolutions' initial weights.
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
        """Returns a scalar, from features `(b, c, ...)` by name of the module."""
        losses = [
            channel_wise_loss(
                project(features[name].flatten(2)), teacher_features[name].flatten(2), self._temperature
            )
            for name, project in zip(self.names, self._projections, strict=True)
        ]
        return torch.stack(losses).mean()
