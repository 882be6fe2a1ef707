"""Recomputes BatchNorm statistics with the weights at the end of an epoch.

"Precise BatchNorm" (Wu & Johnson 2021, arXiv 2105.07576, section 3): running averages cover about the last
ten steps, whose weights may differ a lot from the final ones at a high learning rate.
"""

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

EXAMPLES = 1024


def settle_batch_norm(module: nn.Module, batches: Iterable[Tensor], batch_size: int) -> None:
    """Sets, in place, the statistics of every BatchNorm in train mode to their mean over some batches.

    Args:
        module: The network, in the modes of the training.
        batches: Inputs `(b, *input.shape)`, augmented as in training; about the first 1,024 examples are
            used.
        batch_size: Examples per batch.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    with torch.no_grad():
        for inputs in islice(batches, max(1, EXAMPLES // batch_size)):
            module(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
