"""Texts in files, a folder for each class."""

from pathlib import Path

import numpy as np

from evaluators.task.data.archives import reading
from evaluators.task.data.text.text_data import TextData, Texts, needed_folder
from spaces.errors import InputError


class TextFolder(TextData):
    """Reads `CLASS/*.txt`, in UTF-8; the labels are the folders' names.

    Args: those of `TextData`.
    """

    def texts(self, root: Path | None) -> Texts:
        """Returns the files in the order of their names.

        Raises:
            InputError: The folder is missing or has no such files, or a file is no text or empty.
        """
        folder = needed_folder(root, "a folder with a folder of .txt files for each class")
        files = sorted(folder.glob("*/*.txt"))
        if not files:
            raise InputError(f"{folder} has no files CLASS/*.txt")
        labels = np.array([file.parent.name for file in files], object)
        return Texts([_text(file) for file in files], labels, [str(f) for f in files], None, str(folder))


def _text(file: Path) -> str:
    with reading(file, "a text in UTF-8"):
        text = file.read_text(encoding="utf-8-sig")
    if not text.strip():
        raise InputError(f"{file} is empty")
    return text
