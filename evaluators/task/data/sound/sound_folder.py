"""Wav files whose class is their folder, or stands in a label file."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.archives import reading
from evaluators.task.data.data import Data, Examples, needed_root
from evaluators.task.data.sound.wav import Clip
from evaluators.task.data.stored_rows import Store, store_rows
from spaces.errors import ConfigError, InputError
from spaces.sound_features import LogMel
from spaces.stages.array_split import ArraySplit, Indices

PARTS = ("validation", "test", "calibration")
Named = list[tuple[str, str]]


class SoundFolderData(Data):
    """Reads a folder of sounds as waveforms `(samples,)`, or as features.

    Args:
        cache_dir: Where sounds are kept as arrays, once decoded.
        rate: Samples per second.
        seconds: Length of a sound: longer ones are cut, shorter ones get zeros at the end.
        resample: Whether files of another rate are resampled; else they are refused.
        features: Computes the inputs from waveforms; None passes waveforms on.
        labels: A CSV file in the folder with the columns `file` and `class`; None takes the folders as classes.
        classes: Names of the classes, in the order of the model's outputs; None takes all that there are, by name.
        others: The class of sounds that are in none of `classes`, e.g. `unknown`, behind them; None leaves them out.
        lists: Files that list those of a split, e.g. `{validation: validation_list.txt, test: testing_list.txt}`.
        group: Regular expression whose first group is, in a file's name, what must not be divided between splits, e.g. the
            speaker `^(.+)_nohash_`; None without.
    """

    def __init__(
        self,
        cache_dir: str,
        rate: int = 16000,
        seconds: float = 1.0,
        resample: bool = True,
        features: LogMel | None = None,
        labels: str | None = None,
        classes: Sequence[str] | None = None,
        others: str | None = None,
        lists: Mapping[str, str] | None = None,
        group: str | None = None,
    ) -> None:
        self._cache_dir, self._clip = Path(cache_dir).expanduser(), Clip(rate, seconds, resample)
        self._features = features
        if features is not None and features.rate != rate:
            raise ConfigError(f"task.data.features.rate is {features.rate}, but task.data.rate is {rate}")
        self._labels, self._others = labels, others
        self._classes = None if classes is None else [str(name) for name in classes]
        if others is not None and (self._classes is None or others in self._classes):
            raise ConfigError("task.data.others needs task.data.classes, which must not list it")
        self._lists = dict(lists or {})
        for part in self._lists:
            if part not in PARTS:
                raise ConfigError(f"task.data.lists: {part!r} is none of {', '.join(PARTS)}")
        self._group = None if group is None else _pattern(group)

    def read(self, root: Path | None) -> Examples:
        """Returns all sounds.

        Raises:
            InputError: There is no such folder, a file is damaged, a class has no sound, or a list names a file that there is not.
        """
        folder = needed_root(root, "the folder of wav files")
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder")
        named = _by_folder(folder) if self._labels is None else _by_table(folder, folder / self._labels)
        names, labels = self._labelled(folder, named)
        files = [folder / name for name in names]
        inputs = _Inputs(self._clip, self._features)
        store = Store(self._cache_dir, "sounds", "sound", "task.data.cache_dir")
        rows = store_rows(files, inputs, store)
        parts = {part: _listed(folder / path, names) for part, path in self._lists.items()}
        return Examples(
            ArraySplit(rows, labels),
            self._groups(files),
            [str(f) for f in files],
            parts,
            str(folder),
            classes=self._class_names(named),
        )

    def preparation(self) -> str:
        """Returns how a wav file becomes an input."""
        clip = f"mono, {self._clip.rate:,} samples a second from -1 to 1, cut or filled with zeros to {self._clip.seconds:g} s"
        return clip if self._features is None else f"{clip}, then spaces.sound_features.{self._features!r}"

    def _class_names(self, named: Named) -> list[str]:
        classes = self._classes or sorted({name for _, name in named})
        return [*classes, *([self._others] if self._others else [])]

    def _labelled(self, folder: Path, named: Named) -> tuple[list[str], Indices]:
        """Returns the files that have a class, and their classes' numbers."""
        classes = self._classes or sorted({name for _, name in named})
        numbers = {name: number for number, name in enumerate(classes)}
        other = len(classes) if self._others is not None else None
        kept = [(file, numbers.get(name, other)) for file, name in named]
        found = [(file, number) for file, number in kept if number is not None]
        present = {number for _, number in found}
        for number, name in enumerate(self._class_names(named)):
            if number not in present:
                raise InputError(f"{folder}: the class {name} has no wav file")
        if not found:
            raise InputError(f"{folder} has no wav files in folders (the name of a folder is the class)")
        return [file for file, _ in found], np.array([number for _, number in found], np.int64)

    def _groups(self, files: Sequence[Path]) -> NDArray[np.str_] | None:
        if self._group is None:
            return None
        groups = []
        for file in files:
            match = self._group.search(file.name)
            if match is None:
                raise InputError(f"{file}: its name does not match task.data.group={self._group.pattern}")
            groups.append(match[1])
        return np.array(groups)


