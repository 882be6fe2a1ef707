"""Packages that only some configs need: each is an extra of this package, and a missing one is one message."""

import importlib.util
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from spaces.errors import ConfigError

PACKAGES = ("search", "spaces", "evaluators", "conf")
"""The packages of this distribution."""

EXTRAS: Mapping[str, str] = {
    "cmaes": "cmaes",
    "mcp": "mcp",
    "psycopg": "postgres",
    "pycocotools": "detection",
    "pynvml": "nvml",
    "rapidfuzz": "speech",
    "ray": "ray",
    "tokenizers": "text",
}
"""Importable package to the extra that brings it."""


def check_extra(package: str, where: str) -> None:
    """Checks that a package is installed, without importing it.

    Args:
        package: One of `EXTRAS`.
        where: What needs it, for the message, e.g. `sampler=cmaes`.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise ConfigError(missing(package, where))


def extra_module(name: str, where: str) -> Any:
    """Imports a module of an extra.

    Args:
        name: Dotted name of the module.
        where: What needs it, for the message.

    Raises:
        ConfigError: It is not installed, or cannot be imported.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ImportError as error:
        is_absent = isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == package
        cause = "" if is_absent else f" ({error})"
        raise ConfigError(f"{missing(package, where)}{cause}") from error


def missing(package: str, where: str) -> str:
    """Returns the message of a package that is not installed.

    Args:
        package: Importable name; one that is no extra of ours is named as it is.
        where: What needs it.
    """
    extra = EXTRAS.get(package)
    name = f"'paredown[{extra}]'" if extra else package
    return f"{where} needs the package `{package}`: pip install {name}"
