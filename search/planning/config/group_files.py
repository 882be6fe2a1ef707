"""The files of a config group on Hydra's search path: what a user can choose, with the command and the words that each begins with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

_COMMAND = re.compile(r"^# (paredown .*)$", re.MULTILINE)
_REMARKS = re.compile(r"^# (?!@|paredown )(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class GroupFile:
    """A file of a config group.

    Attributes:
        name: What the command line says, e.g. `tpe` of `sampler=tpe`.
        path: The file.
    """

    name: str
    path: Path

    @property
    def command(self) -> str:
        """The command in its first lines; empty if there is none."""
        found = _COMMAND.search(self.path.read_text(encoding="utf-8"))
        return found[1] if found else ""

    @property
    def description(self) -> str:
        """The first sentence of the comment that it begins with; empty if there is none."""
        head = re.split(r"^[^#]", self.path.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)[0]
        remarks = " ".join(line.strip() for line in _REMARKS.findall(head))
        return re.split(r"(?<=[.!?])\s(?=[A-Z])", remarks, maxsplit=1)[0]

    def content(self) -> dict[str, Any]:
        """Returns what it holds, with interpolations as they are; empty if it cannot be read."""
        try:
            content = OmegaConf.to_container(OmegaConf.load(self.path), resolve=False)
        except (OSError, YAMLError, OmegaConfBaseException):
            return {}
        return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def files_of(group: str, folders: Sequence[Path]) -> dict[str, GroupFile]:
    """Returns a group's files by name; of two with one name that of the earlier folder, which Hydra takes, too.

    Args:
        group: E.g. `sampler` or `task/data`.
        folders: Hydra's search path.
    """
    paths = [path for folder in reversed(folders) for path in sorted((folder / group).glob("*.yaml"))]
    return {path.stem: GroupFile(path.stem, path) for path in paths}
