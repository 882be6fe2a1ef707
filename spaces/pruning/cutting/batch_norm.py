"""Re-estimates the BatchNorm statistics of a cut network by forward passes, without labels or gradients.

As in FedTiny's adaptive BatchNorm selection: a cut shifts the inputs of every later layer, so that with the
old means and variances the network would be underrated.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spaces.pruning.groups.hooks import hooked

MOST_BYTES = 2**28  # of the largest output of a module for a batch


def reestimate_batch_norm(module: nn.Module, inputs: Tensor, batch_size: int | None = None) -> bool:
    """Sets, in place, each BatchNorm's mean and variance to those of its inputs over all examples.

    Meanwhile every BatchNorm normalises by the statistics of the batch, so that later ones get the inputs
    that they will get afterwards. With all examples in one batch the result is exact. Otherwise the
    statistics of batches are pooled, which is exact for given inputs, but a later BatchNorm then gets inputs
    that were normalised batch by batch.

    Args:
        module: The network; its weights and modes are unchanged.
        inputs: Examples `(n, *input.shape)`.
        batch_size: Examples per batch at most; None for as many as `MOST_BYTES` allows.

    Returns:
        Whether statistics were set: False without a BatchNorm that keeps statistics, or with fewer than two
        examples.
    """
    norms = batch_norms(module)
    if not norms or len(inputs) < 2:
        return False
    pooled = {name: _Pooled() for name in norms}
    with _normalising_by_batch(module, norms), torch.no_grad():
        size = batch_size or _batch_size_in_memory(module, inputs)
        with hooked(norms, before=lambda name, x: pooled[name].add(x)):
            for batch in _batches(inputs, max(size, 2)):
                module(batch)
        for name, part in norms.items():
            if pooled[name].n > 1:
                _store(part, pooled[name])
    return True


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Returns the BatchNorms that keep statistics, by name."""
    parts = module.named_modules()
    return {name: p for name, p in parts if isinstance(p, _BatchNorm) and p.running_mean is not None}


def _store(part: _BatchNorm, pooled: "_Pooled") -> None:
    assert part.running_mean is not None
    assert part.running_var is not None
    part.running_mean.copy_(pooled.mean)
    part.running_var.copy_(pooled.variance)


@contextmanager
def _normalising_by_batch(module: nn.Module, norms: Mapping[str, _BatchNorm]) -> Iterator[None]:
    """Makes BatchNorms normalise by the batch and keep their statistics; other modules are in eval mode."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    for norm in norms.values():
        norm.train()
        norm.track_running_stats = False
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        for norm in norms.values():
            norm.track_running_stats = True


def _batch_size_in_memory(module: nn.Module, inputs: Tensor) -> int:
    """Returns the largest batch size for which no module's output exceeds `MOST_BYTES`, at least 2."""
    example_bytes = [inputs[0].nbytes]

    def record(_: str, y: Tensor) -> None:
        if isinstance(y, Tensor):
            example_bytes.append(y.nbytes // 2)

    with hooked(dict(module.named_modules()), after=record):
        module(inputs[:2])
    return max(2, MOST_BYTES // max(example_bytes))


def _batches(inputs: Tensor, batch_size: int) -> list[Tensor]:
    """Returns the examples in batches; a last batch of one example is merged with the one before."""
    batches = list(torch.split(inputs, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


class _Pooled:
    """Mean and variance of each channel over all batches so far (Chan, Golub and LeVeque 1979, equation 2.1)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = torch.zeros(())
        self._squares = torch.zeros(())

    def add(self, x: Tensor) -> None:
        values = x.detach().double().transpose(0, 1).flatten(1)  # (n_channels, n_values)
        n, mean = values.shape[1], values.mean(dim=1)
        shift, total = mean - self.mean, self.n + n
        squares = (values - mean[:, None]).square().sum(dim=1)
        self._squares = self._squares + squares + shift.square() * (self.n * n / total)
        self.mean, self.n = self.mean + shift * (n / total), total

    @property
    def variance(self) -> Tensor:
        """The unbiased variance, as in torch's `running_var`."""
        return self._squares / (self.n - 1)
