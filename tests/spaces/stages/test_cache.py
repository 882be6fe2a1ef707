import errno
import logging
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from spaces.digest import digest_of
from spaces.stages import cache as module
from spaces.stages.cache import Cache, write_atomic


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


def test_memory_is_bounded_but_the_newest_entry_stays():
    cache = Cache(memory_bytes=10)
    cache.blob("a", lambda: b"x" * 8)
    cache.blob("b", lambda: b"y" * 20)
    assert cache.blob("b", lambda: b"again") == b"y" * 20
    assert cache.blob("a", lambda: b"again") == b"again"


def test_a_failed_build_stores_nothing(tmp_path):
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


def entries(folder):
    return {p.name for p in folder.iterdir()}


def no_build():
    raise AssertionError("the entry exists already")


def test_parsed_arrays_are_cached_and_read_only(tmp_path):
    ours = np.arange(3.0)
    cache = Cache(tmp_path)
    first = cache.arrays("a", lambda: {"x": ours})
    assert cache.arrays("a", no_build)["x"] is first["x"]
    with pytest.raises(ValueError, match="read-only"):
        first["x"][0] = 7
    ours[0] = 7  # the builder's own array is separate
    first["y"] = ours  # and so is the returned dict
    assert set(cache.arrays("a", no_build)) == {"x"}
    with pytest.raises(ValueError, match="read-only"):
        Cache(tmp_path).arrays("a", no_build)["x"][0] = 7


def test_the_folder_is_bounded_and_the_most_recently_used_entries_stay(tmp_path):
    cache = Cache(tmp_path, cache_bytes=100_000)
    cache.blob("used", lambda: bytes(8_000))
    for number in range(60):
        cache.blob(f"new{number}", lambda: bytes(8_000))
        age(tmp_path)
        assert Cache(tmp_path, cache_bytes=100_000).blob("used", no_build) == bytes(8_000)
        assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 110_000
    assert "new59" in entries(tmp_path)
    assert "new0" not in entries(tmp_path)


def age(folder):
    """Makes every entry a second older: tests run faster than the file system's clock resolution."""
    for path in folder.iterdir():
        stat = path.stat()
        os.utime(path, (stat.st_atime - 1, stat.st_mtime - 1))


def test_prefixes_keep_values_apart_under_one_bound(tmp_path):
    old, new = (Cache(tmp_path, cache_bytes=30_000, prefix=p) for p in ("v1-", "v2-"))
    assert old.blob("key", lambda: b"old") == b"old"
    assert new.blob("key", lambda: b"new") == b"new"
    assert entries(tmp_path) == {"v1-key", "v2-key"}
    for number in range(8):
        age(tmp_path)
        new.blob(str(number), lambda: bytes(8_000))
    assert "v1-key" not in entries(tmp_path)


def test_a_value_above_the_bound_is_stored_in_memory_only(tmp_path):
    cache = Cache(tmp_path, cache_bytes=100)
    assert cache.blob("large", lambda: bytes(200)) == cache.blob("large", no_build)
    assert entries(tmp_path) == set()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-3], lambda b: b[:5], lambda b: b"", lambda b: b[:-1] + b"?"]
)
@pytest.mark.parametrize("kind", ["blob", "arrays"])
def test_a_damaged_entry_is_detected_and_built_again(tmp_path, damage, kind, caplog):
    def get(cache, build):
        if kind == "blob":
            return cache.blob("key", lambda: build() or b"value")
        return cache.arrays("key", lambda: build() or {"x": np.arange(5)})["x"].tobytes()

    expected = get(Cache(tmp_path), lambda: None)
    path = tmp_path / "key"
    path.write_bytes(damage(path.read_bytes()))
    assert get(Cache(tmp_path), lambda: None) == expected
    assert "damaged" in caplog.text
    assert get(Cache(tmp_path), no_build) == expected


