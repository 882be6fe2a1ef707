"""Criterion: effect of a channel on the layers that take it as input; needs no labels and no gradients.

In the spirit of COMP ("matrix condition"), not its exact form: a channel scores
`||W_j|| * ||X_j|| * kappa_j`, where `W_j` are the weights on it, `X_j` its values at the input of the layer
and `kappa_j` the ratio of the condition numbers of the scaled weights `W diag(||X_j||)` with and without it.
The score of a channel that several layers take is the mean over these layers, each normalised by its own
mean.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from spaces.errors import ConfigError, StageError
from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.criteria.scoring.normalise import normalise
from spaces.pruning.groups.slices import channel_values

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from spaces.pruning.groups.group import Group, Slice

SMALLEST = 1e-12  # relative to the largest eigenvalue: smaller ones are rounding errors
HALVINGS = 60  # bisection steps between two eigenvalues


class Condition(Criterion):
    """Norm of weights times norm of inputs times influence on the condition number.

    Of the layers' inputs, only sums of squares are kept in memory.

    Args:
        batch_size: Examples per forward pass.
    """

    name: ClassVar[str] = "condition"
    needs_inputs: ClassVar[bool] = True

    def __init__(self, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ConfigError(f"condition: batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns the scores, `(n_channels,)` float64 per group.

        Raises:
            StageError: There are no examples, or no linear or recurrent layer and no convolution without groups takes the channels of a group.
        """
        from spaces.pruning.criteria.scoring.input_powers import input_powers

        if len(evidence.inputs) == 0:
            raise StageError("prune.criterion=condition needs examples, but there are none")
        consumers = {group.name: _consumers(group, evidence) for group in evidence.groups}
        names = [part.name for parts in consumers.values() for part in parts]
        powers = input_powers(evidence.module, names, evidence.inputs, self.batch_size)
        tensors = evidence.module.state_dict()
        scores = {g: _score(parts, tensors, powers) for g, parts in consumers.items()}
        return normalise(scores, self.name)


def importance(values: "Tensor") -> "Tensor":
    """Returns the norm of each channel times its influence on the condition number, `(n_channels,)`.

    Args:
        values: `(n_channels, n_values)` float64: the scaled weights on each channel.
    """
    norms = values.square().sum(dim=1).sqrt()
    nonzero = norms > 0  # zero rows do not affect the condition number
    norms[nonzero] *= condition_ratios(values[nonzero])
    return norms


def condition_ratios(values: "Tensor") -> "Tensor":
    """Returns the condition number of a matrix divided by that of the matrix without each row, `(n_rows,)`.

    The squared singular values without row j are the eigenvalues of the Gram matrix without that row and
    column. Each lies between two neighbouring eigenvalues `l_i` of the whole Gram matrix and solves
    `sum_i v_ji^2 / (l_i - x) = 0`, where `v` are the eigenvectors (Cauchy's interlacing; Golub 1973,
    "Some Modified Matrix Eigenvalue Problems", SIAM Review 15). So one decomposition serves all rows.

    Args:
        values: `(n_rows, n_values)` float64.
    """
    import torch

    n_rows, n_values = values.shape
    if n_rows < 2:
        return torch.ones(n_rows, dtype=torch.float64)
    squares, vectors = torch.linalg.eigh(values @ values.T)
    squares, vectors = squares.flip(0), vectors.flip(1)  # from the largest down
    floor = SMALLEST * squares[0]
    last = min(n_rows - 1, n_values) - 1  # index of the smallest singular value with one row less
    whole = squares[0] / squares[min(n_rows, n_values) - 1].clamp(min=floor)
    ends = [_between(squares, vectors.square(), at) for at in (0, last)]
    return torch.sqrt(whole * ends[1].clamp(min=floor) / ends[0])


def _between(squares: "Tensor", weights: "Tensor", at: int) -> "Tensor":
    """Bisects the eigenvalue between `squares[at + 1]` and `squares[at]` without each row, `(n_rows,)`."""
    low = squares[at + 1].expand(len(squares)).clone()
    high = squares[at].expand(len(squares)).clone()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = (weights / (squares - middle[:, None])).sum(dim=1) < 0
        low, high = middle.where(below, low), high.where(below, middle)
    return (low + high) / 2


def _consumers(group: "Group", evidence: Evidence) -> "list[Slice]":
    """Returns the weights of the linear and recurrent layers and ungrouped convolutions that take the channels as input."""
    from spaces.pruning.criteria.scoring.input_powers import takes_inputs

    modules = dict(evidence.module.named_modules())
    consumers = [s for s in group.slices if s.role == "in" and takes_inputs(modules, s.name)]
    if not consumers:
        raise StageError(
            "prune.criterion=condition scores channels by the layers that take them as input, but no linear or "
            f"recurrent layer and no convolution without groups takes the channels of {group.name}"
        )
    return consumers


def _score(parts: "list[Slice]", tensors: "Mapping[str, Tensor]", powers: "Mapping[str, Tensor]") -> "Tensor":
    import torch

    scores = []
    for part in parts:
        weight = tensors[part.name].double()
        scaled = weight * powers[part.name].sqrt().reshape(1, *weight.shape[1:])
        values = importance(channel_values(scaled, part))
        scores.append(values / values.mean().clamp(min=torch.finfo(torch.float64).tiny))
    return torch.stack(scores).mean(dim=0)
