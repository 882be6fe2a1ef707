"""Parses sizes and durations with units, such as `320 KiB`, `1 MB`, `10 min`, into bytes and seconds."""

import math
import re

from spaces.errors import ConfigError

# Binary prefixes are powers of 1024, decimal ones of 1000 (IEC 80000-13); `K` is read as `k`.
_BYTES = {
    "b": 1,
    "byte": 1,
    "bytes": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_SECONDS = {
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
}
_PATTERN = re.compile(r"([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)")


def parse_bytes(value: object, where: str) -> int:
    """Returns a size in bytes.

    Args:
        value: A whole number of bytes, or a number with a unit: B, kB, MB, GB (powers of 1000), KiB, MiB, GiB
            (powers of 1024); e.g. `327680`, `"320 KiB"`, `"1 MB"`.
        where: Config key, for the message.

    Raises:
        ConfigError: The value is not a size, is negative, or is not a whole number of bytes.
    """
    size = _parse(value, _BYTES, where, 'a size such as 327680, "320 KiB" or "1 MB"')
    if size != round(size):
        raise ConfigError(f"{where}: {value!r} is not a whole number of bytes")
    return round(size)


def parse_seconds(value: object, where: str) -> float:
    """Returns a duration in seconds.

    Args:
        value: A number of seconds, or a number with a unit: ms, s, min, h, d; e.g. `600`, `"10 min"`, `"1.5 h"`.
        where: Config key, for the message.

    Raises:
        ConfigError: The value is not a duration, or is negative.
    """
    return float(_parse(value, _SECONDS, where, 'a duration such as 600, "10 min" or "1.5 h"'))


def _parse(value: object, units: dict[str, float] | dict[str, int], where: str, expected: str) -> float:
    number, unit = _split(value)
    factor = 1 if unit == "" else units.get(unit.lower())
    if number is None or factor is None or not math.isfinite(number):
        raise ConfigError(f"{where}: expected {expected}, got {value!r}")
    if number < 0:
        raise ConfigError(f"{where}: must not be negative, got {value!r}")
    return number * factor


def _split(value: object) -> tuple[float | None, str]:
    if isinstance(value, str):
        match = _PATTERN.fullmatch(value.strip())
        return (float(match[1]), match[2]) if match else (None, "")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, ""
    return value, ""
