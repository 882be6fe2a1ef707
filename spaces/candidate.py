"""A candidate: one value for every active knob. Immutable, hashable, with a stable digest."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

Value = str | int | float | bool | None | tuple["Value", ...]
# A knob's value as a stage gets it: one value, or one per layer for a per-layer knob.
StageValue = Value | dict[str, Value]


def freeze(value: object) -> Value:
    """Turns lists into tuples, recursively, so that a value can be hashed."""
    if isinstance(value, list | tuple):
        return tuple(freeze(v) for v in value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a knob value must be a string, number, boolean, null or list of these, not {value!r}")


def value_text(value: Value) -> str:
    """Returns the value as compact JSON, a string as it is: the form used in CSV files and feature names."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


class Candidate(Mapping[str, Value]):
    """One value for every active knob of a space.

    Args:
        values: Knob path (`quantize.weight_bits`, or `quantize.weight_bits[stem]` for one value of a
            per-layer knob) to value. Lists become tuples.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        frozen = {path: freeze(values[path]) for path in sorted(values)}
        self._values: Mapping[str, Value] = MappingProxyType(frozen)

    def __getitem__(self, path: str) -> Value:
        return self._values[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.digest == other.digest

    def __repr__(self) -> str:
        return f"Candidate({', '.join(f'{k}={value_text(v)}' for k, v in self.items())})"

    def __reduce__(self) -> tuple[type["Candidate"], tuple[dict[str, Value]]]:
        return Candidate, (dict(self._values),)

    @cached_property
    def digest(self) -> str:
        """16 hex digits of SHA-256 over canonical JSON: equal across processes and Python versions."""
        text = json.dumps(dict(self._values), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
