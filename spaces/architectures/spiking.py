"""Spiking neurons as multi-level activations, and the energy of a network of them (Qiu et al. 2025, arXiv 2501.13492)."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

MAC_PJ, ACCUMULATE_PJ = 4.6, 0.9  # of float32 in 45 nm (Horowitz 2014)


class Spike(nn.Module):
    """The IE-LIF neuron: values become `round(clip(levels * x, 0, levels)) / levels` (eq. 9 and 10).

    Each is the number of binary spikes that it sends in `levels` steps of time, divided by the steps: see `unrolled`. Gradients
    pass where nothing is clipped.

    Args:
        levels: Steps of time; 1 is a binary neuron.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def extra_repr(self) -> str:
        """Returns the levels."""
        return str(self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the values, in 0..1."""
        clipped = (self.levels * x).clamp(0, self.levels)
        counts = torch.floor(clipped + 0.5)
        if not (torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()):
            counts = counts + (clipped - clipped.detach())  # adds exactly 0, with a gradient
        return counts / self.levels

    def unrolled(self, x: Tensor) -> Tensor:
        """Returns the binary spikes of every step, `(levels, *x.shape)`; their sum, divided by the levels, is the value."""
        counts = torch.floor((self.levels * x).clamp(0, self.levels) + 0.5)
        return torch.stack([(counts > step).to(x.dtype) for step in range(self.levels)])


class SpikeAttention(nn.Module):
    """Attention without a softmax: `q (k^T v) scale` for each head; the order makes it linear in the tokens."""

    def __init__(self, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale

    def extra_repr(self) -> str:
        """Returns the settings."""
        return f"{self.heads}, {self.scale}"

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Returns mixed values, `(n, width, tokens)`, as the queries, keys and values are."""
        q, k, v = (torch.unflatten(x, 1, (self.heads, -1)) for x in (q, k, v))
        return ((v @ k.transpose(2, 3) @ q) * self.scale).flatten(1, 2)

    def macs(self, q: Tensor) -> int:
        """Returns the multiply-accumulates of each of the two products, for one example."""
        width, tokens = q.shape[1:]
        return width * width // self.heads * tokens


@dataclass
class SpikeEnergy:
    """Counts of a run, for one example.

    Attributes:
        analogue_macs: Multiply-accumulates of layers whose inputs are no spikes.
        spiking_macs: Those of the other layers.
        accumulates: Accumulations that spikes cause: spikes per input value times multiply-accumulates, over all layers.
    """

    analogue_macs: float = 0.0
    spiking_macs: float = 0.0
    accumulates: float = 0.0

    @property
    def spikes_per_value(self) -> float:
        """Firing rate times steps of time, weighted by the multiply-accumulates."""
        return self.accumulates / self.spiking_macs if self.spiking_macs else 0.0

    @property
    def picojoules(self) -> float:
        """Energy of the spiking network: 4.6 pJ a multiply-accumulate, 0.9 pJ an accumulation."""
        return MAC_PJ * self.analogue_macs + ACCUMULATE_PJ * self.accumulates

    @property
    def dense_picojoules(self) -> float:
        """Energy of a network of the same layers without spikes. It is more exactly if `spikes_per_value` < 4.6 / 0.9."""
        return MAC_PJ * (self.analogue_macs + self.spiking_macs)


def spike_energy(network: nn.Module, inputs: Tensor) -> SpikeEnergy:
    """Runs a network of `Spike` neurons, convolutions, linear layers and `SpikeAttention`, and counts.

    Args:
        network: The network.
        inputs: A batch of examples.
    """
    made = SpikeEnergy()
    levels: dict[int, tuple[Tensor, int]] = {}  # outputs of neurons, kept so that no id is used twice

    def fired(module: nn.Module, _: object, outputs: Tensor) -> None:
        levels[id(outputs)] = (outputs, module.levels)  # type: ignore[assignment]

    def add(source: Tensor, macs: float) -> None:
        if id(source) not in levels:
            made.analogue_macs += macs
            return
        made.spiking_macs += macs
        made.accumulates += macs * levels[id(source)][1] * float(source.mean())

    def used(module: nn.Module, given: tuple[Tensor, ...], outputs: Tensor) -> None:
        if isinstance(module, SpikeAttention):
            for source in given[:2]:
                add(source, module.macs(given[0]))
            return
        weight = module.weight
        assert isinstance(weight, Tensor)
        add(given[0], prod(weight.shape[1:]) * outputs[0].numel())

    layers = (nn.Conv1d, nn.Conv2d, nn.Linear, SpikeAttention)
    hooks = [m.register_forward_hook(fired) for m in network.modules() if isinstance(m, Spike)]
    hooks += [m.register_forward_hook(used) for m in network.modules() if isinstance(m, layers)]
    try:
        with torch.no_grad():
            network.eval()(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return made
