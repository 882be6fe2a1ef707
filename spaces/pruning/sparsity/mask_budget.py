"""Trains masks to a budget of MACs along with the network: a loss that contains them, and their updates."""

import torch
from torch import Tensor, nn

from spaces.pruning.budgets.mac_shares import Kept, MacShares
from spaces.pruning.sparsity.masks import Masks
from spaces.pruning.sparsity.sparsifier import Aim
from spaces.recovery.losses.label_loss import LabelLoss
from spaces.recovery.training.batch import Batch

RAMP = 0.3  # share of the training over which the budget is lowered to its level
MEAN_RATE = 0.05  # learning rate of Adam for means (VTrans: 0.01 to 0.1)
REACH = 10.0  # distance that log-variances can move in a training, however few steps it has
# Slopes of the smooth count: VTrans' 10 counts accurately, but has no gradient where channels are clearly on.
HARD, SOFT = 10.0, 1.0
MULTIPLIER_RATE = 0.2  # learning rate of gradient ascent
_BETAS, _EPSILON = (0.9, 0.999), 1e-12


class MaskBudget(nn.Module):
    """The task's loss; `step_masks` adds the gradients of the masks' own terms and updates the masks.

    The terms are `strength * divergence + m1 * e + m2 * e^2`, where `e` is the expected share of MACs, by a
    smooth count of the channels that are on, minus the present level. The multipliers `m1`, `m2` follow
    gradient ascent (VTrans, arXiv 2406.05276).

    All state is in buffers and parameters, so that a training's checkpoint includes it.

    Attributes:
        masks: The masks.
        multipliers: `(2,)` float64.
        moments: Adam's first and second moments of means and log-variances, `(2, 2, n)`.
    """

    multipliers: Tensor
    moments: Tensor

    def __init__(self, masks: Masks, shares: MacShares, aim: Aim) -> None:
        super().__init__()
        self.masks, self._shares, self._aim = masks, shares, aim
        self._task = LabelLoss()
        self.register_buffer("multipliers", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("moments", torch.zeros(2, 2, len(masks.means)))

    def forward(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Returns the task's loss, a scalar."""
        return self._task(outputs, batch)

    def expected(self, slope: float) -> Tensor:
        """Returns the expected share of MACs, by the smooth count `sigmoid(-slope * log_alpha)`."""
        return self._shares.of(self._everywhere(torch.sigmoid(-slope * self.masks.log_alphas).cpu()))

    def step_masks(self, step: int, n_steps: int) -> None:
        """Updates masks and multipliers by the gradients of the task and of the masks' own terms."""
        masks = self.masks
        excess = self.expected(SOFT) - self._aim.level_at((step + 1) / n_steps, RAMP)
        penalty = (self.multipliers.cpu() * torch.stack([excess, excess.square()])).sum()
        penalty = penalty + self._aim.strength_at(step, n_steps) * masks.divergence().cpu()
        parameters = (masks.means, masks.log_variances)
        gradients = torch.autograd.grad(penalty, parameters)
        rates = (MEAN_RATE, max(MEAN_RATE, REACH / n_steps))
        with torch.no_grad():
            rows = zip(parameters, gradients, self.moments, rates, strict=True)
            for parameter, gradient, moments, rate in rows:
                total = gradient if parameter.grad is None else parameter.grad + gradient
                parameter.sub_(rate * _adam_direction(total, moments, int(masks.step) + 1))
            hard = float(self.expected(HARD)) - self._aim.level_at((step + 1) / n_steps, RAMP)
            self.multipliers.add_(MULTIPLIER_RATE * self.multipliers.new_tensor([hard, hard**2]))
        self.skip_step()

    def skip_step(self) -> None:
        """Counts a step, and removes the masks' gradients, so that the optimizer does not update them."""
        self.masks.step.add_(1)
        self.masks.means.grad = self.masks.log_variances.grad = None

    def scores(self) -> Kept:
        """Returns the importance of channels by group; infinity for those without a mask."""
        return self._everywhere(-self.masks.log_alphas.detach().cpu().double(), torch.inf)

    def _everywhere(self, values: Tensor, otherwise: float = 1.0) -> Kept:
        masked = self.masks.by_group(values)
        rest = {
            g.name: torch.full((g.n_channels,), otherwise, dtype=torch.float64) for g in self._shares.groups
        }
        return rest | masked


def _adam_direction(gradient: Tensor, moments: Tensor, step: int) -> Tensor:
    """Returns Adam's step at a learning rate of 1 (Kingma & Ba 2014, arXiv 1412.6980, algorithm 1).

    Args:
        gradient: `(n,)`.
        moments: First and second moments `(2, n)`, updated in place.
        step: Number of the step, from 1.
    """
    for power, (moment, beta) in enumerate(zip(moments, _BETAS, strict=True), 1):
        moment.lerp_(gradient**power, 1 - beta)
    first, second = moments[0] / (1 - _BETAS[0] ** step), moments[1] / (1 - _BETAS[1] ** step)
    return first / (second.sqrt() + _EPSILON)
