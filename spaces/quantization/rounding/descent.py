"""Learns which way each weight of a part is rounded, with biases and the step sizes of low-bit activations.

AdaRound (Nagel, Amjad, van Baalen, Louizos and Blankevoort, "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv
2004.10568): a weight is `scale * clip(floor(w / scale) + h(v), low, high)` with the rectified sigmoid `h(v) = clip(sigmoid(v) (zeta -
gamma) + gamma, 0, 1)` (equation 23), and `v` is learned so that the part's outputs come close to the float network's (equation 21); the
term `1 - |2 h(v) - 1|^beta` (equation 24) moves every `h(v)` to 0 or 1 while `beta` falls.

Unlike in the paper, it starts where `gptq` ends: its scales, and weights that make up for the errors of earlier layers instead of the float ones. Of
the two integers between which `v` decides one is that of `gptq`, which need not be next to the weight; the other one lies in the weight's direction.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.models.onnx.torch_graph.graph import Values
from spaces.quantization.rounding.gptq import Gptq
from spaces.quantization.rounding.grids import TorchGrid, bounded
from spaces.quantization.rounding.unit import Unit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ZETA, GAMMA = 1.1, -0.1
BATCH, LEAST_BATCH = 32, 4  # examples of a step
POSITIONS = (
    BATCH * 32 * 32
)  # outputs of each channel in a step: large images have many, and need fewer examples
ROUNDING_RATE = 0.03
STEP_RATE = 0.03  # of activations' step sizes, relative to the step size
BIAS_RATE = 0.03  # relative to the root mean square of the part's outputs
REGULARIZED_FROM = 0.2  # share of the steps that are done without the second term
REGULARIZATION = 0.01  # its weight, relative to the error at the nearest rounding being of the order of 1
BETA_FIRST, BETA_LAST = 20.0, 2.0
DROP = 0.5


@dataclass(frozen=True)
class Descent:
    """Settings.

    Attributes:
        steps: Number of steps.
        rounding_rate: Learning rate of `v`.
        scale_rate: Learning rate of the logarithms of weights' scales (LSQ, Esser et al., arXiv 1902.08153); 0 keeps the scales.
        drop: Probability with which an element of an activation of fewer than 8 bits is read unquantized in a step (QDrop, arXiv
            2203.05740).
    """

    steps: int
    rounding_rate: float = ROUNDING_RATE
    scale_rate: float = 0.0
    drop: float = DROP

    def solve(self, unit: Unit) -> None:
        """Rounds a part's weights: as `gptq` does, and then with gradients, unless outputs get farther from the float network's."""
        if not self.steps:
            return
        known, starts = unit.quantized, Gptq().rounded(unit)
        error, kept = unit.error(), known.tables()
        _Run(self, unit, starts).solve()
        if not unit.error() <= error:
            known.restore(kept)


class _Run:
    def __init__(self, settings: Descent, unit: Unit, starts: Values) -> None:
        import torch

        self._settings, self._unit, known = settings, unit, unit.quantized
        self._device = next(iter(unit.targets.values())).device
        self._generator = torch.Generator(self._device).manual_seed(unit.seed)
        learns_scales = bool(settings.scale_rate) and not known.fixed_scales
        self._rounding = {
            x.name: _Rounding(
                starts.get(x.name, unit.floats[x.name]),
                known.weights[x.name],
                known.grids[x.name],
                learns_scales,
            )
            for x in unit.layers
        }
        self._biases = unit.learnable_biases()
        self._scales = {
            t: torch.ones((), device=self._device).requires_grad_() for t in unit.narrow_activations()
        }
        n_positions = max(
            [y[0].numel() // y.shape[1] for y in unit.targets.values() if y.ndim > 1], default=1
        )
        self._n_examples = min(max(POSITIONS // n_positions, LEAST_BATCH), BATCH, unit.n_examples)
        self._squares = {t: (y**2).mean().clamp_min(1e-20) for t, y in unit.targets.items()}

    def solve(self) -> None:
        optimizer = self._optimizer()
        rates = [group["lr"] for group in optimizer.param_groups]
        for step in range(self._settings.steps):
            share = step / self._settings.steps
            for group, rate in zip(optimizer.param_groups[1:], rates[1:], strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * share))
            optimizer.zero_grad()
            self._loss(share).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self._write()

    def _optimizer(self) -> "torch.optim.Optimizer":
        import torch

        size = float(max(self._squares.values())) ** 0.5
        groups = [
            {"params": [r.v for r in self._rounding.values()], "lr": self._settings.rounding_rate},
            {"params": list(self._scales.values()), "lr": STEP_RATE},
            {"params": list(self._biases.values()), "lr": BIAS_RATE * size},
            {
                "params": [r.factor for r in self._rounding.values() if r.factor.requires_grad],
                "lr": self._settings.scale_rate,
            },
        ]
        return torch.optim.Adam([group for group in groups if group["params"]])

    def _loss(self, share: float) -> "Tensor":
        import torch

        unit = self._unit
        rows = torch.randint(
            unit.n_examples, (self._n_examples,), device=self._device, generator=self._generator
        )
        inputs = {t: value[rows] for t, value in unit.inputs.items()}
        weights = {name: r.soft() for name, r in self._rounding.items()}
        made = unit.run(inputs, {**weights, **self._biases}, self._quantize)
        error = torch.stack(
            [((made[t] - y[rows]) ** 2).mean() / self._squares[t] for t, y in unit.targets.items()]
        ).sum()
        if share < REGULARIZED_FROM:
            return error
        done = (share - REGULARIZED_FROM) / (1 - REGULARIZED_FROM)
        beta = BETA_LAST + (BETA_FIRST - BETA_LAST) * 0.5 * (1 + math.cos(math.pi * done))
        terms = [r.undecided(beta) for r in self._rounding.values()]
        n_weights = sum(r.v.numel() for r in self._rounding.values())
        return error + REGULARIZATION * torch.stack(terms).sum() / n_weights

    def _quantize(self, grid: TorchGrid, values: "Tensor", name: str) -> "Tensor":
        import torch

        scale = self._scales.get(name)
        found = grid.straight_through(values, None if scale is None else grid.scale * scale)
        if scale is None or not self._settings.drop:
            return found
        dropped = (
            torch.rand(values.shape, device=self._device, generator=self._generator) < self._settings.drop
        )
        return torch.where(dropped, values, found)

    def _write(self) -> None:
        import torch

        known = self._unit.quantized
        with torch.no_grad():
            known.weights.update({name: r.hard() for name, r in self._rounding.items()})
            known.grids.update({name: r.grid() for name, r in self._rounding.items()})
            known.biases.update({name: bias.detach() for name, bias in self._biases.items()})
            for name, factor in self._scales.items():
                grid = known.activations[name]
                known.activations[name] = grid.with_scale(grid.scale * factor.detach().abs().clamp_min(1e-3))


class _Rounding:
    """The rounding of one weight: between the integers that were found and those next to them in the direction of where it starts."""

    def __init__(self, start: "Tensor", found: "Tensor", grid: TorchGrid, learns_scale: bool) -> None:
        import torch

        steps, integers = start / grid.scale, (found / grid.scale).round()
        self._grid, self._floor = grid, torch.where(steps < integers, integers - 1, integers)
        rest = (steps - self._floor).clamp(0.01, 0.99)
        self.v: Tensor = (-torch.log((ZETA - GAMMA) / (rest - GAMMA) - 1)).requires_grad_()
        self.factor: Tensor = torch.zeros_like(grid.scale).requires_grad_(learns_scale)

    def _up(self) -> "Tensor":
        return (self.v.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def soft(self) -> "Tensor":
        """Returns the weight between its two roundings."""
        return self._at(self._up())

    def hard(self) -> "Tensor":
        """Returns the weight on its grid."""
        return self._at((self._up() > 0.5).float())

    def undecided(self, beta: float) -> "Tensor":
        """Returns the sum of equation 24."""
        distance = (2 * self._up() - 1).abs().clamp_min(1e-6)
        return (1 - distance.pow(beta)).sum()

    def _at(self, up: "Tensor") -> "Tensor":
        grid = self._grid
        integers = (self._floor + up + grid.zero).clamp(grid.low, grid.high)
        return (integers - grid.zero) * grid.scale * bounded(self.factor)

    def grid(self) -> TorchGrid:
        """Returns the grid with the learned scale."""
        return self._grid.with_scale((self._grid.scale * bounded(self.factor)).detach())
