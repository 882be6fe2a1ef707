"""Settings and fixtures for all tests."""

import signal

import pytest
from hypothesis import settings

from evaluators.integer_kernels import integer_kernels_saturate as saturates

# no deadline, because machines are noisy; the same examples in every run, so that a failure is due to a change
settings.register_profile("paredown", deadline=None, derandomize=True)
settings.load_profile("paredown")


@pytest.fixture
def interruptible():
    """Makes Ctrl-C work as in a terminal, here and in child processes, even if the tests' parent ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def integer_kernels_saturate():
    """Whether this processor's 8-bit kernels saturate."""
    return saturates()


@pytest.fixture
def exact_integer_kernels():
    """Skips tests of 8-bit kernels on processors on which these saturate."""
    if saturates():
        pytest.skip("this processor's 8-bit kernels saturate")
