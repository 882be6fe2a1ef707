"""BatchNorm statistics of a network that was cut: re-estimated by forward passes, without labels or gradients.

What FedTiny's adaptive selection does before it ranks pruned networks: a cut shifts what goes into every later layer, and its
old mean and variance hide what the network can do.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spaces.pruning.groups.hooks import hooked

MOST_BYTES = 2**28  # of what one module yields for a batch


def reestimate_batch_norm(module: nn.Module, inputs: Tensor, batch_size: int | None = None) -> bool:
    """Sets, in place, each BatchNorm's mean and variance to those of what goes into it, over all examples.

    Every BatchNorm normalises by the statistics of its batch meanwhile, so that later ones see what they will see. With all
    examples in one batch the result is exact; otherwise the batches' statistics are pooled: exactly, too, but a later
    BatchNorm then sees each batch normalised by itself.

    Args:
        module: The network; weights and modes stay as they are.
        inputs: Examples `(n, *input.shape)`.
        batch_size: Most examples a batch; None takes as many as memory allows.

    Returns:
        Whether anything was set: not without a BatchNorm that keeps statistics, nor with less than two examples.
    """
    norms = batch_norms(module)
    if not norms or len(inputs) < 2:
        return False
    pooled = {name: _Pooled() for name in norms}
    with _at_work(module, norms), torch.no_grad():
        size = batch_size or _fitting(module, inputs)
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


def _store(part: _BatchNorm, found: "_Pooled") -> None:
    assert part.running_mean is not None
    assert part.running_var is not None
    part.running_mean.copy_(found.mean)
    part.running_var.copy_(found.variance)


@contextmanager
def _at_work(module: nn.Module, norms: Mapping[str, _BatchNorm]) -> Iterator[None]:
    """BatchNorms normalise by their batch, and store nothing; all else is in eval mode."""
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


def _fitting(module: nn.Module, inputs: Tensor) -> int:
    """Returns how many examples go through the network at once within `MOST_BYTES`."""
    largest = [inputs[0].nbytes]

    def note(_: str, y: Tensor) -> None:
        if isinstance(y, Tensor):
            largest.append(y.nbytes // 2)

    with hooked(dict(module.named_modules()), after=note):
        module(inputs[:2])
    return max(2, MOST_BYTES // max(largest))


def _batches(inputs: Tensor, batch_size: int) -> list[Tensor]:
    """Returns the examples in batches; a single one that is left over goes with those before it."""
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
        """The unbiased one, as torch keeps it."""
        return self._squares / (self.n - 1)
