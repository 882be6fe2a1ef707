"""Verifies groups by trial cuts: a trace can be wrong, and a wrong cut may still run."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils._python_dispatch import TorchDispatchMode

from spaces.pruning.groups.cut import Kept, cut, silenced
from spaces.pruning.groups.group import Group, LeftAlone
from spaces.stages.torch_artifact import noise_for
from spaces.stages.torch_outputs import tensors_of

TOLERANCE = (
    1e-9  # relative to the largest output, in double precision; a wrong dependency causes far larger errors
)
RESCALED_TOLERANCE = 1e-6  # a network may compute the scale of its attention in single precision
SINGLE_TOLERANCE = 1e-4
CRASHES = "the network does not run without some of its channels"
DIFFERS = "without some of its channels the network's outputs are wrong"


def tried(
    trial: "Trial", groups: Sequence[Group], known: Sequence[Group] = ()
) -> tuple[tuple[Group, ...], dict[str, LeftAlone]]:
    """Splits groups into those that can be cut, together with others, and, by name, those that cannot.

    Args:
        trial: The network.
        groups: The groups to verify.
        known: Groups that can be cut together, as was verified before; they are the first of those returned.
    """
    if trial.problem([*known, *groups]) is None:
        return (*known, *groups), {}
    good, failed = _bisected(trial, groups)
    if not failed or trial.problem([*known, *good]) is not None:  # each passes alone, but not with the others
        good, failed = _one_by_one(trial, groups, known)
    return (*known, *good), failed


def _bisected(trial: "Trial", groups: Sequence[Group]) -> tuple[list[Group], dict[str, LeftAlone]]:
    """Bisects groups that fail together down to single ones, by one cut each."""
    problem = trial.problem(groups, 1)
    if problem is None:
        return list(groups), {}
    if len(groups) == 1:
        return [], {groups[0].name: LeftAlone(groups[0].layers, problem)}
    middle = len(groups) // 2
    (first, failed_first), (second, failed_second) = (
        _bisected(trial, groups[:middle]),
        _bisected(trial, groups[middle:]),
    )
    return first + second, failed_first | failed_second


def _one_by_one(
    trial: "Trial", groups: Sequence[Group], known: Sequence[Group]
) -> tuple[list[Group], dict[str, LeftAlone]]:
    """Adds one group at a time to those that can be cut together."""
    good: list[Group] = []
    failed: dict[str, LeftAlone] = {}
    for group in groups:
        problem = trial.problem([*known, *good, group])
        if problem is None:
            good.append(group)
        else:
            failed[group.name] = LeftAlone(group.layers, problem)
    return good, failed


class Trial:
    """A copy of a network with random weights, so that every channel has an effect: a wrong dependency would not show else.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(0)
        self._module = copy.deepcopy(module).eval()
        _randomize(self._module, generator)
        self._inputs, self._tolerance = noise_for(module, input_shape, 2, generator), SINGLE_TOLERANCE
        try:
            self._module.double()
            self._run(self._module, self._inputs.double())
            self._inputs, self._tolerance = self._inputs.double(), TOLERANCE
        except Exception:  # the network only runs in single precision
            self._module.float()

    def problem(self, groups: Sequence[Group], n_cuts: int = 3) -> str | None:
        """Cuts one channel of each group, then each half; returns the reason of a failure, or None.

        Args:
            groups: The groups.
            n_cuts: How many of the three cuts are tried.
        """
        rng = np.random.default_rng(0)
        orders = {group.name: rng.permutation(group.n_channels) for group in groups}
        halves = {name: np.array_split(order, 2) for name, order in orders.items()}
        trials: list[Kept] = [
            {name: order[1:] for name, order in orders.items()},
            {name: half[0] for name, half in halves.items()},
            {name: half[1] for name, half in halves.items()},
        ]
        problems = (self._difference(groups, kept) for kept in trials[:n_cuts])
        return next((problem for problem in problems if problem), None)

    def _difference(self, groups: Sequence[Group], kept: Kept) -> str | None:
        try:
            got = self._run(cut(self._module, groups, kept), self._inputs)
        except Exception:  # networks whose shapes do not match raise anything
            return CRASHES
        expected = self._run(silenced(self._module, groups, kept), self._inputs)
        tolerance = max(self._tolerance, RESCALED_TOLERANCE * any(group.rescaled for group in groups))
        same = all(
            a.shape == b.shape and float((a - b).abs().max()) <= tolerance * float(b.abs().max())
            for a, b in zip(got, expected, strict=True)
        )
        return None if same else DIFFERS

    @staticmethod
    def _run(module: nn.Module, inputs: Tensor) -> list[Tensor]:
        with torch.no_grad(), _WithoutStatistics():  # type: ignore[no-untyped-call] # torch's is untyped
            return tensors_of(module(inputs))


class _WithoutStatistics(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's is untyped
    """Layers that normalize over channels only scale and shift them.

    A cut changes the statistics that these layers compute, as any pruning of such networks does. Whether channels and parameters
    correspond shows without them.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.native_layer_norm.default and args[2] is not None:
            return _affine(args[0], args[2], args[3], args[2].shape), *out[1:]
        if func is torch.ops.aten.native_group_norm.default and args[1] is not None:
            return _affine(args[0], args[1], args[2], (-1, *[1] * (args[0].ndim - 2))), *out[1:]
        return out


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    y = x * weight.reshape(tuple(shape))
    return y if bias is None else y + bias.reshape(tuple(shape))


def _randomize(module: nn.Module, generator: torch.Generator) -> None:
    """Draws weights that preserve a signal's variance (He et al. 2015, arXiv 1502.01852)."""

    def draw(tensor: Tensor | None, mean: float, spread: float) -> None:
        if tensor is not None:
            noise = torch.rand(tensor.shape, generator=generator) - 0.5
            tensor.detach().copy_(mean + 2 * spread * noise)

    for part in module.modules():
        norm = isinstance(part, _NormBase | nn.LayerNorm | nn.GroupNorm)
        for name, tensor in part._parameters.items():
            if tensor is None or not tensor.is_floating_point():
                continue
            if name.startswith("bias"):
                draw(tensor, 0.0, 0.5 if norm else 0.1)
            elif norm or tensor.numel() == max(tensor.shape, default=1):  # a factor for each channel
                draw(tensor, 1.0, 0.5)
            else:
                fan_in = tensor[:, 0].numel() if isinstance(part, _ConvTransposeNd) else tensor[0].numel()
                draw(tensor, 0.0, (6 / max(fan_in, 1)) ** 0.5)
        if isinstance(part, _NormBase):
            draw(part.running_var, 1.0, 0.5)
            draw(part.running_mean, 0.0, 0.5)
