import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.record.redact import redact, redact_text
from search.report.findings import numbers


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (97.8, "%", "97.80 %"),
        (31744, "bytes", "31 KiB"),
        (1000, "bytes", "1,000 bytes"),
        (3.5 * 2**20, "bytes", "3.5 MiB"),
        (0.73031, "ms", "0.73 ms"),
        (123.456, "ms", "123.5 ms"),
        (-1.5, "dB", "−1.5 dB"),
        (0, "ms", "0 ms"),
        (math.inf, "ms", "∞ ms"),
        (math.nan, "bytes", "not a number bytes"),
        (12345678, "", "12,345,678"),
    ],
)
def test_quantity(value, unit, text):
    assert numbers.quantity(value, unit) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(-0.2, "%", "−0.20 pp"), (0.001, "%", "0.00 pp"), (2048, "bytes", "+2 KiB"), (0, "ms", "0 ms")],
)
def test_signed(value, unit, text):
    assert numbers.signed(value, unit) == text


def test_a_value_and_its_bounds_share_unit_and_decimals():
    assert numbers.with_bounds(97.6, 97, 98.2, "%") == ("97.60 %", "[97.00, 98.20]")
    assert numbers.with_bounds(900, -2048, 4096, "bytes", is_change=True) == ("+0.88 KiB", "[−2.00, +4.00]")
    assert numbers.with_bounds(-0.2, -0.6, 0.1, "%", is_change=True) == ("−0.20 pp", "[−0.60, +0.10]")


@given(*[st.floats(allow_nan=True, allow_infinity=True)] * 3, st.sampled_from(["%", "bytes", "ms", ""]))
def test_no_number_breaks_the_text(value, low, high, unit):
    text, interval = numbers.with_bounds(value, low, high, unit, is_change=True)
    assert text
    assert interval.startswith("[")
    assert numbers.quantity(value, unit)


@pytest.mark.parametrize(
    ("column", "before", "after", "text"),
    [
        ("cost.mcu.weight_bytes", 390, 100, "3.9× smaller"),
        ("cost.mcu.latency_ms", 1, 2, "2× slower"),
        ("cost.mcu.energy_uj", 20, 1, "20× lower"),
        ("cost.mcu.latency_ms", 1, 1.029, "as fast as float"),
        ("cost.mcu.latency_ms", 1.029, 1, "as fast as float"),
        ("cost.mcu.latency_ms", 1.04, 1, "1.04× faster"),
        ("cost.mcu.weight_bytes", 1, 1.001, "the same"),
        ("cost.mcu.weight_bytes", 1.02, 1, "1.02× smaller"),
        ("cost.mcu.latency_ms", 0, 1, None),
    ],
)
def test_ratio(column, before, after, text):
    assert numbers.ratio(column, before, after) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.2, "4.2 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")])
def test_duration(seconds, text):
    assert numbers.duration(seconds) == text


def test_secrets_are_redacted_and_knobs_are_not():
    assert redact_text("x=postgresql+psycopg2://u:pw@h/d") == "x=postgresql+psycopg2://***@h/d"
    assert redact_text("a.password='b c' b=1") == "a.password=*** b=1"
    assert redact_text("prune.token=0.5 http://host:5000") == "prune.token=0.5 http://host:5000"
    config = {"api_key": "x", "n": 1, "nested": [{"uri": "http://u:p@h"}], "tokens": {"keep": 0.5}}
    assert redact(config) == {
        "api_key": "***",
        "n": 1,
        "nested": [{"uri": "http://***@h"}],
        "tokens": {"keep": 0.5},
    }


@pytest.mark.parametrize("unit", ["ms", "%", "dB"])
def test_what_rounding_leaves_of_equal_numbers_is_nothing(unit):
    shown = "pp" if unit == "%" else unit
    zero = "0.00 pp" if unit == "%" else f"0 {unit}"
    assert numbers.signed(-8.88e-16, unit) == zero
    text, interval = numbers.with_bounds(1e-17, -8.88e-16, 0.0, unit, is_change=True)
    assert text == zero
    assert interval.strip("[]").replace("0", "").replace(".", "") == ", ", shown
