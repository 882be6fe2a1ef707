"""Runs networks by plain operations: no fused kernel hides the products in attention and recurrent layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def decomposed(module: nn.Module) -> Iterator[None]:
    """Within the block, attention and recurrent layers of a network call matrix products, without gradients."""
    mkldnn: Any = torch.backends.mkldnn  # the type of its switch is torch's own
    fast, fused = mha.get_fastpath_enabled(), mkldnn.enabled
    mha.set_fastpath_enabled(False)
    if any(isinstance(part, nn.RNNBase) for part in module.modules()):  # convolutions are slower without
        mkldnn.enabled = False
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fast)
        mkldnn.enabled = fused
