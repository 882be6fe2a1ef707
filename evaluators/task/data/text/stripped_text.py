"""Texts that have lost their spaces and capital letters, to be restored character by character."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluators.task.data.data import Examples
from evaluators.task.data.text.text_windows import PythonWindows, TextWindows
from evaluators.task.data.text.tokenization import AsIds
from evaluators.task.data.text.tokenizers import BYTE_IDS
from spaces.stages.array_split import ArraySplit

_SPACE, _TO_LOWER = ord(" "), ord("a") - ord("A")
CAPITAL, AFTER_SPACE = 1, 2  # added up to a class


class StrippedText(PythonWindows):
    """Windows of bytes, ids 1 to 256, `(length,)` int64, without white space and in lower case.

    Labels are what each byte has lost, `(length,)`: 0 nothing, 1 it was a capital letter, 2 a space came before it, 3 both. Any white
    space counts as one space; only the letters A to Z change. Splits follow one another in the text.

    Args:
        packages: Packages of Python's standard library whose source is read without `task.root`.
        length: Bytes of a window.
        stride: Bytes from one window to the next; None is `length`.
        characters: Characters that are read, from the beginning; None reads all.
    """

    def __init__(
        self,
        packages: Sequence[str] = ("email", "asyncio"),
        length: int = 64,
        stride: int | None = None,
        characters: int | None = None,
    ) -> None:
        super().__init__(packages, length=length, stride=stride, characters=characters)

    def files(self, root: Path | None) -> list[Path]:
        """Returns `root`, the `.txt` files of that folder, or without it the packages' files. Raises InputError without any."""
        return super().files(None) if root is None else TextWindows.files(self, root)

    def encoder(self) -> Callable[[str], Sequence[int]]:
        """Returns what turns a text into ids and classes at once: `read` takes them apart."""
        return _stripped

    def read(self, root: Path | None) -> Examples:
        """Returns the windows; none crosses from one file to the next.

        Raises:
            InputError: A file is missing or no text in UTF-8, or all are shorter than a window.
        """
        found = super().read(root)
        assert isinstance(found.split, ArraySplit)
        both = np.asarray(found.split.raw[:])
        split = ArraySplit(both % BYTE_IDS, (both // BYTE_IDS).astype(np.int64), AsIds())
        return replace(found, split=split)


def _stripped(text: str) -> Sequence[int]:
    """Returns the id of each byte that is no white space, plus its class times `BYTE_IDS`."""
    found = np.frombuffer(" ".join(text.split()).encode("utf-8", "replace"), np.uint8).astype(np.int64)
    is_space = found == _SPACE
    follows = np.concatenate([[False], is_space[:-1]])
    is_capital = (found >= ord("A")) & (found <= ord("Z"))
    classes = CAPITAL * is_capital + AFTER_SPACE * follows
    ids = found + _TO_LOWER * is_capital + 1
    return [*(ids + BYTE_IDS * classes)[~is_space]]
