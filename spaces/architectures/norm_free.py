"""Convolutions with BatchNorm, with GroupNorm, or without any normalisation: their weights are standardised instead.

Brock, De and Smith 2021 (arXiv 2101.08692), used for federated training by Zhuang and Lyu 2024 (FedWon). Nothing depends on the
other examples of a batch, so that batches of one example train, and training and evaluation compute the same. Without some of
its inputs a filter's mean and norm are others: pruning leaves the layers whole that such a convolution reads.
"""

from math import gcd, pi, sqrt

import torch
from torch import Tensor, nn

from spaces.architectures.blocks import conv_bn

NORMS = ("bn", "gn", "none_ws")
GAIN = sqrt(2 / (1 - 1 / pi))  # of ReLU: restores the variance of a normal variable
_GROUPS = 8  # of GroupNorm, or as many as divide the channels
_EPSILON = 1e-4


def conv_norm(
    n_in: int, n_out: int, kernel: int, stride: int, norm: str, ends_branch: bool = False
) -> nn.Module:
    """Returns a convolution over images that keeps the size (but for the stride), without an activation.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        kernel: Odd kernel size.
        stride: Stride.
        norm: bn: BatchNorm follows; gn: GroupNorm; none_ws: nothing, but the weights are standardised.
        ends_branch: Whether its output is added to a shortcut.
    """
    if norm == "bn":
        return conv_bn(2, n_in, n_out, kernel, stride, activation="none")
    if norm == "none_ws":
        return StandardisedConv2d(n_in, n_out, kernel, stride, ends_branch)
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(gcd(_GROUPS, n_out), n_out))


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose filters have mean 0 and a fixed norm; the export folds that into the weights.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        kernel: Odd kernel size.
        stride: Stride.
        ends_branch: Whether the output is multiplied by a trained factor that is 0 at first, so that a residual block starts
            as its shortcut (SkipInit; De and Smith 2020, arXiv 2002.10444).
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, ends_branch: bool = False) -> None:
        super().__init__(n_in, n_out, kernel, stride, kernel // 2)
        self.factor = nn.Parameter(torch.zeros(())) if ends_branch else None

    def forward(self, x: Tensor) -> Tensor:
        """`(n, n_in, h, w)` -> `(n, n_out, h, w)`, or smaller by the stride."""
        weight, bias = standardised(self.weight), self.bias
        if self.factor is not None and bias is not None:
            weight, bias = weight * self.factor, bias * self.factor
        return self._conv_forward(x, weight, bias)  # type: ignore[no-any-return]


def standardised(weight: Tensor) -> Tensor:
    """Returns filters of mean 0 and variance `GAIN^2 / fan-in` (scaled weight standardisation, arXiv 2101.08692).

    Args:
        weight: `(n_out, n_in, h, w)`.
    """
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, correction=0)
    scale: Tensor = GAIN * torch.rsqrt(variance * weight[0].numel() + _EPSILON)
    return (weight - mean) * scale
