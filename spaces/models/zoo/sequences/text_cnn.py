"""A small network for text: trained on first use, in seconds, then stored."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.errors import ConfigError, InputError
from spaces.models.zoo.first_training import READ_BATCH, FirstTrainedModel, Recipe
from spaces.stages.artifact import Split


class TextCNNModel(FirstTrainedModel):
    """The text network, with a user's checkpoint or trained on first use.

    Args:
        checkpoint: A checkpoint of this network; None trains it on the task's train split.
        n_classes: Number of outputs.
        input_shape: `[length]`: tokens of a text; or `{ids: [length], mask: [length]}`, if the task gives a mask.
        vocabulary_size: Number of token ids.
        embedding: Values of a token's vector.
        widths: Output channels of each convolution; without any, the mean of the tokens' vectors is classified.
        kernel_size: Kernel size of every convolution; odd.
        per_step: Whether each token is classified, from those around it, and not the text.
        epochs: Passes over the train split.
        batch_size: Examples a step.
        learning_rate: Highest learning rate of the training.
    """

    name: ClassVar[str] = "text_cnn"

    def __init__(
        self,
        checkpoint: str | None = None,
        n_classes: int = 2,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]] = (128,),
        vocabulary_size: int = 257,
        embedding: int = 32,
        widths: Sequence[int] = (64, 64),
        kernel_size: int = 5,
        per_step: bool = False,
        epochs: int = 8,
        batch_size: int = 64,
        learning_rate: float = 5e-3,
    ) -> None:
        super().__init__(checkpoint, input_shape, Recipe(epochs, batch_size, learning_rate), "int64")
        sizes = {"n_classes": n_classes, "vocabulary_size": vocabulary_size, "embedding": embedding}
        for name, size in {**sizes, **{f"widths[{i}]": width for i, width in enumerate(widths)}}.items():
            if type(size) is not int or size < 1:
                raise ConfigError(f"model.{name} must be a whole number from 1 on, not {size!r}")
        if type(kernel_size) is not int or kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"model.kernel_size must be an odd whole number, not {kernel_size!r}")
        if self.input.others and {t.name for t in self.input.tensors} != {"ids", "mask"}:
            raise ConfigError(
                f"model.input_shape must be [length] or name the inputs ids and mask, not {input_shape}"
            )
        self.n_classes, self.vocabulary_size, self.embedding = n_classes, vocabulary_size, embedding
        self.widths, self.kernel_size, self.per_step = tuple(widths), kernel_size, per_step

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return TextCNN(
            self.n_classes,
            self.vocabulary_size,
            self.embedding,
            self.widths,
            self.kernel_size,
            self.per_step,
        )

    def check(self, split: Split) -> None:
        """Raises InputError if a token has no vector."""
        check_ids(split, self.vocabulary_size)


def check_ids(split: Split, vocabulary_size: int, setting: str = "model.vocabulary_size") -> None:
    """Raises InputError if a token id of the split is not below the size of the vocabulary, which is that setting."""
    for inputs, _ in split.batches(READ_BATCH):
        ids = inputs["ids"] if isinstance(inputs, Mapping) else inputs
        if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary_size:
            raise InputError(
                f"the task's token ids reach {ids.max()}, but {setting} is {vocabulary_size}: it must be at least "
                f"{int(ids.max()) + 1}"
            )


class TextCNN(nn.Module):
    """Token ids `(n, length)` int64, 0 where a text has ended -> `(n, n_classes)` logits, or `(n, length, n_classes)` per step.

    Nothing is read after a text's end, so that a padded text and the text alone have equal logits.
    """

    def __init__(
        self,
        n_classes: int = 2,
        vocabulary_size: int = 257,
        embedding: int = 32,
        widths: Sequence[int] = (64, 64),
        kernel_size: int = 5,
        per_step: bool = False,
    ) -> None:
        super().__init__()
        self.per_step = per_step
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(n, m, kernel_size, padding=kernel_size // 2) for n, m in pairwise((embedding, *widths))
        )
        self.linear = nn.Linear((embedding, *widths)[-1], n_classes)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns logits; where `mask` is 0, or without one `ids` are 0, there is no text."""
        counted = (ids > 0 if mask is None else mask > 0).to(torch.float32)[:, None]
        x = self.embedding(ids).transpose(1, 2) * counted
        for convolution in self.convolutions:
            x = functional.relu(convolution(x)) * counted
        if self.per_step:
            return self.linear(x.transpose(1, 2))  # type: ignore[no-any-return]
        mean = x.sum(dim=-1) / counted.sum(dim=-1).clamp(min=1)
        return self.linear(mean)  # type: ignore[no-any-return]
