"""Fixtures of the tests of pruning."""

import pytest

from spaces.recovery.training.determinism import fixed_threads


@pytest.fixture(autouse=True)
def _one_thread():
    """For networks this small, synchronising threads costs more than they save."""
    with fixed_threads(1):
        yield
