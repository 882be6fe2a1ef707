"""Control: a network acts in an environment, and its quality is the return."""

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.metrics.control.mean_return import MeanReturn
from evaluators.task.metrics.control.same_actions import SameActions
from evaluators.task.tasks.control.environment import Actions
from evaluators.task.tasks.control.episodes import EpisodeSplit, Recorded, record
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import ConfigError, EvaluationError, InputError
from spaces.stages.array_split import ArraySplit

_SEEDS = 2**20  # between the first seeds of two splits


class EpisodicTask(Task):
    """Plays episodes with fixed seeds: the network gets an observation and yields a value for each action, or the action.

    Agreement is the share of steps with the float network's action. Networks are trained by the environment's advice, if it
    gives any.

    Args:
        environment: The environment: see `environment.Environment`.
        max_steps: Steps after which an episode is ended.
        calibration: Observations in the calibration split, of recorded episodes.
        validation: Episodes of the validation split, for the search.
        test: Episodes of the test split, not used by the search.
        train: Observations in the train split, with the advised actions as labels; without advice there are none.
        exploration: Share of random actions in recorded episodes.
        split_seed: From which the episodes' seeds are counted.
        output: Name of the model's output that holds the actions or their values.

    Raises:
        ConfigError: A value is out of range, or the environment does not say what its actions are.
    """

    whole_outputs: ClassVar[bool] = True

    def __init__(
        self,
        environment: Any,
        max_steps: int = 1000,
        calibration: int = 256,
        validation: int = 100,
        test: int = 100,
        train: int = 4096,
        exploration: float = 0.1,
        split_seed: int = 0,
        output: str | None = None,
    ) -> None:
        sizes = {"max_steps": max_steps, "calibration": calibration, "validation": validation, "test": test}
        for name, size in sizes.items():
            if size < 1:
                raise ConfigError(f"task.{name} must be at least 1, not {size}")
        if train < 0 or split_seed < 0 or max(calibration, validation, test, train) > _SEEDS:
            raise ConfigError(
                f"task.train and task.split_seed must not be negative, and no split larger than {_SEEDS}"
            )
        if not 0 <= exploration <= 1:
            raise ConfigError(f"task.exploration must lie between 0 and 1, not {exploration}")
        self._environment, self._actions = environment, Actions(environment)
        self._max_steps, self._sizes, self._train = max_steps, sizes, train
        self._exploration, self._first_seed = exploration, 4 * _SEEDS * split_seed
        self.output = output
        self.metric: Metric = MeanReturn(_bounds(environment))
        self.agreement = SameActions() if self._actions.n is not None else None
        self.loss = "cross_entropy" if self._actions.n is not None else "squared"

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of an observation."""
        return self._splits.validation.observations.shape[1:]  # type: ignore[attr-defined, no-any-return]

    def splits(self) -> Splits:
        """Records the episodes and returns the splits.

        Raises:
            InputError: The environment raises an exception, or returns something else than it should.
        """
        return self._splits

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has not one value for each action."""
        size, wanted = output.size // max(n, 1), self._actions.size
        if output.ndim and len(output) == n and size == wanted:
            return None
        needed = "actions" if self._actions.n is not None else "values in an action"
        return f"the model yields {output.shape} for {n} observations, but there are {wanted} {needed}"

    @cached_property
    def _splits(self) -> Splits:
        try:
            return Splits(
                train=self._observations(0, self._train if hasattr(self._environment, "advice") else 0),
                calibration=self._observations(1, self._sizes["calibration"]),
                validation=self._episodes(2, self._sizes["validation"]),
                test=self._episodes(3, self._sizes["test"]),
            )
        except EvaluationError as error:
            raise InputError(f"task.environment: {error}") from error

    def _observations(self, which: int, n: int) -> ArraySplit:
        """Returns observations of as many episodes as that takes, in random order, with the advised actions."""
        seed = self._first_seed + which * _SEEDS
        recorded: list[Recorded] = []
        while sum(len(r.observations) for r in recorded) < max(n, 1):
            recorded.append(
                record(self._environment, seed + len(recorded), self._max_steps, self._exploration)
            )
        x = np.concatenate([r.observations for r in recorded])
        advised = [r.advice for r in recorded if r.advice is not None]
        labels = np.concatenate(advised) if advised else np.full(len(x), -1, np.int64)
        rows = np.random.default_rng(seed).permutation(len(x))[:n]
        return ArraySplit(x[rows], labels[rows])

    def _episodes(self, which: int, n: int) -> EpisodeSplit:
        seeds = self._first_seed + which * _SEEDS + np.arange(n)
        recorded = [record(self._environment, int(s), self._max_steps, self._exploration) for s in seeds]
        rng = np.random.default_rng(seeds[0])
        observations = np.stack([r.observations[rng.integers(len(r.observations))] for r in recorded])
        returns = np.array([r.total for r in recorded])
        return EpisodeSplit(self._environment, seeds, observations, returns, self._max_steps)


def _bounds(environment: Any) -> tuple[float, float] | None:
    """Returns the bounds of a return. Raises ConfigError if they are none."""
    stated = getattr(environment, "return_bounds", None)
    if stated is None:
        return None
    try:
        low, high = map(float, stated)
    except (TypeError, ValueError):
        low = high = np.nan
    if not low < high:
        raise ConfigError(
            f"task.environment: {type(environment).__name__}.return_bounds must be the lowest and the highest return, not {stated!r}"
        )
    return low, high
