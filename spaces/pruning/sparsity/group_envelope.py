"""WGSEF: the envelope of weighted group sparsity, by its proximal step, with the sparsity level fixed in advance."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from spaces.errors import StageError
from spaces.pruning.budgets.mac_budget import best_only, check_level, kept_within
from spaces.pruning.groups.derived import layer_of, weight_normed
from spaces.pruning.sparsity.channel_weights import channel_norms, making_slices, scale_channels
from spaces.pruning.sparsity.sparsifier import Aim, Sparsifier, Subject

RAMP = 0.5  # share of the training over which the budget is lowered to its level
REFIT = 0.3  # share of the training, at its end, in which it is fixed which channels are on

_HALVINGS = 100  # most bisection steps: these exhaust double precision
_CLOSE = 1e-9  # relative tolerance of the cost
_TINY = 1e-30


def envelope_shares(
    norms: Tensor,
    costs: Tensor,
    strength: float,
    budget: float,
    cost_of: Callable[[Tensor], float] | None = None,
) -> Tensor:
    """Returns the shares `u` of the groups in the proximal step of the envelope of "at most `budget` group weight".

    The envelope is `GS(w) = 1/2 min_u sum_j ||w_j||^2 / u_j` over `0 <= u_j <= 1` and `sum_j d_j u_j <= budget`. Setting
    the derivative of `strength * GS(w) + 1/2 ||w - t||^2` to zero gives

    - `w_j = t_j * u_j / (u_j + strength)`
    - `u_j = clip(theta * ||t_j|| / sqrt(d_j) - strength, 0, 1)`

    where theta is chosen so that the budget is used up, by bisection of its logarithm (norms differ by orders
    of magnitude). The formulas are derived here from the definition of the envelope.

    Args:
        norms: `||t_j||`, `(n,)` float64.
        costs: `d_j`, `(n,)` float64, above 0.
        strength: Weight of the envelope, above 0.
        budget: The most that all groups together may cost.
        cost_of: Maps shares `(n,)` to their cost, increasing in each share; None for `sum_j d_j u_j`.

    Returns:
        `(n,)` float64 in [0, 1]: all 1 if the budget allows it, otherwise with 0 for groups of norm 0.
    """
    cost_of = cost_of or (lambda shares: float(costs @ shares))
    if cost_of(torch.ones_like(norms)) <= budget:
        return torch.ones_like(norms)
    ratios = norms / costs.sqrt()
    positive = ratios[ratios > 0]
    if not len(positive):
        return torch.zeros_like(norms)

    def at(log_theta: Tensor) -> Tensor:
        return (log_theta.exp() * ratios - strength).clamp(0, 1)

    # at low all shares are 0, at high all are 1
    low, high = torch.log(strength / positive.max()), torch.log((1 + strength) / positive.min())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        cost = cost_of(at(middle))
        if abs(cost - budget) <= _CLOSE * budget or not low < middle < high:
            return at(middle)
        low, high = (middle, high) if cost < budget else (low, middle)
    return at(low)


def shrink(shares: Tensor, strength: float) -> Tensor:
    """Returns the factors `u / (u + strength)` of the proximal step; exactly 0 where the share is."""
    return shares / (shares + strength)


class GroupEnvelope(Sparsifier):
    """A proximal step of the envelope after every step; its groups are channels, weighted by MACs.

    A channel's vector consists of all parameters that produce it (its filters, and BatchNorm's scale and
    shift); its weight `d_j` is the MACs that removing it alone saves. Differences from the plain proximal
    step:

    - The scale of weights differs between layers, and has no effect before a BatchNorm. So vectors are
      measured in a metric of their group, in which the mean of `||t|| / sqrt(d)` is 1.
    - Cutting a channel lowers the MACs of its neighbours. So the budget is on the cut network's MACs; the
      corresponding `sum_j d_j u_j` is found together with theta.
    - The budget is ramped in. The strongest channel of every group is exempt, so that no layer becomes empty.
      The shrinking of whole channels by `1 / (1 + strength)` is undone.
    - In the last part of the training the channels that fit the budget are trained further, without
      shrinking; the others are exactly zero.
    """

    name = "group_envelope"
    has_level = True

    def __init__(self, subject: Subject, aim: Aim) -> None:
        """Computes the MACs of every channel.

        Raises:
            StageError: The budget cannot be met, or a weight cannot be scaled.
        """
        check_level(subject.shares, aim.level, "sparsify")
        self._parameters = dict(subject.module.named_parameters())
        _check_scales(subject)
        self._groups, self._shares, self._aim = subject.groups, subject.shares, aim
        self._costs = torch.cat(list(subject.shares.costs().values()))
        self._sizes = [group.n_channels for group in self._groups]
        self._on: dict[str, Tensor] | None = None

    def after_backward(self, step: int, n_steps: int) -> None:
        """Records, after the last proximal step, which channels are on: those that are not zero."""
        if step > _last_proximal(n_steps) and self._on is None:
            self._on = {name: ratios > 0 for name, ratios in self._ratios().items()}

    def after_step(self, step: int, n_steps: int) -> None:
        """Applies the proximal step; after the last one, keeps the channels that are off at zero."""
        if self._on is not None:
            self._scale(self._on)
            return
        level = self._aim.level_at((step + 1) / n_steps, RAMP)
        self._shrink(self._ratios(), self._aim.strength_at(step, n_steps), level)
        if step == _last_proximal(n_steps):
            # the logarithm of zero is minus infinity, so that `kept_within` keeps no channel that is zero
            scores = {name: torch.log(ratios) for name, ratios in self._ratios().items()}
            self._scale(kept_within(self._shares, scores, self._aim.level))

    def finish(self) -> dict[str, Tensor]:
        """Does not change the network: channels that do not fit the budget are zero already."""
        return {name: ratios > 0 for name, ratios in self._ratios().items()}

    def _shrink(self, ratios: dict[str, Tensor], strength: float, level: float) -> None:
        exempt = torch.cat([best_only(values) for values in ratios.values()])
        costs = self._costs[~exempt]

        def by_group(values: Tensor) -> dict[str, Tensor]:
            """Returns `values` with 1 for the exempt channels, by name of the group."""
            every = torch.ones(len(exempt), dtype=torch.float64).masked_scatter(~exempt, values)
            return dict(zip(ratios, torch.split(every, self._sizes), strict=True))

        norms = torch.cat(list(ratios.values()))[~exempt] * costs.sqrt()
        shares = envelope_shares(norms, costs, strength, level, lambda u: float(self._shares.of(by_group(u))))
        self._scale(by_group(shrink(shares, strength) / shrink(torch.ones_like(shares), strength)))

    def _ratios(self) -> dict[str, Tensor]:
        """Returns `||t|| / sqrt(d)` of each channel, in its group's metric."""
        norms = {group.name: channel_norms(group, self._parameters) for group in self._groups}
        return {name: values / values.mean().clamp(min=_TINY) for name, values in norms.items()}

    def _scale(self, factors: Mapping[str, Tensor]) -> None:
        for group in self._groups:
            scale_channels(group, self._parameters, factors[group.name].double())


def _last_proximal(n_steps: int) -> int:
    """Returns the last step, from 0 on, that is followed by a proximal step."""
    return int((1 - REFIT) * (n_steps - 1))


def _check_scales(subject: Subject) -> None:
    parameters, modules = dict(subject.module.named_parameters()), dict(subject.module.named_modules())
    for name in (part.name for group in subject.groups for part in making_slices(group, parameters)):
        normed = weight_normed(modules, layer := layer_of(name))
        if normed is not None and name == normed.v:
            raise StageError(
                "sparsify.method=group_envelope scales weights down to 0, and weight norm undoes that in "
                f"{layer}: choose another method"
            )
