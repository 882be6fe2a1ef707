"""Tunes the quantized network as a whole: integers of weights, scales, biases and step sizes, so that its outputs come close to the float network's.

What layers or blocks that are rounded one after another cannot repair is what their errors do together at the output. No labels are
needed: the loss is the divergence from the float network's outputs (knowledge distillation). Gradients pass the rounding of weights as if
it were not there (straight-through; Bengio et al., arXiv 1308.3432, section 4), and reach scales as in LSQ (Esser et al., arXiv 1902.08153, equation 3).
A weight's integer changes where its latent value crosses the middle between two integers.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.quantization.rounding.grids import TorchGrid, bounded
from spaces.quantization.rounding.unit import Unit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

POSITIONS = 2048  # outputs of a step: examples, times the positions of each, such as tokens
MOST_EXAMPLES = 32
HELD_OUT = 8  # one of so many examples is held out, to judge whether tuning helped
JUDGED_STEPS = 16  # at most as many examples as so many steps see judge it
WEIGHT_RATE = 0.004  # of latent values, in steps of their grid
SCALE_RATE = 0.002  # relative
BIAS_RATE = 0.002  # relative to the root mean square of a bias
WARM_UP = 20  # steps
OFFSET = 0.45  # steps from an integer to the latent value that a weight starts with, at most


@dataclass(frozen=True)
class Tuning:
    """Settings.

    Attributes:
        steps: Number of steps.
        output: Name of the output that is compared.
        class_axis: Its axis of classes; None if it is no logits.
    """

    steps: int
    output: str
    class_axis: int | None

    @property
    def key(self) -> tuple[object, ...]:
        """What the result depends on."""
        return (
            "tuning", self.steps, self.output, self.class_axis, POSITIONS, MOST_EXAMPLES, WEIGHT_RATE, SCALE_RATE, BIAS_RATE,
        )  # fmt: skip

    def solve(self, unit: Unit) -> None:
        """Tunes a unit that is the whole network, unless its outputs get farther from the float network's on examples held out."""
        known, before = unit.quantized, self.loss(unit)
        kept = known.tables()
        _Run(self, unit).solve()
        if not self.loss(unit) <= before:
            known.restore(kept)

    def loss(self, unit: Unit) -> float:
        """Returns the mean divergence of the unit's outputs on the examples held out."""
        import torch

        size, found = self.n_examples(unit), []
        with torch.no_grad():
            first = self.n_trained(unit) % unit.n_examples
            for start in range(first, min(unit.n_examples, first + JUDGED_STEPS * size), size):
                batch = {name: value[start : start + size] for name, value in unit.inputs.items()}
                found.append(float(self.divergence(unit.run(batch)[self.output], self.target(unit, batch))))
        return sum(found) / len(found)

    def n_trained(self, unit: Unit) -> int:
        """Returns the number of examples that are trained on, the first ones; all if there are few."""
        return unit.n_examples - unit.n_examples // HELD_OUT

    def n_examples(self, unit: Unit) -> int:
        """Returns the examples of a step."""
        target = self.target(unit, {t: x[:2] for t, x in unit.inputs.items()})
        n_classes = 1 if self.class_axis is None else target.shape[self.class_axis]
        n_positions = target[0].numel() // n_classes
        return min(max(1, POSITIONS // max(n_positions, 1)), MOST_EXAMPLES, self.n_trained(unit))

    def target(self, unit: Unit, inputs: "dict[str, Tensor]") -> "Tensor":
        """Returns the float network's outputs."""
        import torch

        with torch.no_grad():
            return unit.graph.run(unit.segment.nodes, {**unit.static, **inputs})[self.output]

    def divergence(self, made: "Tensor", target: "Tensor") -> "Tensor":
        """Returns how far outputs are from the float network's, a scalar."""
        from spaces.models.torch.distillation import distillation_loss

        return distillation_loss(made, target, 1.0, self.class_axis)


class _Run:
    def __init__(self, settings: Tuning, unit: Unit) -> None:
        import torch

        self._settings, self._unit, known = settings, unit, unit.quantized
        self._n_examples = settings.n_examples(unit)
        self._device = next(iter(unit.inputs.values())).device
        self._generator = torch.Generator(self._device).manual_seed(unit.seed)
        self._layers = {
            x.name: _Weight(
                known.weights[x.name], unit.floats[x.name], known.grids[x.name], known.fixed_scales
            )
            for x in unit.layers
        }
        self._biases = unit.learnable_biases()
        self._factors = {
            t: torch.zeros((), device=self._device).requires_grad_() for t in unit.narrow_activations()
        }

    def solve(self) -> None:
        steps, optimizer = self._settings.steps, self._optimizer()
        rates = [group["lr"] for group in optimizer.param_groups]
        for step in range(steps):
            share = min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            optimizer.zero_grad()
            self._loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self._write()

    def _optimizer(self) -> "torch.optim.Optimizer":
        import torch

        layers = self._layers.values()
        groups = [
            {"params": [x.latent for x in layers], "lr": WEIGHT_RATE},
            {"params": [x.factor for x in layers if x.factor.requires_grad], "lr": SCALE_RATE},
            {"params": list(self._factors.values()), "lr": SCALE_RATE},
            *(
                {"params": [bias], "lr": BIAS_RATE * max(float(bias.detach().square().mean()) ** 0.5, 1e-6)}
                for bias in self._biases.values()
            ),
        ]
        return torch.optim.Adam([group for group in groups if group["params"]], betas=(0.9, 0.99))

    def _loss(self) -> "Tensor":
        import torch

        unit = self._unit
        rows = torch.randint(
            self._settings.n_trained(unit),
            (self._n_examples,),
            device=self._device,
            generator=self._generator,
        )
        inputs = {t: value[rows] for t, value in unit.inputs.items()}
        weights = {name: x.weight() for name, x in self._layers.items()}
        made = unit.run(inputs, {**weights, **self._biases}, self._quantize)[self._settings.output]
        return self._settings.divergence(made, self._settings.target(unit, inputs))

    def _quantize(self, grid: TorchGrid, values: "Tensor", name: str) -> "Tensor":
        factor = self._factors.get(name)
        return grid.straight_through(values, None if factor is None else grid.scale * bounded(factor))

    def _write(self) -> None:
        import torch

        known = self._unit.quantized
        with torch.no_grad():
            for name, layer in self._layers.items():
                known.grids[name] = layer.grid()
                known.weights[name] = layer.weight()
            known.biases.update({name: bias.detach() for name, bias in self._biases.items()})
            for name, factor in self._factors.items():
                grid = known.activations[name]
                known.activations[name] = grid.with_scale(grid.scale * bounded(factor.detach()))


class _Weight:
    """A weight that is learned: a latent value for each integer, and the logarithm of a factor for each scale."""

    def __init__(self, weight: "Tensor", floats: "Tensor", grid: TorchGrid, fixed_scale: bool) -> None:
        import torch

        self._grid = grid
        # within its integer's interval, a weight starts on the side of its float value
        offset = ((floats - weight) / grid.scale).clamp(-OFFSET, OFFSET)
        self.latent: Tensor = (weight / grid.scale + offset).clone().requires_grad_()
        self.factor: Tensor = torch.zeros_like(grid.scale).requires_grad_(not fixed_scale)

    def weight(self) -> "Tensor":
        """Returns the weight on its grid."""
        grid = self._grid
        steps = (self.latent + grid.zero).clamp(grid.low - OFFSET, grid.high + OFFSET)
        integers = steps + (steps.round() - steps).detach()
        return (integers - grid.zero) * grid.scale * bounded(self.factor)

    def grid(self) -> TorchGrid:
        """Returns the grid."""
        return self._grid.with_scale((self._grid.scale * bounded(self.factor)).detach())
