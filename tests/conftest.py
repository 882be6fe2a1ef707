"""What holds for every test."""

import signal

import pytest
from hypothesis import settings

# no deadline: the machines are noisy; the same examples every time: a failure must be the change's own
settings.register_profile("paredown", deadline=None, derandomize=True)
settings.load_profile("paredown")


@pytest.fixture
def interruptible():
    """Ctrl-C works as in a terminal, here and in child processes: whoever starts the tests may ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
