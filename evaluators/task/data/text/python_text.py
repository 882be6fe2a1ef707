"""Passages of the source files of Python's standard library, so that nothing has to be downloaded."""

import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.task.data.archives import reading
from evaluators.task.data.text.text_data import TextData, Texts
from spaces.errors import ConfigError, InputError

PACKAGES = ("asyncio", "email", "http", "multiprocessing", "unittest", "xml")


class PythonText(TextData):
    """Lines of source and documentation, joined to passages; the label is the package, the group its file.

    Args:
        packages: Packages of the standard library: the classes.
        characters: Least length of a passage.
        passages: Most passages of a package, spread evenly over its files.
        **settings: Those of `TextData`.
    """

    def __init__(
        self, packages: Sequence[str] = PACKAGES, characters: int = 120, passages: int = 600, **settings: Any
    ) -> None:
        super().__init__(**settings)
        if characters < 1 or passages < 1:
            raise ConfigError("task.data.characters and task.data.passages must be at least 1")
        self._packages, self._characters, self._passages = tuple(packages), characters, passages

    def texts(self, root: Path | None) -> Texts:
        """Returns the passages; `root` takes the place of the standard library's folder.

        Raises:
            InputError: A package is missing.
        """
        folder = root or Path(sysconfig.get_paths()["stdlib"])
        texts: list[str] = []
        labels: list[str] = []
        where: list[str] = []
        groups: list[str] = []
        for package in self._packages:
            found = list(self._passages_of(folder / package))
            if not found:
                raise InputError(f"{folder / package} has no Python files (task.data.packages)")
            for i in np.unique(np.linspace(0, len(found) - 1, self._passages).astype(int)):
                text, file, line = found[i]
                texts.append(text)
                labels.append(package)
                where.append(f"{file}, line {line}")
                groups.append(str(file))
        return Texts(texts, np.array(labels, object), where, np.array(groups, object), str(folder))

    def _passages_of(self, folder: Path) -> Iterator[tuple[str, Path, int]]:
        for file in sorted(folder.rglob("*.py")):
            with reading(file, "a text in UTF-8"):
                lines = file.read_text(encoding="utf-8").splitlines()
            kept: list[str] = []
            for number, line in enumerate(lines, 1):
                kept += [line.strip()] if line.strip() else []
                if sum(map(len, kept)) >= self._characters:
                    yield " ".join(kept), file, number
                    kept = []
