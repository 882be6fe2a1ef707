"""Where device profiles come from: the `device` group's files on Hydra's search path."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from evaluators.devices.config import device_from_config, devices_from_config
from evaluators.devices.device import Device
from search.planning.config.schema import Config
from spaces.errors import ConfigError

GROUP = "device"


def devices_of(config: Config) -> dict[str, Device]:
    """Reads the `device` section.

    Raises:
        ConfigError: A profile is wrong; the message names its key, and its file where it has one.
    """
    section: Mapping[str, Any] = config.data.get(GROUP) or {}
    try:
        devices = devices_from_config(section)
    except ConfigError as error:
        key = _KEY.search(str(error))
        # A value set on the command line does not come from the file.
        if key is None or key[1] not in section or re.search(rf"{re.escape(key[0])}[.=]", config.command):
            raise
        raise ConfigError(_with_file(str(error), profile_file(key[1], config.search_path))) from error
    return {name: _found(device, config.search_path) for name, device in devices.items()}


def _found(device: Device, folders: Sequence[Path]) -> Device:
    """Returns the device with the path of its correction, which lies beside the profile's file."""
    path = profile_file(device.name, folders) if device.residual else None
    return device if path is None else _with_residual(device, path)


def _with_residual(device: Device, path: Path) -> Device:
    """Returns the device with its correction's path relative to the profile's file, if that is where the correction is."""
    if device.residual is None or not (beside := path.parent / device.residual).is_file():
        return device
    return replace(device, residual=str(beside.resolve()))


def folders_of(sources: Iterable[Any]) -> tuple[Path, ...]:
    """Returns the folders of Hydra's `runtime.config_sources`, in their order."""
    return tuple(Path(str(source.path)) for source in sources if str(source.schema) == "file")


def profile_file(name: str, folders: Sequence[Path]) -> Path | None:
    """Returns the file that holds a profile; None if it was written elsewhere, e.g. on the command line."""
    for folder in folders:
        likely = folder / GROUP / f"{name}.yaml"
        for path in (likely, *(p for p in _files(folder) if p != likely)):
            if name in _content(path):
                return path
    return None


@dataclass(frozen=True)
class Catalogue:
    """The profiles that a study can choose.

    Attributes:
        devices: Profiles by name.
        files: Name of a profile to the file that holds it.
        groups: Stem of a file that lists others, to the names in its list.
        hidden: Files that Hydra never uses, because a file of the same name comes earlier on the search path.
    """

    devices: Mapping[str, Device]
    files: Mapping[str, Path]
    groups: Mapping[str, tuple[str, ...]]
    hidden: tuple[Path, ...]


def catalogue(folders: Sequence[Path]) -> Catalogue:
    """Reads every profile of the folders' device groups.

    Raises:
        ConfigError: A profile is wrong; the message names its file and key.
    """
    chosen: dict[str, Path] = {}
    hidden = []
    for path in (p for folder in folders for p in _files(folder)):
        if path.name in chosen:
            hidden.append(path)
        else:
            chosen[path.name] = path
    devices: dict[str, Device] = {}
    files: dict[str, Path] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for path in chosen.values():
        content = _content(path)
        if members := content.get("defaults"):
            groups[path.stem] = tuple(m for m in members if isinstance(m, str) and m != "_self_")
        for name, profile in content.items():
            if name != "defaults":
                devices[name], files[name] = _read(name, profile, path), path
    return Catalogue(devices, files, groups, tuple(hidden))


def _read(name: str, profile: object, path: Path) -> Device:
    try:
        return _with_residual(device_from_config(name, profile, f"{GROUP}.{name}"), path)
    except ConfigError as error:
        raise ConfigError(_with_file(str(error), path)) from error


_KEY = re.compile(rf"\b{GROUP}\.(\w[\w-]*)(?:\.\w+)*")


def _with_file(message: str, path: Path | None) -> str:
    """Returns an error message with the profile's file in parentheses behind its key."""
    key = _KEY.search(message)
    if path is None or key is None:
        return message
    return f"{message[: key.end()]} ({path}){message[key.end() :]}"


def _files(folder: Path) -> list[Path]:
    return sorted((folder / GROUP).glob("*.yaml"))


def _content(path: Path) -> dict[str, Any]:
    """Returns the content of a file of the group; empty if it cannot be read (Hydra reports chosen ones)."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception:
        return {}
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
