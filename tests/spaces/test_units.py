import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import ConfigError
from spaces.units import parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (327680, 327680),
        (0, 0),
        ("0", 0),
        ("320 KiB", 327680),
        ("320KiB", 327680),
        (" 320 kib ", 327680),
        ("1 MB", 1_000_000),
        ("1 kB", 1000),
        ("1.5 MiB", 1572864),
        ("2 GiB", 2 * 2**30),
        ("17 bytes", 17),
        ("1e6", 1_000_000),
        (1e6, 1_000_000),
    ],
)
def test_sizes(text, size):
    found = parse_bytes(text, "here")
    assert found == size
    assert isinstance(found, int)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (600, 600.0),
        (0.5, 0.5),
        ("10 min", 600.0),
        ("1.5 h", 5400.0),
        ("250 ms", 0.25),
        ("30s", 30.0),
        ("1 d", 86400.0),
    ],
)
def test_durations(text, seconds):
    found = parse_seconds(text, "here")
    assert found == seconds
    assert isinstance(found, float)


@pytest.mark.parametrize(
    "bad", ["ten", "10 parsecs", "", "1 2", "KiB", None, True, [1], math.nan, math.inf, "10 min"]
)
def test_invalid_sizes_raise_with_the_key_and_an_example(bad):
    with pytest.raises(
        ConfigError, match=r"device\.x\.ram_bytes: expected a size such as .*320 KiB"
    ) as error:
        parse_bytes(bad, "device.x.ram_bytes")
    assert repr(bad) in str(error.value)


@pytest.mark.parametrize("bad", ["soon", "10 MB", None, False, -math.inf])
def test_invalid_durations_raise(bad):
    with pytest.raises(ConfigError, match=r"study\.time_limit: expected a duration such as .*10 min"):
        parse_seconds(bad, "study.time_limit")


def test_negative_and_fractional_sizes_raise():
    with pytest.raises(ConfigError, match=r"x: must not be negative, got '-1 KiB'"):
        parse_bytes("-1 KiB", "x")
    with pytest.raises(ConfigError, match=r"x: must not be negative, got -5"):
        parse_seconds(-5, "x")
    with pytest.raises(ConfigError, match=r"x: '0.3 B' is not a whole number of bytes"):
        parse_bytes("0.3 B", "x")


@given(st.integers(0, 2**40))
def test_numbers_are_bytes(n):
    assert parse_bytes(n, "x") == parse_bytes(str(n), "x") == n
    assert parse_bytes(f"{n} KiB", "x") == 1024 * n
