"""Weights of layers: how they are named, and the sizes of modules that are made of them."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from spaces.pruning.groups.derived import layer_of, weight_of

RECURRENT = nn.RNNBase | nn.RNNCellBase
LAYERS = _ConvNd | nn.Linear | RECURRENT
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def weight_name(modules: Mapping[str, nn.Module], name: str) -> str:
    """Returns the name of the weight that a parameter belongs to: that of its convolution or linear layer, else its own.

    Args:
        modules: All modules of the network.
        name: Name of the parameter.
    """
    owner = layer_of(name)
    return f"{owner}.weight" if isinstance(modules[owner], _ConvNd | nn.Linear) else name


def layer_weights(module: nn.Module) -> dict[str, nn.Module]:
    """Returns the modules with weights that torch knows as such, by name of the weight, in the order of the state dict.

    These are convolutions, linear layers and recurrent layers, which have several.
    """
    found: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(part, _ConvNd | nn.Linear):
            found[f"{prefix}weight"] = part
        elif isinstance(part, RECURRENT):
            found |= {f"{prefix}{leaf}": part for leaf in part._parameters if leaf.startswith("weight")}
    return found


def is_projection(part: nn.Module, name: str) -> bool:
    """Whether a parameter of a module is the weight by which an LSTM projects its hidden units."""
    return isinstance(part, nn.RNNBase) and name.rpartition(".")[2].startswith("weight_hr")


def n_outputs(part: nn.Module, name: str) -> int:
    """Returns how many output channels a weight of `layer_weights` has; of a recurrent layer, its units, not its gates."""
    if isinstance(part, nn.Linear):
        return part.out_features
    if isinstance(part, _ConvNd):
        return part.out_channels
    return cast(int, part.proj_size if is_projection(part, name) else part.hidden_size)


def update_sizes(part: nn.Module) -> None:
    """Updates a module's attributes, e.g. `out_features`, to the shapes of its parameters."""
    if isinstance(part, _ConvNd):
        _update_convolution(part)
    elif isinstance(part, nn.Linear):
        part.out_features, part.in_features = weight_of(part).shape
    elif isinstance(part, nn.LayerNorm | nn.RMSNorm):
        part.normalized_shape = tuple(part.weight.shape)
    elif isinstance(part, nn.GroupNorm):
        per_channel = part.num_groups == part.num_channels
        part.num_channels = len(part.weight)
        part.num_groups = part.num_channels if per_channel else part.num_groups
    elif isinstance(part, _NormBase):
        sizes = [len(t) for t in (part.running_mean, part.weight) if t is not None]
        part.num_features = sizes[0]
    elif isinstance(part, nn.PReLU):
        part.num_parameters = len(part.weight)
    elif isinstance(part, nn.RNNBase):
        inputs, hidden = cast(Tensor, part.weight_ih_l0), cast(Tensor, part.weight_hh_l0)
        part.input_size, part.hidden_size = inputs.shape[1], len(hidden) // GATES[part.mode]
        part.proj_size = hidden.shape[1] if part.proj_size else 0
    elif isinstance(part, nn.RNNCellBase):
        part.input_size, part.hidden_size = part.weight_ih.shape[1], part.weight_hh.shape[1]


def _update_convolution(part: _ConvNd) -> None:
    first, second = weight_of(part).shape[:2]
    depthwise = part.groups > 1 and part.groups == part.in_channels
    if isinstance(part, _ConvTransposeNd):
        part.groups = first if depthwise else part.groups
        part.in_channels, part.out_channels = first, second * part.groups
    else:
        per_group = part.out_channels // part.groups
        part.groups = first // per_group if depthwise else part.groups
        part.in_channels, part.out_channels = second * part.groups, first
