"""Converts another study's candidates into candidates of this space, where possible."""

from collections.abc import Mapping, Sequence

from search.record.values import equal, text_of, value_in
from search.tracking.mlflow_names import safe_name
from spaces.candidate import Candidate, Value
from spaces.knobs import Knob
from spaces.space import Space


class MisfitError(Exception):
    """A candidate of another study is not in this space; the message says why."""


class Matcher:
    """Converts knobs of other studies into candidates of a space.

    A knob that only this space has takes the default that the other study recorded; a knob that only the
    other study has must have this study's default. A value outside the knob's domain is a misfit.

    Args:
        space: The space.
        defaults: Knob (`quantize.scheme`) to the value that its stage takes where the space does not mention it.
    """

    def __init__(self, space: Space, defaults: Mapping[str, Value]) -> None:
        self._space, self._defaults = space, defaults
        self.bases = frozenset(knob.base for knob in space.knobs)
        self._paths = {safe_name(knob.path): knob.path for knob in space.knobs}  # as MLflow spells them

    def shares_knobs(self, knobs: Sequence[str]) -> bool:
        """Returns whether any of another study's knobs is in this space."""
        return not self.bases.isdisjoint(map(base_of, knobs))

    def candidate(self, knobs: Mapping[str, Value], defaults: Mapping[str, Value]) -> Candidate:
        """Returns the candidate.

        Args:
            knobs: The other candidate's active knobs, as values or text.
            defaults: The other study's defaults, as far as they are known.

        Raises:
            MisfitError: The knobs are not a candidate of this space.
        """
        knobs = {self._paths.get(safe_name(name), name): value for name, value in knobs.items()}
        values: dict[str, Value] = {}
        for knob in self._space.knobs:
            if self._space.active(knob, values):
                given = self._given(knob, knobs, defaults)
                found = value_in(knob.domain, given)
                if found is None:
                    raise MisfitError(f"{knob.path} is {text_of(given)} there; here it can be: {knob.domain}")
                values[knob.path] = found[0]
        self._check_rest(knobs, defaults)
        broken = self._space.broken(values)
        if broken is not None:
            raise MisfitError(f"it breaks the constraint {broken.name}: {broken.text}")
        return Candidate(values)

    def _given(self, knob: Knob, knobs: Mapping[str, Value], defaults: Mapping[str, Value]) -> Value:
        for name in (knob.path, knob.base):  # one value for the whole model holds for each of its groups
            if name in knobs:
                return knobs[name]
        grouped = [value for name, value in knobs.items() if base_of(name) == knob.base]
        if grouped and knob.group is None and all(equal(grouped[0], v) for v in grouped):
            return grouped[0]
        if grouped:
            raise MisfitError(f"{knob.base} is set for other groups of layers there")
        if knob.base not in defaults:
            raise MisfitError(f"{knob.base} is not set there, and its default of that time is not on record")
        return defaults[knob.base]

    def _check_rest(self, knobs: Mapping[str, Value], defaults: Mapping[str, Value]) -> None:
        """Raises MisfitError if a knob that this space lacks is not at its default (ours, or else theirs)."""
        for name, value in knobs.items():
            base = base_of(name)
            if base in self.bases:
                continue
            default = self._defaults.get(base, defaults.get(base, _UNKNOWN))
            if not equal(default, value):
                here = "nothing here has this knob" if default == _UNKNOWN else f"{text_of(default)} here"
                raise MisfitError(f"{name} is {text_of(value)} there, {here}")


_UNKNOWN = "\0"  # no knob has this value


def base_of(path: str) -> str:
    """Returns a knob's path without its group of layers."""
    return path.partition("[")[0]
