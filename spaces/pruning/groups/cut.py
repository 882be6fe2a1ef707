"""Builds the cut network: removes channels from every parameter that contains them."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spaces.errors import StageError
from spaces.pruning.groups.derived import keep_weight, layer_of, weight_normed
from spaces.pruning.groups.group import Group, SizeAttribute, Slice
from spaces.pruning.groups.weights import layer_weights, n_outputs, update_sizes
from spaces.pruning.tracing.channel_map import ChannelMap
from spaces.stages.module_identity import tensors_of

INNER, COLUMNS = 2, 3  # axes of a product
Indices: TypeAlias = NDArray[np.int64]
Kept: TypeAlias = Mapping[str, Indices]
"""By name of the group, the channels that are kept; a group that is not named is kept whole."""


def cut(module: nn.Module, groups: Sequence[Group], kept: Kept) -> nn.Module:
    """Returns a smaller copy of a network, without the channels that are not kept.

    Up to rounding, its outputs are those of `silenced`, in which the weights on the removed channels are 0.

    Args:
        module: The network; stays as it is.
        groups: Its groups, or some of them.
        kept: The channels to keep, at least one a group.

    Raises:
        StageError: No channel of a group is kept, or an index is out of range.
    """
    smaller = copy.deepcopy(module)
    removed = _removed(groups, kept)
    for group in groups:
        if group.rescaled and len(removed[group.name]):
            _rescale(smaller, group, 1 - len(removed[group.name]) / group.n_channels)
    axes: dict[tuple[str, int], list[Indices]] = {}
    for group in groups:
        for part in group.slices:
            axes.setdefault((part.name, part.axis), []).append(part.rows[removed[group.name]].reshape(-1))
    touched = set()
    for (name, axis), rows in axes.items():
        if lost := np.unique(np.concatenate(rows)).tolist():
            _shrink(smaller, name, axis, set(lost))
            touched.add(layer_of(name))
    for name in touched:
        update_sizes(smaller.get_submodule(name))
    _keep_weights(module, smaller, touched, axes)
    _update_pass_throughs(smaller, groups, removed)
    for group in groups:
        for size in group.sizes:
            _lower(smaller.get_submodule(size.module), size, size.per_channel * len(removed[group.name]))
    return smaller


def _lower(owner: nn.Module, size: SizeAttribute, by: int) -> None:
    value = getattr(owner, size.name)
    if size.index is not None:
        items = [item - by * (at == size.index) for at, item in enumerate(value)]
        setattr(owner, size.name, type(value)(items))
    else:
        setattr(owner, size.name, value - by)


def _rescale(module: nn.Module, group: Group, left: float) -> None:
    """Scales the slices of a group by the powers that they have of the share of its channels that is left."""
    state = tensors_of(module)
    for part in (part for part in group.slices if part.power):
        rows, tensor = torch.from_numpy(part.rows.reshape(-1)), state[part.name]
        tensor.index_copy_(part.axis, rows, tensor.index_select(part.axis, rows) * left**part.power)


def silenced(module: nn.Module, groups: Sequence[Group], kept: Kept) -> nn.Module:
    """Returns a copy of a network in which the weights on the channels that are not kept are 0.

    So are those that make these channels where they end in a product of two activations.
    """
    masked = copy.deepcopy(module)
    removed = _removed(groups, kept)
    state = tensors_of(masked)
    for group in groups:
        roles = ("in", "out") if any(part.axis == INNER for part in group.products) else ("in",)
        for part in group.slices:
            if part.role in roles:
                rows = torch.from_numpy(part.rows[removed[group.name]].reshape(-1))
                _silence(masked, state, part, rows)
    return masked


def _silence(module: nn.Module, state: Mapping[str, torch.Tensor], part: Slice, rows: torch.Tensor) -> None:
    normed = weight_normed(dict(module.named_modules()), layer_of(part.name))
    if normed is None or part.name != normed.v:
        state[part.name].index_fill_(part.axis, rows, 0.0)
    elif part.axis == normed.dim:
        state[normed.g].index_fill_(part.axis, rows, 0.0)
    else:
        norms = torch.norm_except_dim(state[normed.v], 2, normed.dim)
        state[normed.v].index_fill_(part.axis, rows, 0.0)
        keep_weight(normed, state, norms)


def kept_outputs(module: nn.Module, groups: Sequence[Group], kept: Kept) -> dict[str, Indices]:
    """Returns the remaining outputs of each layer that loses some, ascending, by name of its weight.

    Args:
        module: The network before the cut.
        groups: Its groups.
        kept: The channels to keep.
    """
    removed, state = _removed(groups, kept), tensors_of(module)
    parts: dict[str, list[Indices]] = {}
    sizes: dict[str, int] = {}
    for group in groups:
        for part in (s for s in group.slices if s.role == "out" and s.name in group.layers):
            parts.setdefault(part.name, []).append(part.rows[removed[group.name]].reshape(-1))
            sizes[part.name] = state[part.name].shape[part.axis]
    lost = {name: np.concatenate(rows) for name, rows in parts.items()}
    return {n: np.setdiff1d(np.arange(sizes[n]), rows) for n, rows in lost.items() if rows.size}


def widths(module: nn.Module) -> dict[str, int]:
    """Returns how many output channels each convolution, linear and recurrent layer has, by name of its weight."""
    return {name: n_outputs(part, name) for name, part in layer_weights(module).items()}


def _removed(groups: Sequence[Group], kept: Kept) -> dict[str, Indices]:
    removed = {}
    for group in groups:
        everything = np.arange(group.n_channels)
        chosen = np.asarray(kept.get(group.name, everything), np.int64)
        if not chosen.size:
            raise StageError(f"a cut must leave at least one output channel of {', '.join(group.layers)}")
        if chosen.min() < 0 or chosen.max() >= group.n_channels:
            raise StageError(
                f"{group.name} has the channels 0 to {group.n_channels - 1}, not {chosen.tolist()}"
            )
        removed[group.name] = np.setdiff1d(everything, chosen)
    return removed


def _shrink(module: nn.Module, name: str, axis: int, lost: set[int]) -> None:
    owner, _, leaf = name.rpartition(".")
    part = module.get_submodule(owner)
    old = cast(torch.Tensor, getattr(part, leaf))
    left = torch.tensor([i for i in range(old.shape[axis]) if i not in lost])
    new = old.detach().index_select(axis, left)
    if leaf in part._buffers:
        part._buffers[leaf] = new
    else:
        setattr(
            part, leaf, nn.Parameter(new, requires_grad=old.requires_grad)
        )  # a recurrent layer lists them, too


def _keep_weights(
    module: nn.Module,
    smaller: nn.Module,
    layers: Iterable[str],
    axes: Mapping[tuple[str, int], list[Indices]],
) -> None:
    """Weight norm divides by the norm of what is left: the factors make up for that."""
    modules, before, after = dict(module.named_modules()), tensors_of(module), tensors_of(smaller)
    for layer in layers:
        if (normed := weight_normed(modules, layer)) is None:
            continue
        norms = torch.norm_except_dim(before[normed.v], 2, normed.dim)
        lost = axes.get((normed.v, normed.dim), [])
        if lost:
            left = np.setdiff1d(np.arange(norms.shape[normed.dim]), np.concatenate(lost))
            norms = norms.index_select(normed.dim, torch.from_numpy(left))
        keep_weight(normed, after, norms)


def _update_pass_throughs(module: nn.Module, groups: Sequence[Group], removed: Mapping[str, Indices]) -> None:
    lost: dict[str, tuple[set[int], set[int]]] = {}
    widths: dict[str, tuple[int, int]] = {}
    for group in groups:
        for pass_through in group.pass_throughs:
            inputs, outputs = lost.setdefault(pass_through.name, (set(), set()))
            inputs.update(pass_through.inputs[removed[group.name]].reshape(-1).tolist())
            outputs.update(pass_through.outputs[removed[group.name]].reshape(-1).tolist())
            widths[pass_through.name] = (pass_through.n_inputs, pass_through.n_outputs)
    for name, sides in lost.items():
        kept = [[i for i in range(n) if i not in side] for n, side in zip(widths[name], sides, strict=True)]
        if any(sides):
            cast(ChannelMap, module.get_submodule(name)).keep_channels(kept[0], kept[1])
