"""Language modelling: the network yields logits of the next token after each token of a window."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data, Examples
from evaluators.task.metrics.tokens.divergence import Divergence
from evaluators.task.metrics.tokens.next_token import NextToken
from evaluators.task.metrics.tokens.perplexity import Perplexity
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import InputError
from spaces.task_losses import IGNORED


class LanguageTask(DataTask):
    """Predicts the next token; labels are the tokens that follow, `(n, steps)`, -1 where none counts, and outputs `(n, steps, n_tokens)`.

    Agreement is the divergence of the next-token distributions from the float model's: lower is better.

    Args:
        data: The loader.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "perplexity": Perplexity,
        "next_token": NextToken,
    }
    loss = "tokens"

    def __init__(self, data: Data, **settings: Any) -> None:
        super().__init__(data, **settings)
        self.agreement = Divergence()

    def checked(self, examples: Examples) -> NDArray[np.int64]:
        """Returns the tokens, `(n, steps)` int64. Raises InputError if a label is none, or no token of an example counts."""
        labels = examples.labels
        if labels.dtype.kind not in "iu" or labels.ndim != 2:
            raise InputError(
                f"{examples.folder}: labels must be the ids of the tokens that follow, (n, steps), not {labels.dtype} of shape "
                f"{labels.shape}"
            )
        for bad, what in (((labels < IGNORED).any(1), "below -1"), ((labels == IGNORED).all(1), "all -1")):
            if bad.any():
                raise InputError(f"{examples.place(int(np.flatnonzero(bad)[0]))}: token ids are {what}")
        return labels.astype(np.int64)

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has no logit of every token for each step."""
        labels = self._examples.labels
        if output.ndim == 3 and output.shape[:2] == (n, labels.shape[1]) and output.shape[2] > labels.max():
            return None
        return (
            f"the model yields {output.shape} for {n} examples, but the tokens that follow {labels.shape[1]} steps reach "
            f"{labels.max()}: logits of shape ({n}, {labels.shape[1]}, {int(labels.max()) + 1} or more) are needed"
        )
