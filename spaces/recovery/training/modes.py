"""Modes of a network's modules in training: what is trained is what the network computes afterwards.

Some networks compute something else in train mode: GoogLeNet and Inception return the outputs of auxiliary heads, too,
which a cut does not know, as they are no part of the network in eval mode.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from spaces.stages.torch_outputs import tensors_of

_RUNS = 4  # that are compared, since two random ones can be equal by chance


def set_train_mode(module: nn.Module, whole: bool) -> None:
    """Sets train mode, except for BatchNorms whose parameters are all frozen: these keep statistics.

    Args:
        module: The network.
        whole: False leaves all but torch's own layers in eval mode.
    """
    module.train(whole)
    for part in module.modules():
        if not whole and _is_torchs(part):
            part.training = True
        own = list(part.parameters(recurse=False))
        if isinstance(part, _BatchNorm) and own and not any(p.requires_grad for p in own):
            part.eval()


def computes_the_same_in_training(module: nn.Module, inputs: Tensor) -> bool:
    """Whether a network computes in train mode what it does in eval mode, apart from torch's own layers.

    What is random in train mode, e.g. a stochastic depth, counts as the same if its outputs have the same shapes.

    Args:
        module: The network, on the CPU; left as it is.
        inputs: A few examples `(b, *input.shape)`.
    """
    probe = copy.deepcopy(module).eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # else what a network counts as depends on what was drawn before
        wanted = tensors_of(probe(inputs))
        probe.train()
        for part in probe.modules():
            if _is_torchs(part):
                part.training = False
        try:
            found, *again = (tensors_of(probe(inputs)) for _ in range(_RUNS))
        except Exception:  # whatever the network misses in train mode, e.g. labels
            return False
    if [t.shape for t in found] != [t.shape for t in wanted]:
        return False
    return _are_close(found, wanted) or not all(_are_close(found, other) for other in again)


def _are_close(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, 1e-4, 1e-5, equal_nan=True) for a, b in zip(some, others, strict=True))


def _is_torchs(part: nn.Module) -> bool:
    """Whether a module is one of torch's own, or a kind of its normalisations and dropouts."""
    return type(part).__module__.startswith("torch.nn.") or isinstance(part, _NormBase | _DropoutNd)
