"""Channels without which the layers that take them map their inputs about as before: no labels, no gradients.

In the spirit of COMP ("matrix condition"), not its exact form: a channel scores `||W_j|| * ||X_j|| * kappa_j`, where `W_j` are the weights
on it, `X_j` its values at the input of the layer and `kappa_j` how much the condition number of the scaled weights
`W diag(||X_j||)` depends on it. Channels that several layers take score the mean over these, each divided by its own mean.
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

SMALLEST = 1e-12  # of the largest eigenvalue: rounding yields no less
HALVINGS = 60  # of an interval between two eigenvalues


class Condition(Criterion):
    """Norm of weights times norm of inputs times influence on the condition number.

    Only sums of squares of one layer's input are kept at a time.

    Args:
        batch_size: Examples that go through the network at once.
    """

    name: ClassVar[str] = "condition"
    needs_inputs: ClassVar[bool] = True

    def __init__(self, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ConfigError(f"condition: batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns the scores, `(n_channels,)` float64 a group.

        Raises:
            StageError: There are no examples, or no linear layer and no convolution without groups takes the channels of a group.
        """
        from spaces.pruning.criteria.scoring.input_powers import input_powers

        if len(evidence.inputs) == 0:
            raise StageError("prune.criterion=condition needs examples, but there are none")
        takers = {group.name: _takers(group, evidence) for group in evidence.groups}
        names = [part.name for parts in takers.values() for part in parts]
        powers = input_powers(evidence.module, names, evidence.inputs, self.batch_size)
        tensors = evidence.module.state_dict()
        found = {g: _score(parts, tensors, powers) for g, parts in takers.items()}
        return normalise(found, self.name)


def importance(values: "Tensor") -> "Tensor":
    """Returns the norm of each channel times its influence on the condition number, `(n_channels,)`.

    Args:
        values: `(n_channels, n_values)` float64: the scaled weights on each channel.
    """
    norms = values.square().sum(dim=1).sqrt()
    alive = norms > 0  # nothing depends on the others
    norms[alive] *= condition_ratios(values[alive])
    return norms


def condition_ratios(values: "Tensor") -> "Tensor":
    """Returns the condition number of a matrix over that without each row, `(n_rows,)`.

    The squared singular values without a row are eigenvalues of the Gram matrix without that row and column; each lies
    between two neighbours of the whole matrix' `(l_i)`, where `sum_i v_ji^2 / (l_i - x) = 0` for its eigenvectors `v`
    (Cauchy's interlacing; Golub 1973, "Some Modified Matrix Eigenvalue Problems", SIAM Review 15). So one decomposition serves all rows.

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
    last = min(n_rows - 1, n_values) - 1  # of those that a matrix with one row less has
    whole = squares[0] / squares[min(n_rows, n_values) - 1].clamp(min=floor)
    ends = [_between(squares, vectors.square(), at) for at in (0, last)]
    return torch.sqrt(whole * ends[1].clamp(min=floor) / ends[0])


def _between(squares: "Tensor", weights: "Tensor", at: int) -> "Tensor":
    """Returns, for each row left out, the eigenvalue between `squares[at + 1]` and `squares[at]`, by bisection."""
    low = squares[at + 1].expand(len(squares)).clone()
    high = squares[at].expand(len(squares)).clone()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = (weights / (squares - middle[:, None])).sum(dim=1) < 0
        low, high = middle.where(below, low), high.where(below, middle)
    return (low + high) / 2


def _takers(group: "Group", evidence: Evidence) -> "list[Slice]":
    """Returns the weights that take the channels and whose inputs can be told apart by channel."""
    from spaces.pruning.groups.columns import is_dense

    modules = dict(evidence.module.named_modules())
    found = [s for s in group.slices if s.role == "in" and s.name.endswith(".weight")]
    found = [s for s in found if is_dense(modules[s.name.removesuffix(".weight")])]
    if not found:
        raise StageError(
            "prune.criterion=condition looks at the layers that take a channel, but no linear layer and no "
            f"convolution without groups takes those of {group.name}"
        )
    return found


def _score(parts: "list[Slice]", tensors: "Mapping[str, Tensor]", powers: "Mapping[str, Tensor]") -> "Tensor":
    import torch

    found = []
    for part in parts:
        weight = tensors[part.name].double()
        scaled = weight * powers[part.name].sqrt().reshape(1, *weight.shape[1:])
        values = importance(channel_values(scaled, part))
        found.append(values / values.mean().clamp(min=torch.finfo(torch.float64).tiny))
    return torch.stack(found).mean(dim=0)
