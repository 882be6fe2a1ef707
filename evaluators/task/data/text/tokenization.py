"""Which tokenizer a config names, and ids padded or cut to one length."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.text.tokenizers import (
    Bytes,
    HuggingFace,
    Tokenizer,
    Words,
    build_vocabulary,
    read_vocabulary,
)
from spaces.errors import ConfigError
from spaces.stages.pixels import Pixels


@dataclass(frozen=True)
class Tokenization:
    """How texts become ids.

    Attributes:
        tokenizer: `bytes`, `words`, or the path of a `tokenizer.json`.
        vocabulary: A file of words, one a line; None builds it from the training split.
        vocabulary_size: Number of ids of a vocabulary that is built.
        cache_dir: Where a vocabulary that is built is kept.
    """

    tokenizer: str = "bytes"
    vocabulary: str | None = None
    vocabulary_size: int = 4096
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError if a value makes no sense."""
        if self.tokenizer not in ("bytes", "words") and not self.tokenizer.endswith(".json"):
            raise ConfigError(
                f"task.data.tokenizer must be bytes, words or the path of a tokenizer.json, not {self.tokenizer!r}"
            )
        if self.vocabulary is not None and self.tokenizer != "words":
            raise ConfigError(f"task.data.vocabulary is for words, but task.data.tokenizer={self.tokenizer}")
        if self.vocabulary_size < 3:
            raise ConfigError(
                f"task.data.vocabulary_size must be at least 3, not {self.vocabulary_size}: no word, unknown words, and a word"
            )

    def made(self, train: Iterable[str], length: int | None) -> Tokenizer:
        """Returns the tokenizer.

        Args:
            train: The texts of the training split.
            length: Most ids of a text; None for any number.

        Raises:
            InputError: A file is missing or damaged.
            ConfigError: A package is missing, or there are no texts to build a vocabulary from.
        """
        if self.tokenizer == "bytes":
            return Bytes()
        if self.tokenizer != "words":
            return HuggingFace(Path(self.tokenizer).expanduser(), length)
        if self.vocabulary is not None:
            return Words(read_vocabulary(Path(self.vocabulary).expanduser()))
        words = build_vocabulary(train, self.vocabulary_size, self.cache_dir)
        if not words:
            raise ConfigError(
                "the training split has no words to build a vocabulary from: task.data.vocabulary must name a file"
            )
        return Words(words)


@dataclass(frozen=True)
class AsIds:
    """Maps stored ids to int64."""

    def __call__(self, raw: NDArray[np.generic]) -> NDArray[np.int64]:
        """Returns the ids."""
        return raw.astype(np.int64)

    def pixels(self) -> Pixels | None:
        """Returns None: ids are no images."""
        return None


def padded(ids: Sequence[Sequence[int]], length: int, pad: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Returns the first `length` ids of each text, `(n, length)` int32 with `pad` at the end, and 1 where there are ids."""
    found = np.full((len(ids), length), pad, np.int32)
    mask = np.zeros((len(ids), length), np.uint8)
    for row, of_text in enumerate(ids):
        kept = of_text[:length]
        found[row, : len(kept)] = kept
        mask[row, : len(kept)] = 1
    return found, mask
