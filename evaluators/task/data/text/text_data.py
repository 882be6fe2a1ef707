"""The base class of loaders of texts."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import Data, Examples, needed_root
from evaluators.task.data.named_split import NamedSplit
from evaluators.task.data.text.tokenization import AsIds, Tokenization, padded
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit, Indices


@dataclass(frozen=True)
class Texts:
    """Texts with their labels.

    Attributes:
        texts: The texts.
        labels: `(n, ...)`.
        where: File and row of each.
        groups: `(n,)`, or None.
        folder: What was read, for messages.
    """

    texts: Sequence[str]
    labels: NDArray[Any]
    where: Sequence[str]
    groups: NDArray[Any] | None
    folder: str

    def joined(self, test: "Texts") -> Examples:
        """Returns these as examples, and others as their test split."""
        n, n_test = len(self.texts), len(test.texts)
        if self.labels.dtype.kind != test.labels.dtype.kind:
            raise InputError(f"{self.folder} and {test.folder} have labels of different kinds")
        pairs = [(t.groups, t.labels) for t in (self, test)]
        groups = None if self.groups is None else np.concatenate([g for g, _ in pairs if g is not None])
        both = Texts(
            [*self.texts, *test.texts], np.concatenate([y for _, y in pairs]), [*self.where, *test.where], groups, self.folder
        )  # fmt: skip
        return replace(both.examples(), parts={"test": np.arange(n, n + n_test)})

    def examples(self) -> Examples:
        """Returns these as examples whose raw values are the texts."""
        raw = np.empty(len(self.texts), object)
        raw[:] = self.texts
        return Examples(ArraySplit(raw, self.labels), self.groups, self.where, folder=self.folder)


class TextData(Data):
    """Texts as token ids, int64, padded or cut to one length.

    A subclass states `texts`.

    Args:
        length: Ids of a text.
        tokenizer: `bytes` (ids 1 to 256), `words` (in lower case; 1 for unknown words, the vocabulary's from 2 on), or the path of
            a Hugging Face `tokenizer.json`, which needs the extra `paredown[text]`.
        vocabulary: A file of words, one a line; None builds it from the training split.
        vocabulary_size: Number of ids of a vocabulary that is built.
        pad: Id after the end of a text.
        ids: Name of the network's input of ids; without effect on a network with one input.
        mask: Name of the network's input that is 1 where there are ids and 0 after them; None for a network without.
        types: Name of a further input that is 0 everywhere, as `token_type_ids`; None without.
        test_root: A second file or folder that is the test split as a whole; None carves the test split from `task.root`.
        cache_dir: Where a vocabulary that is built is kept; None does not keep it.
    """

    def __init__(
        self,
        length: int = 128,
        tokenizer: str = "bytes",
        vocabulary: str | None = None,
        vocabulary_size: int = 4096,
        pad: int = 0,
        ids: str = "ids",
        mask: str | None = None,
        types: str | None = None,
        test_root: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        if length < 1:
            raise ConfigError(f"task.data.length must be at least 1, not {length}")
        cache = None if cache_dir is None else Path(cache_dir).expanduser()
        self._tokenization = Tokenization(tokenizer, vocabulary, vocabulary_size, cache)
        self._length, self._pad = length, pad
        self._ids, self._mask, self._types = ids, mask, types
        self._test_root = None if test_root is None else Path(test_root).expanduser()

    @abstractmethod
    def texts(self, root: Path | None) -> Texts:
        """Returns all texts with their labels.

        Raises:
            InputError: A file is missing or damaged, or a text is empty.
        """

    def read(self, root: Path | None) -> Examples:
        """Returns all texts, not yet as ids.

        Raises:
            InputError: A file is missing or damaged, or a text is empty.
        """
        found = self.texts(root)
        return found.examples() if self._test_root is None else found.joined(self.texts(self._test_root))

    def preparation(self) -> str:
        """Returns how a text becomes ids."""
        kinds = {"bytes": "bytes of UTF-8, each plus 1", "words": "words of a vocabulary, see task.data"}
        ids = kinds.get(self._tokenization.tokenizer, f"ids by {self._tokenization.tokenizer}")
        return f"{ids}, cut or filled with {self._pad} to {self._length}"

    def fitted(self, examples: Examples, train: Indices) -> Examples:
        """Returns the examples with ids, `(n, length)` int64, for texts.

        Raises:
            InputError: A file of the tokenizer is missing or damaged.
            ConfigError: A package is missing, or there are no texts to build a vocabulary from.
        """
        assert isinstance(examples.split, ArraySplit)
        texts = np.asarray(examples.split.raw[:])
        tokenizer = self._tokenization.made((texts[row] for row in train), self._length)
        ids, mask = padded([tokenizer.ids(text) for text in texts], self._length, self._pad)
        named: dict[str, NDArray[Any]] = {self._ids: ids}
        if self._mask is not None:
            named[self._mask] = mask
        if self._types is not None:
            named[self._types] = np.zeros_like(mask)
        parts = {name: ArraySplit(array, examples.labels, AsIds()) for name, array in named.items()}
        return replace(examples, split=NamedSplit(parts) if len(parts) > 1 else parts[self._ids])


def needed_folder(root: Path | None, what: str) -> Path:
    """Returns the root. Raises ConfigError without one, InputError if it is no folder."""
    folder = needed_root(root, what)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder ({what})")
    return folder
