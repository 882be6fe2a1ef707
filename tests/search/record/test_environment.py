import os

import pytest

from search.executors.processes import ProcessesExecutor
from search.record.environment import environment, usable_cores


def test_only_cores_that_this_process_may_use_are_counted(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 6}, raising=False)
    assert usable_cores() == 3


@pytest.mark.parametrize(("counted", "expected"), [(6, 6), (None, 1)])
def test_all_cores_are_counted_on_a_system_without_affinities(monkeypatch, counted, expected):
    """On macOS and Windows `os` has no `sched_getaffinity`."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert usable_cores() == expected
    assert ProcessesExecutor().slots == expected
    assert environment()["usable_cores"] == str(expected)
