"""Reads single values of a device profile; every error message names the key."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from spaces.errors import ConfigError, unknown_name
from spaces.units import parse_bytes

T = TypeVar("T")
Reader = Callable[[object, str], Any]
# A bare number below these must be a value in a larger unit that was left out (`ram_bytes: 512`,
# `bandwidth: 12.8`).
_LEAST_BYTES, _LEAST_RATE = 1024, 1e3


def section(value: object, keys: Sequence[str], where: str) -> dict[str, Any]:
    """Returns a mapping without its null entries; every key must be one of `keys`."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected the keys {', '.join(keys)}, got {value!r}")
    for key in value:
        if key not in keys:
            raise ConfigError(unknown_name("key", str(key), keys, where))
    return {str(key): entry for key, entry in value.items() if entry is not None}


def read_section(value: object, readers: Mapping[str, Reader], where: str) -> dict[str, Any]:
    """Reads the entries of a mapping with the reader of each key."""
    given = section(value, tuple(readers), where)
    return {key: readers[key](entry, f"{where}.{key}") for key, entry in given.items()}


def built(cls: type[T], value: object, readers: Mapping[str, Reader], where: str) -> T:
    """Reads a mapping into a dataclass; fields without a default are required."""
    given = read_section(value, readers, where)
    for field in fields(cls):  # type: ignore[arg-type]
        if field.default is MISSING and field.name not in given:
            raise ConfigError(f"{where}.{field.name} is missing")
    return cls(**given)


def keyed(value: object, kind: str, known: Sequence[str], meaning: str, where: str) -> dict[str, object]:
    """Returns a mapping with keys in `known`; `kind` and `meaning` describe it in messages."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected {kind}: {meaning}, got {value!r}")
    for key in value:
        if key not in known:
            raise ConfigError(unknown_name(kind, str(key), known, where))
    return {str(key): entry for key, entry in value.items()}


def number(value: object, where: str) -> float:
    """Returns a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where}: expected a number, got {value!r}")
    if value < 0:
        raise ConfigError(f"{where}: must not be negative, got {value!r}")
    return float(value)


def positive(value: object, where: str) -> float:
    """Returns a finite number above 0."""
    read = number(value, where)
    if read == 0:
        raise ConfigError(f"{where}: must be above zero; leave the figure out if it is not known")
    return read


def rate(value: object, where: str) -> float:
    """Returns a rate per second of at least 1000; a smaller one must be a value in a larger unit."""
    read = positive(value, where)
    if read < _LEAST_RATE:
        raise ConfigError(
            f"{where}: {value!r} a second cannot be meant; write powers of ten out, e.g. {read:g}e+9"
        )
    return read


def size(value: object, where: str) -> int:
    """Returns a memory size in bytes; a number below 1024 is refused as one without its unit."""
    read = parse_bytes(value, where)
    if read == 0:
        raise ConfigError(f"{where}: must be above zero; leave the figure out if it is not known")
    if read < _LEAST_BYTES and not isinstance(value, str):
        raise ConfigError(f'{where}: {value!r} bytes cannot be meant; write the unit, e.g. "{value} KiB"')
    return read


def share(value: object, where: str) -> float:
    """Returns a number above 0 and up to 1."""
    read = positive(value, where)
    if read > 1:
        raise ConfigError(f"{where}: is a share, so it must be at most 1, got {value!r}")
    return read


def at_least_one(value: object, where: str) -> int:
    """Returns a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{where}: expected a whole number of at least 1, got {value!r}")
    return value


def boolean(value: object, where: str) -> bool:
    """Returns true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: expected true or false, got {value!r}")
    return value


def text(value: object, where: str) -> str:
    """Returns nonempty text; a number is converted to text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise ConfigError(f"{where}: expected text, got {value!r}")
    return str(value).strip()


def one_of(*choices: str) -> Reader:
    """Returns a reader that accepts one of `choices`."""

    def read(value: object, where: str) -> str:
        if value not in choices:
            raise ConfigError(f"{where}: expected one of {', '.join(choices)}, got {value!r}")
        return str(value)

    return read


def names_of(kind: str, known: Sequence[str]) -> Reader:
    """Returns a reader of a list of names that must all be in `known`."""

    def read(value: object, where: str) -> tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{where}: expected a list, e.g. [{known[0]}], got {value!r}")
        for name in value:
            if name not in known:
                raise ConfigError(unknown_name(kind, str(name), known, where))
        return tuple(value)

    return read
