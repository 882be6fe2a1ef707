"""Turns texts into token ids. Ids of bytes and words leave 0 for where a text has ended."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spaces.digest import digest_of
from spaces.errors import ConfigError, InputError
from spaces.extras import extra_module
from spaces.stages.cache import write_atomic

UNKNOWN = 1  # id of words that the vocabulary lacks
_FIRST_WORD = 2
_WORD = re.compile(r"\w+|[^\w\s]")
BYTE_IDS = 257


class Tokenizer(ABC):
    """Turns texts into ids."""

    @abstractmethod
    def ids(self, text: str) -> Sequence[int]:
        """Returns the ids of a text, of any number."""


class Bytes(Tokenizer):
    """The bytes of the text in UTF-8, each plus 1: ids 1 to 256."""

    def ids(self, text: str) -> Sequence[int]:
        """Returns the ids of a text."""
        return [byte + 1 for byte in text.encode("utf-8", "replace")]


class Words(Tokenizer):
    """Words, and punctuation marks one by one, in lower case; id 1 for those that the vocabulary lacks, then its words from 2 on.

    Args:
        vocabulary: The words, each once.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._ids = {word: i + _FIRST_WORD for i, word in enumerate(vocabulary)}

    def ids(self, text: str) -> Sequence[int]:
        """Returns the ids of a text."""
        return [self._ids.get(word, UNKNOWN) for word in words_of(text)]


class HuggingFace(Tokenizer):
    """A `tokenizer.json` of Hugging Face's library; its own padding is turned off.

    Args:
        path: The file.
        length: Most ids of a text, the special tokens that the file adds included; None cuts nothing and adds none.

    Raises:
        ConfigError: The package `tokenizers` is missing.
        InputError: The file is missing or damaged.
    """

    def __init__(self, path: Path, length: int | None) -> None:
        stored = extra_module("tokenizers", "task.data.tokenizer=FILE.json").Tokenizer
        if not path.is_file():
            raise InputError(f"{path}: there is no such file (a tokenizer.json is needed)")
        try:
            self._stored: Any = stored.from_file(str(path))
        except Exception as error:  # the library raises no class of its own
            raise InputError(f"{path} is damaged, or not a tokenizer.json: {str(error)[:200]}") from error
        self._stored.no_padding()
        self._special = length is not None
        if length is None:
            self._stored.no_truncation()
        else:
            self._stored.enable_truncation(length)

    def ids(self, text: str) -> Sequence[int]:
        """Returns the ids of a text."""
        found: Sequence[int] = self._stored.encode(text, add_special_tokens=self._special).ids
        return found


def words_of(text: str) -> list[str]:
    """Returns the words and punctuation marks of a text, in lower case."""
    return _WORD.findall(text.lower())


def build_vocabulary(texts: Iterable[str], size: int, cache_dir: Path | None) -> list[str]:
    """Returns the most frequent words of the texts, of equally frequent ones those that come first in the alphabet.

    Args:
        texts: The texts.
        size: Number of ids, those of no word and of unknown words included.
        cache_dir: Where the vocabulary is kept, one word a line; None does not keep it.
    """
    counts = Counter(word for text in texts for word in words_of(text))
    words = sorted(counts, key=lambda word: (-counts[word], word))[: size - _FIRST_WORD]
    if cache_dir is not None:
        try:
            write_atomic(cache_dir / f"vocabulary-{digest_of(words)}.txt", "\n".join(words).encode())
        except OSError as error:
            raise ConfigError(f"task.data.cache_dir={cache_dir} cannot be written: {error}") from error
    return words


def read_vocabulary(path: Path) -> list[str]:
    """Reads a vocabulary, one word a line. Raises InputError if the file is missing, empty, or names a word twice."""
    from evaluators.task.data.archives import reading

    with reading(path, "a vocabulary, one word a line"):
        words = path.read_text(encoding="utf-8").splitlines()
    if not words:
        raise InputError(f"{path} is empty; a vocabulary has one word a line")
    seen: dict[str, int] = {}
    for line, word in enumerate(words, 1):
        if not word.strip() or word in seen:
            what = f"the word {word!r} is that of line {seen[word]}" if word in seen else "there is no word"
            raise InputError(f"{path}, line {line}: {what}")
        seen[word] = line
    return words