def test_an_entry_without_arrays_is_built_again(tmp_path):
    Cache(tmp_path).blob("key", lambda: b"no arrays")
    assert Cache(tmp_path).arrays("key", lambda: {"x": np.ones(2)})["x"].sum() == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_write_errors_are_logged_once(tmp_path, monkeypatch, caplog, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, "write_atomic", refuse)
    cache = Cache(tmp_path)
    for key in ("a", "b", "c"):
        assert cache.blob(key, lambda: b"value") == b"value"
        assert cache.blob(key, no_build) == b"value"
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert os.strerror(code) in caplog.text
    assert str(tmp_path) in caplog.text


def test_a_file_in_place_of_the_folder_is_logged_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "stages")
    assert cache.blob("a", lambda: b"value") == cache.blob("a", no_build) == b"value"
    assert len(caplog.records) == 1


def test_temporary_files_of_killed_processes_are_deleted(tmp_path):
    old, young = tmp_path / ".key.abc", tmp_path / ".key.xyz"
    for path in (old, young):
        path.write_bytes(b"torn")
    os.utime(old, (0, 0))
    Cache(tmp_path).blob("key", lambda: b"value")
    assert entries(tmp_path) == {"key", young.name}


def test_pickling_leaves_out_values_in_memory(tmp_path):
    cache = Cache(tmp_path)
    cache.blob("key", lambda: bytes(10_000))
    assert len(pickle.dumps(cache)) < 1_000
    assert pickle.loads(pickle.dumps(cache)).blob("key", no_build) == bytes(10_000)
    assert pickle.loads(pickle.dumps(Cache())).blob("key", lambda: b"x") == b"x"


HAMMER = """
import random, sys, time
from pathlib import Path
from spaces.stages.cache import Cache

rng = random.Random(int(sys.argv[2]))
until = time.monotonic() + 1.0
while time.monotonic() < until:
    cache = Cache(Path(sys.argv[1]), memory_bytes=1, cache_bytes=40_000)
    for _ in range(20):
        number = rng.randrange(30)
        expected = bytes([number]) * (1_000 + 100 * number)
        assert cache.blob(str(number), lambda: expected) == expected
"""


def test_several_processes_may_read_write_and_evict_at_once(tmp_path):
    commands = [[sys.executable, "-c", HAMMER, str(tmp_path), str(seed)] for seed in range(3)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [worker.communicate()[1] for worker in workers]
    assert errors == [""] * 3
    assert [worker.returncode for worker in workers] == [0] * 3
    assert not [name for name in entries(tmp_path) if name.startswith(".")]
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 60_000


@pytest.mark.parametrize("on_disk", [False, True])
def test_keep_find_and_drop(tmp_path, on_disk):
    cache = Cache(tmp_path if on_disk else None, prefix="v1-")
    assert cache.find("key") is None
    for value in (b"first", b"second"):
        cache.keep("key", value)
        assert cache.find("key") == value
        assert Cache(tmp_path, prefix="v1-").find("key") == (value if on_disk else None)
    assert cache.blob("key", no_build) == b"second"
    cache.drop("key")
    cache.drop("key")
    assert cache.find("key") is None
    assert entries(tmp_path) == set()


def test_find_returns_blobs_but_not_arrays():
    cache = Cache()
    cache.blob("blob", lambda: b"value")
    cache.arrays("arrays", lambda: {"x": np.ones(2)})
    assert cache.find("blob") == b"value"
    assert cache.find("arrays") is None


def test_dropping_makes_room_in_memory():
    cache = Cache(memory_bytes=10)
    cache.keep("a", bytes(6))
    cache.drop("a")
    cache.keep("b", bytes(4))
    cache.keep("c", bytes(6))
    assert cache.find("b") == bytes(4)


def test_a_cache_that_does_not_write_reads_what_there_is(tmp_path):
    Cache(tmp_path / "there").blob("a", lambda: b"1")
    reading = Cache(tmp_path / "there", writes=False)
    assert reading.blob("a", lambda: b"2") == b"1"
    assert reading.blob("b", lambda: b"3") == b"3"
    reading.keep("c", b"4")
    reading.drop("a")
    assert Cache(tmp_path / "there").find("a") == b"1"
    assert Cache(tmp_path / "there").find("b") is None
    assert Cache(tmp_path / "there").find("c") is None
    Cache(tmp_path / "absent", writes=False).blob("a", lambda: b"1")
    assert not (tmp_path / "absent").exists()
