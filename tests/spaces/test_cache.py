import numpy as np
import pytest

from spaces.cache import Cache, digest_of, write_atomic


def test_builds_once_and_shares_the_folder(tmp_path):
    calls = []

    def build():
        calls.append(1)
        return b"value"

    first = Cache(tmp_path)
    assert first.blob("key", build) == first.blob("key", build) == b"value"
    assert Cache(tmp_path).blob("key", build) == b"value"
    assert len(calls) == 1


def test_arrays_come_back_equal():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3)}
    found = Cache().arrays("key", lambda: arrays)
    assert found["a"].dtype == np.float32
    np.testing.assert_array_equal(found["a"], arrays["a"])
    assert found["b"] == 3


def test_memory_is_bounded_but_the_newest_stays():
    cache = Cache(memory_bytes=10)
    cache.blob("a", lambda: b"x" * 8)
    cache.blob("b", lambda: b"y" * 20)
    assert cache.blob("b", lambda: b"again") == b"y" * 20
    assert cache.blob("a", lambda: b"again") == b"again"


def test_a_failed_build_leaves_nothing(tmp_path):
    cache = Cache(tmp_path)

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.blob("key", fail)
    assert list(tmp_path.iterdir()) == []
    assert cache.blob("key", lambda: b"fine") == b"fine"


def test_write_atomic_replaces_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_digest_separates_its_parts():
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert digest_of(b"x") != digest_of("x")
