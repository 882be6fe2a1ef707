"""A small language model: trained on first use, in seconds, then stored."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from spaces.errors import ConfigError
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe
from spaces.models.zoo.sequences.text_cnn import check_ids
from spaces.stages.artifact import Split


class GRULanguageModel(FirstTrainedModel):
    """The language model, with a user's checkpoint or trained on first use.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        input_shape: `[length]`: tokens of a window.
        vocabulary_size: Number of token ids.
        embedding: Values of a token's vector.
        hidden: Width of the recurrent layer.
        epochs: Passes over the train split.
        batch_size: Examples a step.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "gru_language"

    def __init__(
        self,
        checkpoint: str | None = None,
        input_shape: Sequence[int] = (64,),
        vocabulary_size: int = 257,
        embedding: int = 48,
        hidden: int = 128,
        epochs: int = 4,
        batch_size: int = 32,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, batch_size, learning_rate), "int64")
        for name, size in {
            "vocabulary_size": vocabulary_size,
            "embedding": embedding,
            "hidden": hidden,
        }.items():
            if type(size) is not int or size < 1:
                raise ConfigError(f"model.{name} must be a whole number from 1 on, not {size!r}")
        self.vocabulary_size, self.embedding, self.hidden = vocabulary_size, embedding, hidden

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return GRULanguage(self.vocabulary_size, self.embedding, self.hidden)

    def check(self, split: Split) -> None:
        """Raises InputError if a token has no vector."""
        check_ids(split, self.vocabulary_size)


class GRULanguage(nn.Module):
    """Token ids `(n, length)` int64 -> `(n, length, n_tokens)` logits of the token after each; 113,841 parameters for 257 tokens."""

    def __init__(self, vocabulary_size: int = 257, embedding: int = 48, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, vocabulary_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Returns logits."""
        found, _ = self.gru(self.embedding(ids))
        return self.linear(found)  # type: ignore[no-any-return]
