"""Keeps what was used last, up to a bound."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Results under their keys; the least recently used go first. What was used last stays, however large it is.

    Args:
        most: Most that is kept, in the unit of `size`.
        size: How much one result counts; 1 each, unless said otherwise.
    """

    def __init__(self, most: int, size: Callable[[Value], int] = lambda value: 1) -> None:
        self._most, self._size = most, size
        self._total = 0
        self._kept: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, build: Callable[[], Value]) -> Value:
        """Returns the result under `key`, building it if it is not there."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self._kept[key] = build()
        self._total += self._size(found)
        while self._total > self._most and len(self._kept) > 1:
            self._total -= self._size(self._kept.popitem(last=False)[1])
        return found
