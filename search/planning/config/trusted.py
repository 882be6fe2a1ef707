"""Which packages the user trusts: said on the command line or in the user's own file, never in a config."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from search.planning.config.instantiate import TRUST_KEY
from spaces.errors import ConfigError, UntrustedTargetError

OWN_FILE = Path("paredown", "trusted_modules.yaml")
_EXAMPLE = f"{TRUST_KEY}=[my_package]"


def trusted_by_hand(overrides: Sequence[str]) -> tuple[str, ...]:
    """Returns the packages that the command line, or the overrides of a Python call, name in `trusted_modules=[...]`.

    Raises:
        ConfigError: The override is no literal list of names: what it says must not depend on a config.
    """
    named: tuple[str, ...] = ()
    for text in overrides:
        if TRUST_KEY in text:
            override = _parsed(text)
            if override is not None and override.key_or_group == TRUST_KEY:
                value = None if override.is_sweep_override() or override.is_delete() else override.value()
                named = _names(value, f"{text} on the command line", _EXAMPLE)
    return named


def trusted_by_file() -> tuple[str, ...]:
    """Returns the packages that the user's own file lists; none if there is no such file.

    The file is `paredown/trusted_modules.yaml` in `$XDG_CONFIG_HOME` (default: `~/.config`).

    Raises:
        ConfigError: The file cannot be read, or is no list of names.
    """
    path = own_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return () if content is None else _names(content, str(path), "a YAML list, e.g. `- my_package`")


def own_file() -> Path:
    """Returns where the user's own file is; as the XDG specification asks, a relative `XDG_CONFIG_HOME` is ignored."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else Path("~/.config").expanduser()) / OWN_FILE


def check_config_names_none(config: Any, trusted: Sequence[str], where: str = "") -> None:
    """Checks that no `trusted_modules` anywhere in a config names more than the user's own word.

    Args:
        config: The config, with its interpolations resolved.
        trusted: What the user trusts.
        where: Config path, for the message.

    Raises:
        UntrustedTargetError: A config names a package that the user does not.
    """
    items = config.items() if isinstance(config, Mapping) else ()
    for key, value in items:
        path = f"{where}.{key}" if where else str(key)
        if key == TRUST_KEY:
            more = [name for name in _listed(value) if name not in trusted]
            if more:
                raise UntrustedTargetError(refusal(path, value, more))
        check_config_names_none(value, trusted, path)
    if isinstance(config, list | tuple):
        for position, value in enumerate(config):
            check_config_names_none(value, trusted, f"{where}[{position}]")


def refusal(where: str, value: Any, names: Sequence[object]) -> str:
    """Returns the message for a config that says itself what is to be trusted."""
    asked = ",".join(str(name) for name in names)
    return (
        f"{where}: {value!r} is refused: no config may say which code is trusted. If you trust it, say so on the command "
        f"line, {TRUST_KEY}=[{asked}], or in your own file, {own_file()}"
    )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _parsed(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None  # composing reports it


def _names(value: Any, where: str, right: str) -> tuple[str, ...]:
    names = value if isinstance(value, list) else None
    if names is None or not all(isinstance(name, str) and _is_module(name) for name in names):
        raise ConfigError(f"{where} must be a list of packages or modules: {right}")
    return tuple(names)


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.removesuffix(".").split("."))
