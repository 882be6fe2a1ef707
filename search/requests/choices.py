"""Choices of a config: as overrides of the command line, and as the file of an experiment."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from search.planning.config.command import value_text

_PLAIN = re.compile(r"[\w./-]+")
_NUMBER = re.compile(r"[+-]?[\d_.]+([eE][+-]?\d+)?")
_WORDS = ("null", "true", "false", "nan", "inf")
_SHOWN_IN_EXPERIMENT = "# @package _global_\n# paredown --config-dir {folder} experiment={name}\n# {remark}\n"


@dataclass(frozen=True)
class Choices:
    """What is chosen.

    Attributes:
        groups: Config group to the name of a file, or a list of names.
        values: Path of a key to its value.
        added: Paths among them that the chosen files may lack.
        notes: What was assumed, a sentence each.
    """

    groups: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    added: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def __or__(self, other: "Choices") -> "Choices":
        """Returns both; where they differ, the other's."""
        return Choices(
            {**self.groups, **other.groups},
            {**self.values, **other.values},
            self.added | other.added,
            (*self.notes, *other.notes),
        )

    def overrides(self) -> list[str]:
        """Returns the overrides of a command line: first the groups, then the keys within them."""
        groups = [f"{group}={_shown(chosen)}" for group, chosen in self.groups.items()]
        return [
            *groups,
            *(f"{'++' * (key in self.added)}{key}={_shown(value)}" for key, value in self.values.items()),
        ]

    def experiment(self, name: str, folder: str, remark: str) -> str:
        """Returns the content of `FOLDER/experiment/NAME.yaml`, which composes the same config.

        Args:
            name: The experiment's name.
            folder: What `--config-dir` gets.
            remark: A sentence for its second line.
        """
        defaults = [
            {f"override /{group}": chosen if isinstance(chosen, str) else list(chosen)}
            for group, chosen in self.groups.items()
        ]
        nested: dict[str, Any] = {}
        for key, value in self.values.items():
            *sections, last = key.split(".")
            node = nested
            for section in sections:
                node = node.setdefault(section, {})
            node[last] = value
        head = _SHOWN_IN_EXPERIMENT.format(name=name, folder=folder, remark=remark)
        body = {"defaults": defaults, **nested}
        return head + yaml.safe_dump(
            body, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
        )


def values_of(words: Sequence[str]) -> dict[str, Any]:
    """Returns what overrides set, by key; a value that is no YAML as text."""
    pairs = (word.partition("=") for word in words)
    return {key.lstrip("+~"): _parsed(text) for key, _, text in pairs}


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _shown(value: Any) -> str:
    """Returns a value in the grammar of overrides, without quotes where it needs none."""
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and not _NUMBER.fullmatch(value) and value.lower() not in _WORDS
        return value if is_plain else value_text(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_shown, value))}]"
    return str(value).lower() if isinstance(value, bool) else value_text(value)
