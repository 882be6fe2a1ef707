"""Language modelling of whole texts, one after another: perplexity and bits per byte."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data
from evaluators.task.data.text.llama_tokenizer import LlamaTokenizer
from evaluators.task.data.text.scored_text import BEST, LOG_LIKELIHOOD, ScoredTextSplit
from evaluators.task.data.text.stories import Stories
from evaluators.task.metrics.of_output import OfOutput
from evaluators.task.metrics.tokens.likelihoods import BitsPerByte, EqualTokens, LikelihoodPerplexity
from evaluators.task.tasks.language import LanguageTask
from evaluators.task.tasks.task import Splits
from spaces.errors import ConfigError


class TextTask(LanguageTask):
    """Predicts the next token of texts; what is kept of a network's logits are the labels' likelihoods and the best tokens.

    Agreement is the share of tokens that are the float network's.

    Args:
        data: The loader.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "perplexity": LikelihoodPerplexity,
        "bits_per_byte": BitsPerByte,
        "next_token": EqualTokens,
    }

    def __init__(self, data: Data, **settings: Any) -> None:
        super().__init__(data, **settings)
        if not isinstance(data, Stories):
            raise ConfigError(
                f"task=text reads task/data=stories; {type(data).__name__} is for task=language"
            )
        self._stories = data
        self.agreement = OfOutput(EqualTokens("agreement"), BEST)

    @cached_property
    def tokenizer(self) -> LlamaTokenizer:
        """The texts' tokenizer. Raises InputError if its file is missing, damaged or of another kind."""
        return self._stories.tokenizer()

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric of the likelihoods, or of the best tokens."""
        metric: Any = factory(self.tokenizer.byte_counts) if factory is BitsPerByte else factory()
        return OfOutput(metric, BEST if factory is EqualTokens else LOG_LIKELIHOOD)

    def splits(self) -> Splits:
        """Loads the data and returns the four disjoint splits; validation and test are scored text by text.

        Raises:
            InputError: A file is missing, damaged or of another format.
            ConfigError: More texts are asked for than there are.
        """
        found = super().splits()
        return replace(found, validation=_scored(found.validation), test=_scored(found.test))

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has not a logit of each token of the tokenizer for each step."""
        steps, size = self._examples.labels.shape[1], len(self.tokenizer)
        if output.shape == (n, steps, size):
            return None
        return (
            f"the model yields {output.shape} for {n} texts, but the tokenizer has {size:,} tokens: logits of shape ({n}, {steps}, "
            f"{size}) are needed (task.data.tokenizer, task.data.length)"
        )


def _scored(split: Any) -> ScoredTextSplit:
    return ScoredTextSplit(split)
