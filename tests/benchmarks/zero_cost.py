"""Zero-cost proxies: figures of a network with random weights that may go with its quality after training."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Proxy = Callable[[nn.Module, Tensor, Tensor], float]
_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)
_NOISE = 0.01  # relative size of the disturbance of zen's inputs


def synflow(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Logarithm of the summed synaptic flow, `|weight * d(sum of outputs) / d(weight)|` (Tanaka et al. 2020, arXiv 2006.05467).

    Weights count by their absolute values and inputs are ones, so that no data decide it.
    """
    del labels
    probe = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.abs_()
    torch.autograd.backward(probe(torch.ones_like(inputs[:1], dtype=torch.float64)).sum())
    flows = (p.detach() * p.grad for p in probe.parameters() if p.grad is not None)
    return _log(sum(float(flow.abs().sum()) for flow in flows))


def gradient_norm(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Logarithm of the Euclidean norm of the loss's gradient (Abdelfattah et al. 2021, arXiv 2101.08134)."""
    probe = copy.deepcopy(network).train()
    torch.autograd.backward(functional.cross_entropy(probe(inputs), labels))
    grads = [p.grad.flatten() for p in probe.parameters() if p.grad is not None]
    return _log(float(torch.cat(grads).norm()))


def naswot(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Log-determinant of how many rectified units two examples have in common (Mellor et al. 2021, arXiv 2006.04647, eq. 2)."""
    del labels
    probe = copy.deepcopy(network).train()
    n = len(inputs)
    kernel = torch.zeros(n, n, dtype=torch.float64)

    def add(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        active = (args[0].detach().reshape(n, -1) > 0).double()
        kernel.add_(active @ active.T + (1 - active) @ (1 - active).T)

    with torch.no_grad(), _hooked(probe, add):
        probe(inputs)
    return float(torch.linalg.slogdet(kernel)[1])


def zen(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Zen-score: how much outputs before the last layer move with the inputs, BatchNorm's scaling undone (Lin et al. 2021, arXiv 2102.01063)."""
    del labels
    probe = copy.deepcopy(network).train()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(inputs.shape, generator=generator)
    features = _features(probe, noise)
    moved = _features(probe, noise + _NOISE * torch.randn(inputs.shape, generator=generator))
    scales = [
        0.5 * log(float(m.running_var.mean()) + 1e-12)
        for m in probe.modules()
        if isinstance(m, _BatchNorm) and m.running_var is not None
    ]
    return _log(float((features - moved).abs().mean())) + sum(scales)


PROXIES: dict[str, Proxy] = {"synflow": synflow, "gradient_norm": gradient_norm, "naswot": naswot, "zen": zen}


def _features(network: nn.Module, inputs: Tensor) -> Tensor:
    """Returns the inputs of the last linear layer, or the outputs if there is none."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    seen: list[Tensor] = []
    for norm in (m for m in network.modules() if isinstance(m, _BatchNorm)):
        norm.momentum = 1.0  # the variances of this batch
    with torch.no_grad():
        handle = (
            linear[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0])) if linear else None
        )
        outputs = network(inputs)
    if handle is not None:
        handle.remove()
    return seen[-1] if seen else outputs


@contextmanager
def _hooked(network: nn.Module, hook: Callable[[nn.Module, tuple[Tensor, ...]], None]) -> Iterator[None]:
    parts = [m for m in network.modules() if isinstance(m, _RECTIFIERS)]
    handles = [m.register_forward_pre_hook(hook) for m in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _log(value: float) -> float:
    return log(max(value, 1e-300))
