"""A space: the tree of knobs that a config declares, with its constraints between knobs."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spaces.candidate import Candidate, StageValue, Value, freeze
from spaces.constraints import Constraint
from spaces.digest import digest_of
from spaces.errors import SpaceError, unknown_name
from spaces.knobs import Condition, Domain, Knob, Range, same, without

_MAX_COUNTED = 1_000_000  # assignments walked to count a space with conditions or constraints
_MAX_DRAWS = 10_000


@dataclass(frozen=True)
class Size:
    """The number of candidates of a space.

    Attributes:
        count: The number; None if it is infinite.
        exact: False if `count` is an upper bound only.
    """

    count: int | None
    exact: bool = True

    def __str__(self) -> str:
        if self.count is None:
            return "infinite (a knob is continuous)"
        return f"{'' if self.exact else 'at most '}{self.count:,}"


class Space:
    """A search space: its knobs, each after those that its conditions depend on, and its constraints.

    Args:
        knobs: The knobs, in config order.
        constraints: Constraints that every candidate must satisfy.

    Raises:
        SpaceError: A path is declared twice, a condition or constraint names an unknown knob, a condition
            names a value outside the knob's domain, conditions are cyclic, or no candidate satisfies the
            constraints.
    """

    def __init__(self, knobs: Sequence[Knob], constraints: Sequence[Constraint] = ()) -> None:
        self.knobs: tuple[Knob, ...] = _in_order(_checked(knobs))
        self.constraints = tuple(constraints)
        self._by_path = {knob.path: knob for knob in self.knobs}
        self._bases = {knob.base for knob in self.knobs}
        if not self.knobs:
            raise SpaceError("the space is empty: `space` must declare at least one knob")
        for constraint in self.constraints:
            for path in constraint.paths - self._bases:
                known = unknown_name("knob", path, self._bases, f"space.constraints.{constraint.name}")
                raise SpaceError(known)
        if self.size.exact and self.size.count == 0:
            raise SpaceError(f"the space is contradictory: no candidate satisfies {self._constraint_text()}")

    def __len__(self) -> int:
        return len(self.knobs)

    def __getitem__(self, path: str) -> Knob:
        return self._by_path[path]

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the knobs and constraints."""
        return digest_of(self.knobs, self.constraints)

    # -- which knobs are active ------------------------------------------------------------------------

    def active(self, knob: Knob, values: Mapping[str, Value]) -> bool:
        """Whether the knob's conditions hold; `values` must include every active knob before it."""
        return all(c.path in values and any(same(values[c.path], v) for v in c.values) for c in knob.when)

    def complete(self, values: Mapping[str, object]) -> Candidate:
        """Returns the candidate that keeps the values of active knobs and drops all others.

        Raises:
            SpaceError: A path is unknown, an active knob has no value, or a value lies outside its domain.
        """
        for path in values:
            if path not in self._by_path:
                raise SpaceError(unknown_name("knob", path, self._by_path))
        kept: dict[str, Value] = {}
        for knob in self.knobs:
            if self.active(knob, kept):
                kept[knob.path] = self._value_of(knob, values)
        return Candidate(kept)

    def _value_of(self, knob: Knob, values: Mapping[str, object]) -> Value:
        if knob.path not in values:
            raise SpaceError(f"knob {knob.path!r} is active but has no value; allowed: {knob.domain}")
        value = freeze(values[knob.path])
        if value not in knob.domain:
            raise SpaceError(f"knob {knob.path!r} cannot be {value!r}; allowed: {knob.domain}")
        return value

    # -- constraints -------------------------------------------------------------------------------------

    def broken(self, values: Mapping[str, Value]) -> Constraint | None:
        """Returns the first constraint that the values violate, or None."""
        known = self._for_constraints(values)
        return next((c for c in self.constraints if not c.holds(known)), None)

    def validate(self, candidate: Candidate) -> None:
        """Raises SpaceError if the candidate does not belong to the space."""
        if dict(self.complete(candidate)) != dict(candidate):
            extra = sorted(set(candidate) - set(self.complete(candidate)))
            raise SpaceError(f"knobs {extra} are inactive in {candidate!r} and must be left out")
        broken = self.broken(candidate)
        if broken is not None:
            raise SpaceError(f"{candidate!r} breaks the constraint {broken.name}: {broken.text}")

    def _for_constraints(self, values: Mapping[str, Value]) -> dict[str, Value | list[Value]]:
        known: dict[str, Value | list[Value]] = {}
        for knob in self.knobs:
            if knob.path not in values:
                continue
            if knob.group is None:
                known[knob.path] = values[knob.path]
            else:
                group = known.setdefault(knob.base, [])
                assert isinstance(group, list)  # a base is either grouped or not: `_checked`
                group.append(values[knob.path])
        return known

    def _constraint_text(self) -> str:
        return "; ".join(f"{c.name}: {c.text}" for c in self.constraints)

    # -- counting, enumerating, sampling -----------------------------------------------------------------

    @cached_property
    def size(self) -> Size:
        """Number of candidates: exact where it is finite and can be counted, else an upper bound."""
        steering = [k for k in self.knobs if k.path in self._steering]
        plain = [k for k in self.knobs if k.path not in self._steering]
        if any(k.domain.size is None for k in self.knobs):
            return Size(None)
        if math.prod(k.domain.size or 1 for k in steering) > _MAX_COUNTED:
            return Size(math.prod(k.domain.size or 1 for k in self.knobs), exact=False)
        return Size(
            sum(
                math.prod(k.domain.size or 1 for k in plain if self.active(k, values))
                for values in self._walk(steering, {})
            )
        )

    @cached_property
    def _steering(self) -> frozenset[str]:
        """Paths of the knobs that conditions or constraints depend on, directly or through conditions."""
        names = {c.path for k in self.knobs for c in k.when}
        bases = {path for c in self.constraints for path in c.paths}
        found = {k.path for k in self.knobs if k.path in names or k.base in bases}
        for knob in reversed(self.knobs):
            if knob.path in found:
                found |= {c.path for c in knob.when}
        return frozenset(found)

    def enumerate(self) -> Iterator[Candidate]:
        """Yields every candidate once, in config order (the last knob varies fastest).

        Raises:
            SpaceError: A knob is continuous.
        """
        return (Candidate(values) for values in self._walk(list(self.knobs), {}))

    def _walk(self, knobs: list[Knob], values: dict[str, Value]) -> Iterator[dict[str, Value]]:
        if not knobs:
            if self.broken(values) is None:
                yield dict(values)
            return
        head, rest = knobs[0], knobs[1:]
        if not self.active(head, values):
            yield from self._walk(rest, values)
            return
        for value in head.domain:
            yield from self._walk(rest, {**values, head.path: value})

    def sample(self, rng: np.random.Generator) -> Candidate:
        """Draws a candidate by rejection sampling: knob by knob, repeated until the constraints hold.

        Raises:
            SpaceError: None of 10,000 draws satisfied the constraints.
        """
        for _ in range(_MAX_DRAWS):
            values: dict[str, Value] = {}
            for knob in self.knobs:
                if self.active(knob, values):
                    values[knob.path] = knob.domain.sample(rng)
            if self.broken(values) is None:
                return Candidate(values)
        raise SpaceError(
            f"the space looks contradictory: none of {_MAX_DRAWS:,} draws satisfied {self._constraint_text()}"
        )

    def without(self, values: Mapping[str, Collection[Value]]) -> "Space":
        """Returns the space without some values of its knobs; a domain that would be empty stays as it is.

        Args:
            values: By path without group, e.g. `prune.criterion`: the values to leave out. Knobs that are active at these only
                are never active in the result.

        Raises:
            SpaceError: No candidate that is left satisfies the constraints.
        """
        domains = {k.path: without(k.domain, values.get(k.base, ())) for k in self.knobs}
        knobs = [
            replace(knob, domain=domains[knob.path], when=tuple(_within(c, domains) for c in knob.when))
            for knob in self.knobs
        ]
        return Space(knobs, self.constraints)

    # -- features, stage values, display -----------------------------------------------------------------

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of the features that `encode` returns."""
        return tuple(name for k in self.knobs for name in k.domain.features(k.path))

    def encode(self, candidate: Candidate) -> NDArray[np.float64]:
        """Returns features `(len(features),)`: one-hot choices, ranges in [0, 1], NaN if inactive."""
        parts = (k.domain.encode(candidate.get(k.path), k.path in candidate) for k in self.knobs)
        return np.array([number for part in parts for number in part], dtype=np.float64)

    def stage_values(self, candidate: Candidate, stage: str) -> dict[str, StageValue]:
        """Returns one stage's values: `{knob: value}`, per-layer knobs as `{layer: value}`."""
        values: dict[str, StageValue] = {}
        for path, value in candidate.items():
            knob = self._by_path[path]
            owner, _, name = knob.base.partition(".")
            if owner != stage:
                continue
            if knob.layers is None:
                values[name] = value
            else:
                per_layer = values.setdefault(name, {})
                assert isinstance(per_layer, dict)
                per_layer.update(dict.fromkeys(knob.layers, value))
        return values

    def domains(self, stage: str) -> dict[str, tuple[Value, ...]]:
        """Returns the values that each knob of a stage can take; an empty tuple for a continuous range."""
        found: dict[str, tuple[Value, ...]] = {}
        for knob in self.knobs:
            owner, _, name = knob.base.partition(".")
            if owner == stage:
                values = tuple(knob.domain) if knob.domain.size is not None else ()
                found[name] = tuple(dict.fromkeys((*found.get(name, ()), *values)))
        return found

    def extremes(self, stage: str) -> dict[str, tuple[Value, ...]]:
        """Returns the values that each knob of a stage can take; the two ends of a continuous range."""
        found = self.domains(stage)
        for knob in self.knobs:
            owner, _, name = knob.base.partition(".")
            if owner == stage and isinstance(knob.domain, Range) and knob.domain.size is None:
                found[name] = tuple(dict.fromkeys((*found[name], knob.domain.low, knob.domain.high)))
        return found

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns a table for printing: `(path, domain, conditions and layers)` of each knob."""
        return [(k.path, str(k.domain), _remark(k)) for k in self.knobs]


def _within(condition: Condition, domains: Mapping[str, Domain]) -> Condition:
    return replace(condition, values=tuple(v for v in condition.values if v in domains[condition.path]))


def _remark(knob: Knob) -> str:
    when = "when " + " and ".join(map(str, knob.when)) if knob.when else ""
    layers = ", ".join((knob.layers or ())[:3])
    more = len(knob.layers or ()) - 3
    if more > 0:
        layers += f" and {more} more"
    return "; ".join(part for part in (when, layers) if part)


def _checked(knobs: Sequence[Knob]) -> Sequence[Knob]:
    paths = [k.path for k in knobs]
    twice = next((p for i, p in enumerate(paths) if p in paths[:i]), None)
    if twice is not None:
        raise SpaceError(f"knob {twice!r} is declared twice")
    domains: dict[str, Domain] = {k.path: k.domain for k in knobs}
    for knob in knobs:
        for condition in knob.when:
            if condition.path not in domains:
                raise SpaceError(unknown_name("knob", condition.path, paths, f"the condition of {knob.path}"))
            domain = domains[condition.path]
            wrong = [v for v in condition.values if v not in domain]
            if wrong:
                raise SpaceError(
                    f"the condition of {knob.path} wants {condition.path} to be {wrong[0]!r}, "
                    f"but that knob can only be: {domain}"
                )
    return knobs


def _in_order(knobs: Sequence[Knob]) -> tuple[Knob, ...]:
    """Returns the knobs in config order, except that each comes after the knobs that its conditions name."""
    waiting, placed = list(knobs), dict[str, Knob]()
    while waiting:
        ready = next((k for k in waiting if all(c.path in placed for c in k.when)), None)
        if ready is None:
            names = ", ".join(k.path for k in waiting)
            raise SpaceError(f"the conditions of these knobs go in a circle: {names}")
        waiting.remove(ready)
        placed[ready.path] = ready
    return tuple(placed.values())
