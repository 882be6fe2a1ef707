"""What an agent may put on the command line: overrides that bring no code, no address and no file from outside a folder.

An agent is not the user. On the command line a user says what is trusted and where files are; an agent may have read in a file
what it asks for. So the user's own file of trusted modules counts, and nothing that an agent says adds to it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from search.planning.config.instantiate import TRUST_KEY
from search.planning.config.trusted import own_file
from spaces.errors import ConfigError

_CLUSTER = ("executor.address", "executor.runtime_env")
_OWN = ("study.name", "study.dir")  # the tools set these
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]*:(?=/)")


def checked_overrides(overrides: Sequence[str], root: Path) -> list[str]:
    """Returns overrides as they are, if an agent may give them.

    Args:
        overrides: E.g. `["device=stm32h743", "study.n_trials=20"]`.
        root: The folder that every file must be in.

    Raises:
        ConfigError: One is no override of one value, says what is trusted, or names an address or a file elsewhere.
    """
    for text in overrides:
        _check_key(text, override := _parsed(text))
        for value in _texts(override.value()):
            _check_value(text, value, root)
    return list(overrides)


def inside(text: str, root: Path, where: str) -> Path:
    """Returns a path, relative ones from `root`, with all links resolved.

    Raises:
        ConfigError: It is outside `root`.
    """
    root = root.resolve()
    path = (root / Path(text).expanduser()).resolve()
    if not path.is_relative_to(root):
        raise ConfigError(f"{where}: {text!r} is outside {root}, the folder that agents may use")
    return path


def _parsed(text: str) -> Override:
    if text.startswith("-") or ("=" not in text and not text.startswith("~")):
        raise ConfigError(f"{text!r} is no override; key=value is expected, e.g. study.n_trials=20")
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"{text!r} cannot be read: {' '.join(str(error).split())[:300]}") from error
    if override.is_sweep_override():
        raise ConfigError(f"{text!r} is a sweep; start one study for each value")
    return override


def _check_key(text: str, override: Override) -> None:
    key = override.key_or_group
    if TRUST_KEY in key or key.partition(".")[0].partition("/")[0] == "hydra" or key in _CLUSTER:
        raise ConfigError(
            f"{text!r}: an agent cannot say which code is trusted, or where it runs; the user can, on the command line or in {own_file()}"
        )
    if key in _OWN:
        raise ConfigError(f"{text!r}: give the study's name to the tool; its folder is outputs/NAME")


def _texts(value: Any) -> Iterator[str]:
    """Yields all texts of a parsed value, keys included."""
    if isinstance(value, QuotedString):
        yield value.text
    elif isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _check_value(text: str, value: str, root: Path) -> None:
    if "${" in value or TRUST_KEY in value:
        raise ConfigError(f"{text!r}: an agent cannot interpolate, nor say what is trusted")
    if value.startswith("sqlite:///"):
        value = value.removeprefix("sqlite:///").partition("?")[0]
    elif _ADDRESS.match(value):
        raise ConfigError(f"{text!r}: an agent cannot give an address; sqlite:///FILE.db is taken")
    if len(value) < 4096 and "\0" not in value:
        inside(value, root, text)
