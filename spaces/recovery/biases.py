"""Training of biases alone: the gradient of a bias needs no activation, so that layers with frozen weights store none (S2A, BitFit)."""

from collections.abc import Mapping

from torch import nn

from spaces.errors import StageError


def check_biases(module: nn.Module) -> None:
    """Checks that there are biases to train.

    Raises:
        StageError: There are none.
    """
    if not _biases(module):
        raise StageError(
            f"recover.tune=bias needs biases that can be trained, but {type(module).__name__} has none; tune=all trains all parameters"
        )


def only_biases(module: nn.Module) -> nn.Module:
    """Freezes, in place, all parameters but biases; returns the module.

    A bias is a parameter of one axis with `bias` in its own name, also of normalisations, attention and recurrent layers.
    """
    biases = _biases(module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in biases)
    return module


def tuned(module: nn.Module, original: nn.Module) -> nn.Module:
    """Makes the parameters of a trained module that were trainable in the original so again, in place; returns the module."""
    for parameter, before in zip(module.parameters(), original.parameters(), strict=True):
        parameter.requires_grad_(before.requires_grad)
    return module


def check_factors(module: nn.Module, factors: Mapping[str, float] | None) -> None:
    """Checks that factors on the learning rate leave something to train.

    Args:
        module: The network, with what is not trained frozen.
        factors: Factor by name of the parameter, 1 for the others; None for none.

    Raises:
        StageError: The factors of all that can be trained are 0.
    """
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    if factors is not None and not any(factors.get(name, 1.0) for name in trained):
        raise StageError(
            "recover.block_weights freezes every parameter that can be trained: with tune=bias, no block behind the first cut has a bias; "
            "block_weights=none or tune=all leaves some"
        )


def _biases(module: nn.Module) -> set[str]:
    return {
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.ndim == 1 and "bias" in name.rpartition(".")[2]
    }
