"""Windows of running text, for language models."""

import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.task.data.archives import reading
from evaluators.task.data.data import Data, Examples, needed_root
from evaluators.task.data.text.tokenization import AsIds, Tokenization
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit


class TextWindows(Data):
    """Cuts a text into windows of token ids, `(length,)` int64; labels are the tokens that follow each, `(length,)`.

    Splits follow one another in the text: training has its beginning, and the test its end.

    Args:
        length: Tokens of a window.
        stride: Tokens from one window to the next; None is `length`.
        tokenizer: As for `TextData`; `words` need a `vocabulary`.
        vocabulary: A file of words, one a line.
        characters: Characters that are read, from the beginning; None reads all.
    """

    def __init__(
        self,
        length: int = 64,
        stride: int | None = None,
        tokenizer: str = "bytes",
        vocabulary: str | None = None,
        characters: int | None = None,
    ) -> None:
        for name, value in (("length", length), ("stride", stride), ("characters", characters)):
            if value is not None and value < 1:
                raise ConfigError(f"task.data.{name} must be at least 1, not {value}")
        if tokenizer == "words" and vocabulary is None:
            raise ConfigError(
                "task.data.vocabulary must name a file of words: windows are cut before there is a training split"
            )
        self._tokenization = Tokenization(tokenizer, vocabulary)
        self._length, self._stride, self._characters = length, stride or length, characters

    def files(self, root: Path | None) -> list[Path]:
        """Returns the files that make up the text: `root`, or the `.txt` files of that folder. Raises InputError without any."""
        path = needed_root(root, "a text file, or a folder of .txt files")
        files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path} has no .txt files")
        return files

    def encoder(self) -> Callable[[str], Sequence[int]]:
        """Returns what turns a text into the ids that windows are cut of."""
        return self._tokenization.made((), None).ids

    def read(self, root: Path | None) -> Examples:
        """Returns the windows; none crosses from one file to the next.

        Raises:
            InputError: A file is missing or no text in UTF-8, or all are shorter than a window.
            ConfigError: A package is missing.
        """
        encoded, files = self.encoder(), self.files(root)
        windows: list[Any] = []
        first: list[int] = []
        where: list[str] = []
        left, before, longest = self._characters, 0, 0
        for file in files:
            text = _text(file)[:left]
            left = None if left is None else left - len(text)
            ids = np.asarray(encoded(text), np.int32)
            for start in range(0, len(ids) - self._length, self._stride):
                windows.append(ids[start : start + self._length + 1])
                first.append(before + start)
                where.append(f"{file}, token {start + 1}")
            before, longest = before + len(ids), max(longest, len(ids))
        if not windows:
            raise InputError(
                f"{files[0]}: a window and the token after it take {self._length + 1} tokens, but there are {longest}"
            )
        cut, begin = np.stack(windows), np.array(first)
        split = ArraySplit(cut[:, :-1], cut[:, 1:].astype(np.int64), AsIds())
        spans = np.stack([begin, begin + self._length + 1], axis=1)
        return Examples(split, where=where, folder=str(files[0]), spans=spans)


class PythonWindows(TextWindows):
    """The source of packages of Python's standard library, so that nothing has to be downloaded.

    Args:
        packages: The packages.
        **settings: Those of `TextWindows`.
    """

    def __init__(self, packages: Sequence[str] = ("email", "asyncio"), **settings: Any) -> None:
        super().__init__(**settings)
        self._packages = tuple(packages)

    def files(self, root: Path | None) -> list[Path]:
        """Returns the packages' files; `root` takes the place of the standard library's folder. Raises InputError without any."""
        folder = root or Path(sysconfig.get_paths()["stdlib"])
        found = [file for name in self._packages for file in sorted((folder / name).rglob("*.py"))]
        if not found:
            raise InputError(
                f"{folder} has no Python files in {', '.join(self._packages)} (task.data.packages)"
            )
        return found


def _text(file: Path) -> str:
    with reading(file, "a text in UTF-8"):
        return file.read_text(encoding="utf-8-sig")
