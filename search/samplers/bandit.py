"""S-UCB: a bandit whose arms are boxes of the numeric knobs, for costs that nobody knows beforehand (FedSpine's sampler)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.samplers.arms import Box, partition
from search.samplers.candidates.codes import Axis
from search.samplers.candidates.context import SamplerContext
from search.samplers.candidates.unit_axis import UnitAxis, is_ordered
from search.samplers.pick_sampler import other_trials
from search.samplers.rewards import rewards
from spaces.errors import ConfigError, unknown_name

Array = NDArray[np.float64]


class BanditSampler(BaseSampler):
    """Pulls the arm with the highest upper confidence bound of its reward, and cuts arms finer where it pulls most.

    The arms are the boxes of `arms.partition`. Of these the one with the highest
    `mean + explore * sqrt(2 ln N / n)` is chosen (Auer et al. 2002, UCB1), where `n` is the number of its pulls, `N` that
    of all, `mean` that of its rewards, and every pull is discounted by `discount` to the power of its age (Garivier &
    Moulines 2008, arXiv 0805.3415), so that a device that changes is followed. The candidate is drawn uniformly from the
    box. Knobs that are no arms are drawn at random.

    For a few knobs (a pruning ratio, a LoRA rank) whose effects on a device are unknown and noisy: it assumes nothing of
    how the reward depends on them. The boxes and the reward (see `rewards.py`) are worked out anew from the study's trials
    for every proposal, and the draws from the seed and the trial's number: there is no other state. Trials that run count
    as pulls.

    The name and the arms are FedSpine's; the reward's exact weights there are not known, so the study's objectives are it.

    Args:
        arms: Names of the knobs whose boxes are arms; None for all that have an order.
        explore: Weight of the uncertainty; rewards lie in [0, 1].
        discount: What a pull counts for relative to the next one.
        min_leaf_pulls: A box is cut once its pulls count for as many; below 1 / (1 - discount), which all pulls together come to.
        tolerance: A box is not cut across a side that is no longer, as a share of the knob's range.
        seed: Seed of all draws.

    Raises:
        ConfigError: A setting makes no sense.
    """

    def __init__(
        self,
        arms: Sequence[str] | None = None,
        explore: float = 0.2,
        discount: float = 0.99,
        min_leaf_pulls: int = 4,
        tolerance: float = 0.05,
        seed: int | None = None,
    ) -> None:
        _check("explore", explore, explore >= 0, "at least 0")
        _check("discount", discount, 0 < discount <= 1, "in (0, 1]")
        _check("min_leaf_pulls", min_leaf_pulls, min_leaf_pulls >= 1, "at least 1")
        _check("tolerance", tolerance, 0 < tolerance <= 1, "in (0, 1]")
        self._arms = None if arms is None else tuple(arms)
        self._explore, self._discount = explore, discount
        self._min_leaf_pulls, self._tolerance = min_leaf_pulls, tolerance
        self._seed = np.random.SeedSequence(seed).entropy
        self._known: dict[str, BaseDistribution] = {}

    def bind(self, context: SamplerContext) -> None:
        """Takes the knobs, so that the first proposal is an arm's already.

        Raises:
            ConfigError: There is no knob to make arms of, or one that `arms` names is not there or has no order.
        """
        known = dict(context.distributions)
        for name in self._arms or ():
            if name not in known:
                raise ConfigError(unknown_name("knob", name, known, "sampler.arms"))
            if not is_ordered(known[name]):
                raise ConfigError(
                    f"sampler.arms: {name} has no order; name `int` or `float` knobs, or give it `ordered: true`"
                )
        if known and not self._ordered(known):
            raise ConfigError(
                "sampler=bandit needs at least one `int`, `float` or ordered knob; use tpe or quantune"
            )
        self._known = known

    # -- Optuna's interface ------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the arms' knobs: of those that are known beforehand, or that trials had so far."""
        found = dict(self._known)
        if not found:
            for other in other_trials(study, trial):
                found |= other.distributions
            clashing = {
                n
                for t in other_trials(study, trial)
                for n, kind in t.distributions.items()
                if kind != found[n]
            }
            found = {name: kind for name, kind in found.items() if name not in clashing}
        return self._ordered(found)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns a candidate from the most promising box, for the knobs that have an order."""
        axes = {name: UnitAxis(kind) for name, kind in search_space.items() if is_ordered(kind)}
        if not axes:
            return {}
        rng = self._rng(trial, "")
        point = self._choose(study, other_trials(study, trial), axes, rng).draw(rng)
        return {
            name: axis.value(float(place)) for (name, axis), place in zip(axes.items(), point, strict=True)
        }

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns a random value."""
        axis = Axis(param_distribution)
        return axis.external(axis.draw(1, self._rng(trial, param_name)))[0]

    def reseed_rng(self) -> None:
        """Draws a new seed, for samplers that work side by side."""
        self._seed = np.random.SeedSequence().entropy

    # -- the choice --------------------------------------------------------------------------------------

    def _ordered(self, known: dict[str, BaseDistribution]) -> dict[str, BaseDistribution]:
        wanted = known if self._arms is None else {n: known[n] for n in self._arms if n in known}
        return {name: kind for name, kind in wanted.items() if is_ordered(kind)}

    def _rng(self, trial: FrozenTrial, name: str) -> np.random.Generator:
        assert isinstance(self._seed, int)
        return np.random.default_rng([self._seed, trial.number, crc32(name.encode())])

    def _choose(
        self, study: Study, others: Sequence[FrozenTrial], axes: dict[str, UnitAxis], rng: np.random.Generator
    ) -> Box:
        points = _points(others, axes)
        weights = self._discount ** np.arange(len(others) - 1, -1, -1.0)
        finished = np.array([t.state.is_finished() for t in others], dtype=bool)
        n_cells = [axis.n_cells for axis in axes.values()]
        boxes = partition(points[finished], weights[finished], n_cells, self._min_leaf_pulls, self._tolerance)
        earned = np.zeros(len(others))
        earned[finished] = rewards([t for t in others if t.state.is_finished()], study.directions)
        held = np.stack([box.holds(points) for box in boxes]) * weights  # (n_boxes, n_trials)
        bounds = self._bounds(held, finished, earned)
        best = np.flatnonzero(bounds == bounds.max())
        return boxes[int(rng.choice(best))]

    def _bounds(self, held: Array, finished: NDArray[np.bool_], earned: Array) -> Array:
        """Returns the upper confidence bound of each box, `(n_boxes,)`: infinite for one without a pull.

        Args:
            held: How much each pull counts in each box, `(n_boxes, n_trials)`.
            finished: Which pulls have a reward; the others only count as pulls.
            earned: The rewards, `(n_trials,)`.
        """
        n = held.sum(axis=1)
        told = held[:, finished].sum(axis=1)
        overall = float(earned[finished].mean()) if finished.any() else 0.5
        means = np.divide(held @ earned, told, out=np.full(len(held), overall), where=told > 0)
        spread = math.sqrt(2 * math.log(max(1.0, float(n.sum()))))
        return np.where(n > 0, means + self._explore * spread / np.sqrt(np.where(n > 0, n, 1.0)), np.inf)


def _points(trials: Sequence[FrozenTrial], axes: Mapping[str, UnitAxis]) -> Array:
    """Returns where trials lie, `(n_trials, n_axes)`; NaN where one has no value."""
    rows = [[a.position(t.params[n]) if n in t.params else math.nan for n, a in axes.items()] for t in trials]
    return np.array(rows, dtype=np.float64).reshape(len(trials), len(axes))


def _check(name: str, value: object, good: bool, wanted: str) -> None:
    if not good:
        raise ConfigError(f"sampler.{name} must be {wanted}, not {value!r}")