class _Inputs:
    """Reads a file as an input.

    Args:
        clip: How a file becomes a waveform.
        features: How a waveform becomes an input; None leaves it.
    """

    def __init__(self, clip: Clip, features: LogMel | None) -> None:
        self._clip, self._features = clip, features
        self.shape = (clip.samples,) if features is None else features.shape(clip.samples)

    def __repr__(self) -> str:
        return f"{self._clip!r} {self._features!r}"

    def __call__(self, path: Path) -> NDArray[np.float32]:
        sound = self._clip(path)
        return sound if self._features is None else self._features(sound)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(f"task.data.group={text!r} is no regular expression: {error}") from error
    if pattern.groups < 1:
        raise ConfigError(f"task.data.group={text!r} needs a group in parentheses, e.g. '^(.+)_nohash_'")
    return pattern


def _by_folder(folder: Path) -> Named:
    """Returns names of files, relative to the folder, and their classes; folders that begin with `_` or `.` are none."""
    classes = [f for f in sorted(folder.iterdir()) if f.is_dir() and f.name[0] not in "_."]
    return [
        (f"{of_class.name}/{file.relative_to(of_class).as_posix()}", of_class.name)
        for of_class in classes
        for file in sorted(of_class.rglob("*"))
        if file.suffix.lower() == ".wav" and not file.name.startswith(".")
    ]


def _by_table(folder: Path, path: Path) -> Named:
    """Returns names of files and classes as a CSV file lists them."""
    found: dict[str, str] = {}
    try:
        with reading(path, "a CSV file with labels"), path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for column in ("file", "class"):
                if column not in (reader.fieldnames or []):
                    raise InputError(f"{path} has no column {column!r}; it has {reader.fieldnames or []}")
            for row in reader:
                name, label = row["file"], row["class"]
                where = f"{path}, line {reader.line_num}"
                if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                    raise InputError(f"{where}: {name!r} is not a file name within {folder}")
                if not label:
                    raise InputError(f"{where}: {name} has no class")
                if name in found:
                    raise InputError(f"{where}: {name} is listed twice: splits would not be disjoint")
                found[name] = label
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}") from error
    return [*found.items()]


def _listed(path: Path, names: Sequence[str]) -> Indices:
    """Returns the positions of the files that a list names; files of other classes do not count.

    Raises:
        InputError: The list names a file that does not exist, or no file at all.
    """
    positions = {name: position for position, name in enumerate(names)}
    with reading(path, "a list of files"):
        lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if name in positions:
            rows.append(positions[name])
        elif name and not (path.parent / name).is_file():
            raise InputError(f"{path}, line {number}: there is no file {name}")
    if not rows:
        raise InputError(f"{path} lists none of the {len(names)} sounds")
    return np.array(sorted(set(rows)), np.int64)
