"""Episodes as the examples of a split, and the observations of recorded ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Outputs
from evaluators.task.tasks.control.environment import Actions, Episode, Policy, play
from spaces.code_digest import code_digest
from spaces.digest import digest_of
from spaces.stages.array_split import Indices


@dataclass(frozen=True, eq=False)
class EpisodeSplit:
    """Episodes, each by its seed, which is its label; implements `spaces.stages.artifact.Split`.

    The input of an example is one observation of its episode, as a sample of what networks get: see `rollout`.

    Attributes:
        environment: The environment.
        seeds: `(n,)` int64.
        observations: `(n, *shape)`, one of each episode when it is recorded.
        returns: `(n,)`, those of the recorded episodes.
        max_steps: Steps after which an episode is ended.
    """

    environment: Any
    seeds: Indices
    observations: NDArray[np.float32]
    returns: NDArray[np.float64]
    max_steps: int

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the seeds, the environment's code, and what it did in recorded episodes."""
        arrays = (self.seeds, self.observations, self.returns)
        return digest_of(*(a.tobytes() for a in arrays), self.max_steps, code_digest(type(self.environment)))

    @property
    def labels(self) -> Indices:
        """The seeds."""
        return self.seeds

    def __len__(self) -> int:
        return len(self.seeds)

    def batches(
        self, batch_size: int, limit: int | None = None
    ) -> Iterator[tuple[NDArray[np.float32], Indices]]:
        """Yields observations `(b, *shape)` and seeds `(b,)`, always in the same order."""
        n = len(self) if limit is None else min(limit, len(self))
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            yield self.observations[rows], self.seeds[rows]

    def rollout(self, run: Policy, inputs: Any, labels: Indices) -> Outputs:
        """Returns what a network does in the episodes with the seeds `labels`: `return` `(b,)` and `actions` `(b, steps, ...)`."""
        del inputs
        played = play(self.environment, labels, run, self.max_steps)
        return {"return": played.returns, "actions": played.actions}


@dataclass(frozen=True)
class Recorded:
    """One recorded episode.

    Attributes:
        observations: `(steps, *shape)`.
        advice: The action that was advised at each step, `(steps, ...)`; None where the environment advises none.
        total: The sum of rewards.
    """

    observations: NDArray[np.float32]
    advice: NDArray[Any] | None
    total: float


def record(environment: Any, seed: int, max_steps: int, exploration: float) -> Recorded:
    """Records an episode in which advice is followed, but for a share of random actions; without advice all are random.

    Args:
        environment: The environment.
        seed: The episode's seed.
        max_steps: Steps after which the episode is ended.
        exploration: Share of random actions, so that networks learn what to do after a mistake.

    Raises:
        EvaluationError: The environment raises an exception or returns something else than it should.
    """
    kind, rng = Actions(environment), np.random.default_rng(seed)
    advises = hasattr(environment, "advice")
    episode = Episode(environment, seed)
    observations: list[NDArray[np.float32]] = []
    advised: list[Any] = []
    while not episode.done and len(observations) < max_steps:
        observations.append(episode.observation)
        advice = episode.advice() if advises else None
        advised.append(advice)
        explores = (
            rng.random() < exploration
        )  # drawn in any case, so that episodes with and without advice are alike
        episode.step(kind.random(rng) if advice is None or explores else advice)
    dtype = np.int64 if kind.n is not None else np.float32
    return Recorded(np.stack(observations), np.asarray(advised, dtype) if advises else None, episode.total)
