"""Scales a layer's remaining inputs after a cut to approximate its dense output, by ridge regression.

In the spirit of COMP's mask tuning. For a layer `Y = W X` of the dense network, with `W_S` and `X_S` the
weights and inputs that remain after the cut, the scales m minimise
`||Y - W_S diag(m) X_S||^2 + ridge * ||m - 1||^2`. With `y_i` the part of the output that comes from input
channel i, `G_ij = <y_i, y_j>` and `b_i = <y_i, Y>`, the solution is given by `(G + ridge) (m - 1) = b - G 1`.
For a linear layer `G = (W_S^T W_S) * (X_S X_S^T)`, element by element; for a convolution the same, summed
over pairs of kernel elements. The problem is convex and `m = 1` is feasible, so no layer's error on the
examples rises.

The tuned outputs approximate those of the dense network, which its BatchNorm statistics describe. If the
statistics are re-estimated afterwards, they scale shrunken outputs up again, which undoes part of the tuning.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spaces.errors import StageError
from spaces.pruning.groups.columns import Layer, columns, is_dense, rows, weight_matrix
from spaces.pruning.groups.hooks import hooked

MOST_BYTES = 2**28  # of the dense layers' outputs that are held at a time
MOST_COLUMN_BYTES = 2**26  # of a layer's columns that are held at a time
BATCH_SIZE = 32  # of the dense network's forward passes


class Tuned(NamedTuple):
    """Mean squared error between a layer's output and the dense network's, over the examples, before and after."""

    before_mse: float
    after_mse: float


def tune_masks(
    dense: nn.Module,
    cut: nn.Module,
    kept_outputs: Mapping[str, NDArray[Any]],
    inputs: Tensor,
    ridge: float = 1e-3,
    scaled: Collection[str] = (),
) -> dict[str, Tuned]:
    """Scales, in place, the weights of every layer of `cut` that takes fewer channels than it does in `dense`.

    Layers are tuned in execution order, so that each gets the outputs of the tuned layers before it.
    Depthwise and other grouped convolutions are not tuned, nor is a layer that runs more than once, whose weight is made of other
    parameters, or whose inputs are fewer than before along another axis too (the tokens of a mixer's channels).

    Args:
        dense: The network before the cut, in eval mode.
        cut: The network after it, in eval mode, with the same names.
        kept_outputs: For each layer with fewer outputs than before, by name of its weight: the indices of the
            remaining outputs, `(n_out,)` integers in their present order. Entries for other layers are
            ignored.
        inputs: `(n, *input.shape)` float32. They go through `cut` in one batch.
        ridge: Penalty on the distance of scales from 1, in units of the mean of G's diagonal; above 0.
        scaled: Weights that a cut scaled on purpose, by name; they are not tuned.

    Returns:
        The errors, by name of the layer's weight, in execution order.

    Raises:
        StageError: `ridge` is not above 0, a layer's outputs do not fit `kept_outputs`, or a value is not finite.
    """
    if not 0 < ridge < float("inf"):
        raise StageError(f"the ridge of mask tuning must be above 0, not {ridge}")
    pairs = {name: pair for name, pair in _consumers(dense, cut).items() if name not in scaled}
    errors: dict[str, Tuned] = {}
    with torch.no_grad():
        for names in _portions(_output_bytes(dense, pairs, inputs)):
            portion = {name: pairs[name] for name in names}
            targets = _targets(dense, portion, kept_outputs, inputs)
            errors |= _tune(cut, portion, targets, inputs, ridge)
    return errors


def fit_mask(layer: Layer, x: Tensor, target: Tensor, ridge: float) -> tuple[Tensor, Tuned]:
    """Returns the scales of a layer's input channels, `(n_in,)` float64, and the errors without and with them.

    Args:
        layer: A layer for which `columns.is_dense` holds.
        x: Its input in the cut network.
        target: The output to approximate.
        ridge: As in `tune_masks`.
    """
    gram, projections, power = _normal_equations(layer, x, target)
    ones = torch.ones_like(projections)
    system = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    mask = ones.clone()
    if 0 < gram.diagonal().sum() < float("inf"):
        mask += torch.linalg.solve(system, projections - gram @ ones)
    errors = [float(power - 2 * m @ projections + m @ gram @ m) / target.numel() for m in (ones, mask)]
    before, after = (max(error, 0.0) for error in errors)
    # Where scaling does not help, rounding may make the error slightly larger.
    return (mask, Tuned(before, after)) if after < before else (ones, Tuned(before, before))


def _normal_equations(layer: Layer, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns `<y_i, y_j>` as `(n_in, n_in)`, `<y_i, target - bias>` as `(n_in,)` and `||target - bias||^2`."""
    weight, n_in = weight_matrix(layer), layer.weight.shape[1]
    gram = weight.new_zeros(weight.shape[1], weight.shape[1])
    cross, power = torch.zeros_like(weight), weight.new_zeros(())
    bias = 0.0 if layer.bias is None else layer.bias.detach().double()[:, None]
    n_positions = target[0].numel() // len(weight)
    n_at_once = max(1, MOST_COLUMN_BYTES // (8 * n_positions * weight.shape[1]))
    for x_part, target_part in zip(torch.split(x, n_at_once), torch.split(target, n_at_once), strict=True):
        inputs, outputs = columns(layer, x_part).double(), rows(layer, target_part).double() - bias
        gram += inputs @ inputs.T
        cross += outputs @ inputs.T
        power += outputs.square().sum()
    by_kernel = (weight.T @ weight * gram).reshape(n_in, -1, n_in, weight.shape[1] // n_in)
    return by_kernel.sum(dim=(1, 3)), (weight * cross).sum(dim=0).reshape(n_in, -1).sum(dim=1), power


def _tune(
    cut: nn.Module,
    pairs: Mapping[str, tuple[Layer, Layer]],
    targets: Mapping[str, Tensor],
    inputs: Tensor,
    ridge: float,
) -> dict[str, Tuned]:
    """Runs the cut network once; each layer is tuned just before it runs."""
    errors = {}

    def tune(name: str, x: Tensor) -> None:
        layer = pairs[name][1]
        if isinstance(layer, nn.Linear) and x.shape[:-1] != targets[name].shape[:-1]:
            return
        mask, errors[name] = fit_mask(layer, x, targets[name], ridge)
        if not (torch.isfinite(mask).all() and torch.isfinite(torch.tensor(errors[name])).all()):
            raise StageError(f"mask tuning: inputs, weights or target outputs of {name} are not finite")
        layer.weight.mul_(mask.to(layer.weight.dtype).reshape(1, -1, *[1] * (layer.weight.ndim - 2)))

    with hooked({name: pair[1] for name, pair in pairs.items()}, before=tune):
        cut(inputs)
    return errors


def _consumers(dense: nn.Module, cut: nn.Module) -> dict[str, tuple[Layer, Layer]]:
    """Returns `(dense layer, cut layer)`, by name of the weight, of layers that lost input channels."""
    before, pairs = dict(dense.named_modules()), {}
    for name, module in cut.named_modules():
        if is_dense(module) and name in before and "weight" in module._parameters:
            old, new = cast(Layer, before[name]), cast(Layer, module)
            if new.weight.shape[1] < old.weight.shape[1]:
                pairs[f"{name}.weight"] = (old, new)
    return pairs


def _output_bytes(
    dense: nn.Module, pairs: Mapping[str, tuple[Layer, Layer]], inputs: Tensor
) -> dict[str, int]:
    """Returns the bytes of each layer's outputs for all inputs, in execution order, if it runs once."""
    sizes: dict[str, list[int]] = {}

    def record(name: str, y: Tensor) -> None:
        sizes.setdefault(name, []).append(y.numel() * y.element_size() * len(inputs))

    with hooked({name: pair[0] for name, pair in pairs.items()}, after=record):
        dense(inputs[:1])
    return {name: n_bytes[0] for name, n_bytes in sizes.items() if len(n_bytes) == 1}


def _portions(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yields the names in order, as many at a time as fit into `MOST_BYTES`, at least one."""
    portion: list[str] = []
    for name, size in sizes.items():
        if portion and sum(sizes[n] for n in portion) + size > MOST_BYTES:
            yield portion
            portion = []
        portion.append(name)
    if portion:
        yield portion


def _targets(
    dense: nn.Module,
    pairs: Mapping[str, tuple[Layer, Layer]],
    kept_outputs: Mapping[str, NDArray[Any]],
    inputs: Tensor,
) -> dict[str, Tensor]:
    """Returns the outputs of each dense layer, reduced to those that remain after the cut."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in pairs}
    kept = {name: _kept(name, *pair, kept_outputs) for name, pair in pairs.items()}

    def keep(name: str, y: Tensor) -> None:
        axis = -1 if isinstance(pairs[name][0], nn.Linear) else 1
        outputs[name].append(y.index_select(axis, kept[name]))

    with hooked({name: pair[0] for name, pair in pairs.items()}, after=keep):
        for batch in torch.split(inputs, BATCH_SIZE):
            dense(batch)
    return {name: torch.cat(parts) for name, parts in outputs.items()}


def _kept(name: str, old: Layer, new: Layer, kept_outputs: Mapping[str, NDArray[Any]]) -> Tensor:
    n_old, n_new = len(old.weight), len(new.weight)
    if n_old == n_new:
        return torch.arange(n_old)
    kept = kept_outputs.get(name)
    if kept is None or len(kept) != n_new:
        raise StageError(
            f"mask tuning: {name} has {n_new} of {n_old} outputs left, but "
            f"kept_outputs lists {'none' if kept is None else len(kept)} for it"
        )
    return torch.as_tensor(kept, dtype=torch.int64)
