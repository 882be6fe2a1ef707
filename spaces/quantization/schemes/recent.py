"""A least-recently-used (LRU) cache."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """An LRU cache with a bound on the total size; the most recently used result is never evicted.

    Args:
        most: Maximum total size, in the unit of `size`.
        size: Returns the size of a result; 1 by default, which bounds the number of results.
    """

    def __init__(self, most: int, size: Callable[[Value], int] = lambda value: 1) -> None:
        self._most, self._size = most, size
        self._total = 0
        self._kept: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, build: Callable[[], Value]) -> Value:
        """Returns the result under `key`, building it if it is absent."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self._kept[key] = build()
        self._total += self._size(found)
        while self._total > self._most and len(self._kept) > 1:
            self._total -= self._size(self._kept.popitem(last=False)[1])
        return found
