"""The interface of environments, and how policies act in them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import raised
from spaces.errors import ConfigError, EvaluationError
from spaces.stages.array_split import Indices

Policy = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Observations `(b, *shape)` -> outputs: a value of each action `(b, n_actions)`, or actions `(b, *action_shape)`."""


class Environment(Protocol):
    """What a task needs of an environment; a class need not inherit from it.

    Its objects are copied (`copy.deepcopy`), one for each of the episodes that run at the same time, and sent to other
    processes (`pickle`). An episode depends on its seed and the actions alone. Environments of Gymnasium, whose `reset` and `step`
    return more, work too, if they have the attributes.

    Attributes:
        n_actions: Number of actions, if they are whole numbers: the policy's largest output is taken. Otherwise absent.
        action_shape: Shape of an action of numbers, which are the policy's outputs. Otherwise absent.
        return_bounds: Lowest and highest possible return of an episode; may be absent: no evaluation is then stopped early.
        advice: Returns the action that a good policy takes now, by which networks are trained; may be absent.
    """

    def reset(self, *, seed: int) -> Any:
        """Begins the episode with a seed and returns the first observation, `(*shape)`."""

    def step(self, action: Any) -> Any:
        """Takes an action and returns the next observation, the reward and whether the episode has ended."""


@dataclass(frozen=True)
class Played:
    """Episodes that were played.

    Attributes:
        returns: Sum of each episode's rewards, `(n,)`.
        actions: `(n, max_steps)` int64, -1 after an episode's end; or `(n, max_steps, *action_shape)` float32, 0 after it.
    """

    returns: NDArray[np.float64]
    actions: NDArray[Any]


class Actions:
    """Reads actions from a policy's outputs.

    Args:
        environment: The environment.

    Raises:
        ConfigError: It does not say what its actions are.
    """

    def __init__(self, environment: Any) -> None:
        n, shape = (getattr(environment, key, None) for key in ("n_actions", "action_shape"))
        name = type(environment).__name__
        if (n is None) == (shape is None):
            raise ConfigError(
                f"task.environment: {name} must have either n_actions, the number of its actions, or action_shape"
            )
        if n is not None and (type(n) is not int or n < 2):
            raise ConfigError(
                f"task.environment: {name}.n_actions must be a whole number from 2 on, not {n!r}"
            )
        for method in ("reset", "step"):
            if not callable(getattr(environment, method, None)):
                raise ConfigError(f"task.environment: {name} has no method {method}")
        self.n: int | None = n
        self.shape: tuple[int, ...] = () if shape is None else tuple(shape)

    @property
    def size(self) -> int:
        """Number of a policy's outputs."""
        return prod(self.shape) if self.n is None else self.n

    def none(self, n: int, max_steps: int) -> NDArray[Any]:
        """Returns the actions of `n` episodes that have not begun."""
        if self.n is None:
            return np.zeros((n, max_steps, *self.shape), np.float32)
        return np.full((n, max_steps), -1, np.int64)

    def of(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Returns the action for each row of outputs. Raises EvaluationError if outputs are not finite."""
        bad = int((~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)).sum())
        if bad:
            raise EvaluationError(
                f"the model's outputs are not finite (NaN or infinite) for {bad} of {len(outputs)} observations"
            )
        if self.n is None:
            return outputs.reshape(len(outputs), *self.shape)
        return np.asarray(outputs.reshape(len(outputs), -1).argmax(axis=1))

    def random(self, rng: np.random.Generator) -> Any:
        """Returns a random action: of numbers, each between -1 and 1."""
        return (
            int(rng.integers(self.n))
            if self.n is not None
            else rng.uniform(-1, 1, self.shape).astype(np.float32)
        )


class Episode:
    """One episode in a copy of an environment; wrong values and exceptions name its seed and step.

    Args:
        environment: The environment.
        seed: The episode's seed.

    Attributes:
        observation: The latest, `(*shape)` float32.
        total: Sum of the rewards so far.
        done: Whether the episode has ended.

    Raises:
        EvaluationError: The environment raises an exception or returns something else than it should.
    """

    def __init__(self, environment: Any, seed: int) -> None:
        self._name, self._seed, self._steps = type(environment).__name__, seed, 0
        self.total, self.done = 0.0, False
        self._environment = self._called(copy.deepcopy, environment)
        first = self._called(lambda: self._environment.reset(seed=seed))
        # Gymnasium's returns also a mapping of remarks
        is_pair = isinstance(first, tuple) and len(first) == 2 and isinstance(first[1], dict)
        self.observation = self._read(first[0] if is_pair else first, None)

    def step(self, action: Any) -> None:
        """Takes an action."""
        self._steps += 1
        result = self._called(self._environment.step, action)
        if not isinstance(result, tuple | list) or len(result) not in (3, 5):
            raise self._error(
                f"step must return (observation, reward, done), not {type(result).__name__}"
                + (f" of {len(result)} parts" if isinstance(result, tuple | list) else "")
            )
        observation, reward, *done = result
        self.observation = self._read(observation, self.observation.shape)
        try:
            reward = float(reward)
        except (TypeError, ValueError):
            raise self._error(f"the reward must be a number, not {reward!r}") from None
        if not np.isfinite(reward):
            raise self._error(f"the reward is {reward}")
        self.total += reward
        self.done = any(map(bool, done[:2]))  # Gymnasium's: terminated, truncated, remarks

    def advice(self) -> Any:
        """Returns the action that a good policy takes now."""
        return self._called(self._environment.advice)

    def _read(self, observation: Any, shape: tuple[int, ...] | None) -> NDArray[np.float32]:
        try:
            array = np.asarray(observation, np.float32)
        except (TypeError, ValueError) as error:
            raise self._error(f"the observation is no array of numbers: {error}") from error
        if shape is not None and array.shape != shape:
            raise self._error(f"the observation has the shape {array.shape}, but the one before {shape}")
        if not np.isfinite(array).all():
            raise self._error("the observation holds values that are not finite")
        return np.array(array)  # a copy: the environment may go on writing into it

    def _called(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # of the user's code
            raise self._error(raised(error, __file__)) from error

    def _error(self, text: str) -> EvaluationError:
        where = f"step {self._steps}" if self._steps else "reset"
        return EvaluationError(f"{self._name}, seed {self._seed}, {where}: {text}")


def play(environment: Any, seeds: Sequence[int] | Indices, policy: Policy, max_steps: int) -> Played:
    """Plays an episode for each seed, all at the same time: the policy gets the observations of all that have not ended.

    Args:
        environment: The environment.
        seeds: `(n,)`.
        policy: The policy.
        max_steps: Steps after which an episode is ended.

    Raises:
        EvaluationError: Outputs are not finite, or the environment raises an exception or returns something else than it should.
    """
    kind = Actions(environment)
    episodes = [Episode(environment, int(seed)) for seed in seeds]
    actions = kind.none(len(episodes), max_steps)
    for step in range(max_steps):
        running = [i for i, episode in enumerate(episodes) if not episode.done]
        if not running:
            break
        chosen = kind.of(policy(np.stack([episodes[i].observation for i in running])))
        actions[running, step] = chosen
        for i, action in zip(running, chosen, strict=True):
            episodes[i].step(int(action) if kind.n is not None else action)
    return Played(np.array([episode.total for episode in episodes], np.float64), actions)
