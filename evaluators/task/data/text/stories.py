"""Texts one after another in a file, such as TinyStories, each of which is one example for a language model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from evaluators.task.data.archives import reading
from evaluators.task.data.data import Data, Examples, needed_root
from evaluators.task.data.text.llama_tokenizer import BEGIN, LlamaTokenizer
from evaluators.task.data.text.tokenization import AsIds
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit
from spaces.task_losses import IGNORED


class Stories(Data):
    """Reads texts that each end with a separator, as token ids behind the id of the beginning, `(length,)` int64.

    Labels are the tokens that follow, -1 after the end, where the text begins anew, so that ranges of activations are those of text; of
    a long text the first `length` tokens count. A text without a separator
    after it is left out, since files are cut anywhere.

    Args:
        tokenizer: A `tokenizer.bin` of llama2.c.
        length: Tokens of an example.
        separator: What ends a text.
        test: Number of texts from the beginning of a file, by the file's name, that are the test split; None carves it.
        test_digest: First hex digits of the SHA-256 of these texts, so that a result is that of the same texts everywhere; None
            checks nothing.
        most: Texts that are read of a file, from its beginning; None reads all.
    """

    def __init__(
        self,
        tokenizer: str,
        length: int = 256,
        separator: str = "<|endoftext|>",
        test: Mapping[str, int] | None = None,
        test_digest: str | None = None,
        most: int | None = None,
    ) -> None:
        for name, value in (("length", length), ("most", most)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"task.data.{name} must be a whole number from 1 on, not {value!r}")
        if not separator:
            raise ConfigError("task.data.separator must not be empty")
        self._tokenizer, self._length, self._separator = Path(tokenizer).expanduser(), length, separator
        self._test, self._test_digest, self._most = dict(test or {}), test_digest, most

    def tokenizer(self) -> LlamaTokenizer:
        """Returns the tokenizer. Raises InputError if its file is missing, damaged or of another kind."""
        return LlamaTokenizer(self._tokenizer)

    def read(self, root: Path | None) -> Examples:
        """Returns the texts of a file, or of the `.txt` files of a folder in the order of their names.

        Raises:
            InputError: A file is missing or no text in UTF-8, there are no texts, or those of the test split are others.
        """
        tokenizer = self.tokenizer()
        path = needed_root(root, "a text file, or a folder of .txt files")
        texts = [text for file in _files(path) for text in self._texts(file)]
        if not texts:
            raise InputError(f"{path} has no text that ends with {self._separator} (task.data.separator)")
        split = windows([text.content for text in texts], tokenizer, self._length)
        parts = {"test": self._test_rows(texts, path)} if self._test else None
        return Examples(split, where=[text.place for text in texts], parts=parts, folder=str(path))

    def _texts(self, file: Path) -> "list[_Text]":
        with reading(file, "a text in UTF-8"):
            found = file.read_text(encoding="utf-8-sig").split(self._separator)[:-1]
        most = max(self._most or len(found), self._test.get(file.name, 0))
        cleaned = [text.strip() for text in found[:most]]
        return [_Text(file, i, text) for i, text in enumerate(cleaned) if text]

    def _test_rows(self, texts: "list[_Text]", path: Path) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Returns the test split. Raises InputError if it has another number of texts, or other ones, than were asked for."""
        rows = [row for row, text in enumerate(texts) if text.number < self._test.get(text.file.name, 0)]
        digest = sha256("\0".join(texts[row].content for row in rows).encode()).hexdigest()
        wanted = sum(self._test.values())
        if len(rows) != wanted:
            raise InputError(
                f"{path} has {len(rows)} of the {wanted} texts of the test split: task.data.test takes the first ones of "
                f"{', '.join(self._test)}"
            )
        if self._test_digest is not None and not digest.startswith(self._test_digest):
            raise InputError(
                f"{path}: the texts of the test split are others than those that task.data.test_digest={self._test_digest} stands for: "
                f"theirs is {digest[:16]}"
            )
        return np.array(rows, np.int64)


def windows(texts: Sequence[str], tokenizer: LlamaTokenizer, length: int) -> ArraySplit:
    """Returns the beginnings of texts as token ids, `(n, length)`, and the tokens that follow as labels: see `Stories`."""
    inputs = np.empty((len(texts), length), np.int32)
    labels = np.full((len(texts), length), IGNORED, np.int64)
    for row, text in enumerate(texts):
        tokens = [BEGIN, *tokenizer.ids(text)][: length + 1]
        inputs[row] = np.resize(tokens, length)
        labels[row, : len(tokens) - 1] = tokens[1:]
    return ArraySplit(inputs, labels, AsIds())


@dataclass(frozen=True)
class _Text:
    """A text, the file that it is in, and its number there, from 0 on."""

    file: Path
    number: int
    content: str

    @property
    def place(self) -> str:
        return f"{self.file}, text {self.number + 1}"


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no .txt files")
    return files
