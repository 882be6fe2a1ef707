"""Sequences that a network reads as they grow: it is run anew on each prefix (re-translation)."""

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

LAST, HYPOTHESES = "last", "hypotheses"


@dataclass(frozen=True, eq=False)
class PrefixSplit(RolledOutSplit):
    """Sequences, labelled step by step.

    Batches are the whole sequences; `rollout` runs a network on their prefixes.

    Attributes:
        examples: The sequences: inputs `(n, steps, ...)`, labels `(n, steps)`. A sequence ends after its last step with a label.
        every: Steps from one prefix to the next.
        held_back: Steps at the end of a prefix for which its hypothesis says nothing yet, unless the sequence has ended.
        pad: What inputs are after the end of a prefix.
    """

    every: int
    held_back: int = 0
    pad: float = 0

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the sequences and their prefixes."""
        return digest_of(self.examples.digest, self.every, self.held_back, self.pad)

    def rollout(
        self, run: Callable[[Inputs], Any], inputs: Inputs, labels: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Returns what a network says of the prefixes of a batch of sequences.

        Args:
            run: Returns scores `(b, steps, n_classes)` for inputs `(b, steps, ...)`.
            inputs: The whole sequences.
            labels: `(b, steps)`.

        Returns:
            `last`: The scores for the whole sequences, `(b, steps, n_classes)`; NaN where scores for some prefix are not finite.
            `hypotheses`: The classes of the steps of each prefix, `(b, n_prefixes, steps)` int64, -1 where there is none.
        """
        steps = labels.shape[1]
        lengths = steps - np.argmax(labels[:, ::-1] != IGNORED, axis=1)
        finite = np.ones(len(labels), bool)
        hypotheses = []
        for end in (*range(self.every, steps, self.every), steps):
            last = np.array(run(each(lambda array, end=end: self._cut(array, end), inputs)))  # type: ignore[misc]
            finite &= np.isfinite(last).all(axis=(1, 2))
            said = np.where(end < lengths, end - self.held_back, lengths)
            hypotheses.append(np.where(np.arange(steps) < said[:, None], last.argmax(axis=2), -1))
        last[~finite] = np.nan
        return {LAST: last, HYPOTHESES: np.stack(hypotheses, axis=1)}

    def _cut(self, array: NDArray[Any], end: int) -> NDArray[Any]:
        cut = array.copy()
        cut[:, end:] = self.pad
        return cut
