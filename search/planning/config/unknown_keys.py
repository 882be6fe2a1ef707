"""What the user may have meant by an override whose key does not exist."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from omegaconf import OmegaConf

from evaluators.devices.device import Device
from search.planning.config.group_files import files_of
from search.planning.config.instantiate import factory_of, instantiate, parameters_of
from search.planning.config.shipped import shipped
from spaces.errors import unknown_name
from spaces.space_config import KNOB_KEYS

_FREE = {"space": "a stage", "objective.constraints": "a limit", "space.constraints": "a constraint"}
"""Sections whose keys the user chooses, and what such a key names."""
_MOST = 3  # suggestions


def unknown_key_text(override: str, key: str, root: Any, trusted: Sequence[str]) -> str:
    """Returns the message for an override of a key that the config does not have.

    Args:
        override: The override as given, e.g. `study.n_trial=3`; a key alone if a file has it.
        key: Its key.
        root: The composed config at that moment.
        trusted: Packages that the user trusts: only their classes are asked for more keys.
    """
    plain = OmegaConf.to_container(root, resolve=False)
    assert isinstance(plain, Mapping)
    config = {str(name): value for name, value in plain.items() if name != "hydra"}
    place = _place(key.split("."), config, trusted)
    value = "".join(override.partition("=")[1:])
    head = f"{key}: {place.missing}."
    if place.name in place.more:
        return f"{head} It can be added: +{key}{value}"
    if not place.is_section:
        return f"{head} Give {place.section} as a whole: {place.section}=..."
    if likely := _likely(key, place, config):
        return (
            f"{head} Did you mean {' or '.join(f'{text}{value}' for text in likely)}?{place.known_text(())}"
        )
    if having := _choices_with(place):
        return f"{head} It is a key of {place.section}={', '.join(having)}.{place.known_text(())}"
    free = f" To add {place.free}: +{key}{value}." if place.free else ""
    return f"{head}{free}{place.known_text(place.more)}"


def unknown_part_text(key: str, part: str, node: Any) -> str:
    """Returns the message for a mapping, given as a whole to a key, that has a part which the key's section does not have.

    Args:
        key: The override's key.
        part: The unknown part.
        node: The section.
    """
    known = {str(name) for name in node if name != "_target_"} | set(
        KNOB_KEYS if key.startswith("space.") else ()
    )
    return unknown_name("key", part, known, key)


def _choices_with(place: "_Place") -> list[str]:
    """Returns the files of the section's config group that have the key, e.g. `mlflow` for `tracker.uri` with `tracker=none`."""
    files = files_of(place.section, [shipped()]) if place.section and "." not in place.section else {}
    return [name for name, file in files.items() if place.name in file.content()]


@dataclass(frozen=True)
class _Place:
    """The section that a key would be in.

    Attributes:
        section: Its path; empty for the top level.
        name: The key's first part that the section lacks.
        known: Names of the section.
        more: Names that can be added to it.
        rest: The key's parts behind the name, with their dots.
        free: What a key of it names, if the user chooses its keys; else empty.
        is_section: Whether it is a section, or a plain value.
    """

    section: str
    name: str
    known: tuple[str, ...]
    more: tuple[str, ...]
    rest: str
    free: str
    is_section: bool = True

    @property
    def missing(self) -> str:
        if not self.is_section:
            return f"{self.section} is a plain value here, or null, so it has no {self.name!r}"
        return f"{self.section or 'the config'} has no {self.name!r}"

    def known_text(self, addable: Sequence[str]) -> str:
        """Returns the names of the section, and those that can be added to it."""
        known = f" Known: {', '.join(sorted(self.known))}." if self.known else ""
        more = [name for name in addable if name not in self.known]
        return known + (f" Can be added with +: {', '.join(sorted(more))}." if more else "")


def _place(parts: Sequence[str], config: Mapping[str, Any], trusted: Sequence[str]) -> _Place:
    node, at = config, 0
    while at < len(parts) - 1 and isinstance(node.get(parts[at]), Mapping):
        node, at = node[parts[at]], at + 1
    section, name = ".".join(parts[:at]), parts[at]
    if not node:  # OmegaConf makes an empty section of a value before it refuses the key
        return _Place(section, name, (), (), "", "", False)
    known = tuple(str(key) for key in node if key != "_target_")
    more = _addable(section, node, config, trusted)
    rest = "".join(f".{part}" for part in parts[at + 1 :])
    return _Place(section, name, known, more, rest, _FREE.get(section, ""))


def _addable(
    section: str, node: Mapping[str, Any], config: Mapping[str, Any], trusted: Sequence[str]
) -> tuple[str, ...]:
    """Returns names that a section's class takes although its file does not list them; none where that cannot be told."""
    head, _, name = section.partition(".")
    try:
        if "_target_" in node:
            return tuple(parameters_of(factory_of(node, section, trusted, ())))
        if head == "space" and name in (config.get("stage") or {}):
            stage = instantiate(_resolved(config)["stage"][name], f"stage.{name}", trusted)
            return tuple(knob.name for knob in stage.knobs)
        if head == "device" and name and "." not in name:
            return tuple(f.name for f in fields(Device) if f.name != "name")
    except Exception:  # a hint is not worth a second error
        return ()
    return ()


def _resolved(config: Mapping[str, Any]) -> Any:
    return OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=True)


def _likely(key: str, place: _Place, config: Mapping[str, Any]) -> list[str]:
    """Returns the keys that a mistyped one may stand for, the likeliest first; `+` before one that must be added.

    They are those that contain all its parts in order and end as it does (`drop.max` in `objective.constraints.drop.max`); else
    the one with a similar name in the same section; else those whose last part, or whole text, is similar.
    """
    known, end = list(_paths(config, "")), key.rpartition(".")[2]
    hidden = [path for path in known if path.split(".")[-1] == end and _in_order(key.split("."), path)]
    if hidden:
        return sorted(hidden, key=len)[:_MOST]
    here = [*place.known, *([] if place.section else _groups())]
    if near := get_close_matches(place.name, [*here, *place.more], n=1, cutoff=0.7):
        section = f"{place.section}." if place.section else ""
        return [f"{'' if near[0] in here else '+'}{section}{near[0]}{place.rest}"]
    if place.free:
        return []
    others = [path for path in known if not key.startswith(f"{path}.")]
    similar = get_close_matches(key, others, n=1, cutoff=0.75)
    ends = get_close_matches(end, {path.rpartition(".")[2] for path in known}, n=1, cutoff=0.8)
    same_end = sorted((path for path in known if path.rpartition(".")[2] in ends), key=len)
    return list(dict.fromkeys([*similar, *same_end]))[:_MOST]


def _in_order(parts: Sequence[str], path: str) -> bool:
    """Whether all parts occur in a path, in their order."""
    rest = iter(path.split("."))
    return all(part in rest for part in parts)


def _paths(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


def _groups() -> list[str]:
    """Returns the shipped config groups, e.g. `sampler` and `task/data`."""
    root = shipped()
    return [
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir() and any(path.glob("*.yaml"))
    ]
