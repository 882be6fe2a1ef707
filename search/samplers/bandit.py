"""S-UCB, FedSpine's sampler: a bandit whose arms are boxes of the numeric knobs."""

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
    """Proposes from the arm with the highest upper confidence bound; arms that are pulled often are split.

    The arms are the boxes of `arms.partition`. Of these the one with the highest
    `mean + explore * sqrt(2 ln N / n)` is chosen (Auer et al. 2002, UCB1), where `n` is the number of its pulls, `N` that
    of all, `mean` that of its rewards, and every pull is discounted by `discount` to the power of its age (Garivier &
    Moulines 2008, arXiv 0805.3415), so that a device that changes is followed. The candidate is drawn uniformly from the
    box. Other knobs are drawn at random.

    For a few knobs (a pruning ratio, a LoRA rank) whose effects on a device are unknown and noisy: it makes
    no assumption on how the reward depends on them. Boxes and rewards (see `rewards.py`) are computed anew
    from the study's trials for every proposal, and draws depend on the seed and the trial's number only:
    there is no other state. Running trials count as pulls.

    The name and the arms are FedSpine's; its reward's exact weights are not published, so the study's
    objectives are the reward.

    Args:
        arms: Names of the knobs that span the boxes; None for all that have an order.
        explore: Weight of the confidence term; rewards lie in [0, 1].
        discount: Weight of a pull relative to the next one.
        min_leaf_pulls: A box is cut once its discounted number of pulls is at least this; keep it below
            1 / (1 - discount), the limit of that number over all boxes.
        tolerance: Sides of at most this length, as a share of the knob's range, are not cut.
        seed: Seed of all draws.

    Raises:
        ConfigError: A setting is out of range.
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
        """Stores the space's knobs, so that even the first proposal is drawn from an arm.

        Raises:
            ConfigError: No knob has an order, or a knob in `arms` does not exist or has no order.
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
        """Returns the knobs that span the boxes, of the bound space or else of the trials so far."""
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
        """Returns values drawn from the box with the highest upper confidence bound, for knobs with an order."""
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
        """Draws a new seed, for samplers that run in parallel."""
        self._seed = np.random.SeedSequence().entropy

    # -- the choice --------------------------------------------------------------------------------------

    def _ordered(self, known: dict[str, BaseDistribution]) -> dict[str, BaseDistribution]:
        allowed = known if self._arms is None else {n: known[n] for n in self._arms if n in known}
        return {name: kind for name, kind in allowed.items() if is_ordered(kind)}

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
        reward = np.zeros(len(others))
        reward[finished] = rewards([t for t in others if t.state.is_finished()], study.directions)
        weights_in_box = np.stack([box.holds(points) for box in boxes]) * weights  # (n_boxes, n_trials)
        bounds = self._bounds(weights_in_box, finished, reward)
        best = np.flatnonzero(bounds == bounds.max())
        return boxes[int(rng.choice(best))]

    def _bounds(self, weights_in_box: Array, finished: NDArray[np.bool_], reward: Array) -> Array:
        """Returns the upper confidence bound of each box, `(n_boxes,)`: infinite for one without a pull.

        Args:
            weights_in_box: Discounted weight of each pull in each box, `(n_boxes, n_trials)`.
            finished: `(n_trials,)`, which pulls have a reward; running ones only count as pulls.
            reward: `(n_trials,)`, the rewards, 0 where there is none.
        """
        n = weights_in_box.sum(axis=1)
        n_rewarded = weights_in_box[:, finished].sum(axis=1)
        overall = float(reward[finished].mean()) if finished.any() else 0.5
        means = np.divide(
            weights_in_box @ reward,
            n_rewarded,
            out=np.full(len(weights_in_box), overall),
            where=n_rewarded > 0,
        )
        spread = math.sqrt(2 * math.log(max(1.0, float(n.sum()))))
        return np.where(n > 0, means + self._explore * spread / np.sqrt(np.where(n > 0, n, 1.0)), np.inf)


def _points(trials: Sequence[FrozenTrial], axes: Mapping[str, UnitAxis]) -> Array:
    """Returns the positions of trials, `(n_trials, n_axes)` in [0, 1); NaN where a trial has no value."""
    rows = [[a.position(t.params[n]) if n in t.params else math.nan for n, a in axes.items()] for t in trials]
    return np.array(rows, dtype=np.float64).reshape(len(trials), len(axes))


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise ConfigError(f"sampler.{name} must be {allowed}, not {value!r}")
