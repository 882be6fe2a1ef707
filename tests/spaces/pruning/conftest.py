"""What the tests of pruning share."""

import pytest

from spaces.recovery.training.determinism import fixed_threads


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small only wait for a second thread, the longer the busier the machine is."""
    with fixed_threads(1):
        yield
