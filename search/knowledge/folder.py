"""Knowledge from study folders on this machine: each holds config.yaml, trials.csv and, if it ended, summary.json."""

import os
from collections.abc import Iterator
from pathlib import Path

from search.knowledge.base import Deadline, KnowledgeSource, Own, PastStudy, Refused, siblings_left_out
from search.knowledge.study_files import read_study
from spaces.errors import ConfigError

_DEPTH = 2  # levels of folders that are searched: studies of a sweep are one level deeper than others


class FolderKnowledge(KnowledgeSource):
    """Reads the studies below folders, the most recently changed first.

    Args:
        path: A study folder, a folder of study folders, or a list of these; None takes the parent of the
            current study's folder.
        seconds: Most seconds that reading may take in all.

    Raises:
        ConfigError: `seconds` is not above 0.
    """

    def __init__(self, path: str | list[str] | None = None, seconds: float = 5.0) -> None:
        if not seconds > 0:
            raise ConfigError(
                f"knowledge.seconds must be above 0, not {seconds}; knowledge=none reads nothing"
            )
        self._given = path is not None
        self._paths = [path] if isinstance(path, str) else list(path or [])
        self.seconds = seconds

    def studies(self, own: Own, deadline: Deadline) -> Iterator[PastStudy | Refused]:
        """Yields the studies, without the current one."""
        roots = [Path(p).expanduser() for p in self._paths] if self._given else [own.folder.parent]
        found: dict[Path, float] = {}
        for root in roots:
            if root.is_dir():
                found |= dict(_studies_below(root.resolve(), _DEPTH, deadline))
            elif self._given:
                yield Refused(str(root), "knowledge.path names no folder")
        found.pop(own.folder.resolve(), None)
        siblings = [path for path in found if own.is_sibling(path.name, path)]
        if siblings:
            yield siblings_left_out(len(siblings))
        for path in siblings:
            del found[path]
        for folder in sorted(found, key=lambda path: (-found[path], str(path))):
            if deadline.passed:
                return
            read = read_study(folder)
            if read is not None:
                yield read


def _studies_below(folder: Path, depth: int, deadline: Deadline) -> Iterator[tuple[Path, float]]:
    """Yields the folders with a config.yaml or trials.csv, and their last change (Unix time, s)."""
    times = [_time(folder / name) for name in ("config.yaml", "trials.csv")]
    if any(times):
        yield folder, max(times)
        return
    if depth == 0:
        return
    try:
        with os.scandir(folder) as entries:
            below = [e.path for e in entries if not e.name.startswith(".") and e.is_dir()]
    except OSError:
        return  # this process may not read the folder
    for path in below:
        if deadline.passed:
            return
        yield from _studies_below(Path(path), depth - 1, deadline)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
