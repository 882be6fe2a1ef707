"""The LRU cache."""

import pytest

from spaces.quantization.schemes.recent import Recent


@pytest.fixture
def built():
    return []


def ask(recent, built, *keys):
    for key in keys:
        assert recent.get(key, lambda key=key: built.append(key) or key * 10) == key * 10


def test_the_least_recently_used_is_evicted_first(built):
    recent = Recent(2)
    ask(recent, built, 1, 2, 1, 3, 1, 2)
    assert built == [1, 2, 3, 2]
    assert len(recent) == 2


def test_sizes_are_bounded(built):
    recent = Recent(100, lambda value: value)
    ask(recent, built, 3, 4, 3, 5, 3)  # 30 + 40 + 50 exceed the bound
    assert built == [3, 4, 5]
    ask(recent, built, 50, 50)  # larger than the bound
    assert built == [3, 4, 5, 50]
    assert len(recent) == 1


def test_a_failed_build_is_not_cached(built):
    recent = Recent(2)
    with pytest.raises(ZeroDivisionError):
        recent.get(1, lambda: 1 / 0)
    ask(recent, built, 1)
    assert built == [1]
