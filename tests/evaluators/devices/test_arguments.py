import numpy as np
import pytest

from evaluators.devices.arguments import number, positive, share, whole
from spaces.errors import ConfigError, EvaluationError


def test_numpy_numbers_are_accepted():
    assert number(np.float32(1.5), "x") == 1.5
    assert whole(np.int64(3), "x") == 3
    assert type(whole(np.int64(3), "x")) is int


@pytest.mark.parametrize("value", [True, "1", None, float("inf"), float("nan"), -1, 1j])
def test_invalid_numbers_raise_with_the_argument_name(value):
    with pytest.raises(EvaluationError, match=r"^speed: "):
        number(value, "speed")


@pytest.mark.parametrize(
    ("check", "value", "text"),
    [
        (positive, 0, "must be above 0, got 0"),
        (positive, -2, "must be above 0, got -2"),
        (share, 1.5, r"must be in \[0, 1\], got 1.5"),
        (whole, 1.0, "expected a whole number, got 1.0"),
        (whole, -1, "must be at least 0, got -1"),
    ],
)
def test_messages_state_the_valid_range(check, value, text):
    with pytest.raises(ConfigError, match=text):
        check(value, "x", error=ConfigError)
