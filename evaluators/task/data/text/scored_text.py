"""Texts whose next tokens a network is asked for, one after another, so that no logits of a whole split are held in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import RolledOutSplit
from spaces.digest import digest_of
from spaces.stages.inputs import Inputs, each
from spaces.task_losses import IGNORED

LOG_LIKELIHOOD, BEST = "log_likelihood", "best"


@dataclass(frozen=True, eq=False)
class ScoredTextSplit(RolledOutSplit):
    """Texts and the tokens that follow: inputs `(n, steps)`, labels `(n, steps)`, -1 where none counts."""

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the texts."""
        return digest_of(self.examples.digest, type(self).__name__)

    def rollout(
        self, run: Callable[[Inputs], Any], inputs: Inputs, labels: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Returns what a network says of the tokens that follow.

        Args:
            run: Returns logits `(b, steps, n_tokens)` for inputs `(b, steps)`.
            inputs: The texts.
            labels: `(b, steps)`.

        Returns:
            `log_likelihood`: The natural logarithm of each label's probability, `(b, steps)` float32; 0 where none counts.
            `best`: The most probable token, `(b, steps)` int64; -1 where none counts.
        """
        likelihood = np.zeros(labels.shape, np.float32)
        best = np.full(labels.shape, IGNORED, np.int64)
        for row, tokens in enumerate(labels):
            logits = run(each(lambda array, row=row: array[row : row + 1], inputs))[0]  # type: ignore[misc]
            counted = np.flatnonzero(tokens != IGNORED)
            likelihood[row, counted] = _log_likelihood(logits[counted], tokens[counted])
            best[row, counted] = logits[counted].argmax(axis=1)
        return {LOG_LIKELIHOOD: likelihood, BEST: best}


def _log_likelihood(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    of_tokens = shifted[np.arange(len(tokens)), tokens]
    found: NDArray[np.float32] = of_tokens - np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
    return found
