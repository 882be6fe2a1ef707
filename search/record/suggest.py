"""Conversion between Optuna's parameters and candidates."""

from collections.abc import Iterator, Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from spaces.candidate import Candidate, Value, value_text
from spaces.knobs import Choices, Domain, Knob, same
from spaces.space import Space

Param = str | int | float | bool | None
MAX_POOL = 100_000


def suggest(trial: optuna.trial.Trial, space: Space) -> Candidate:
    """Returns the candidate that the sampler proposes, which may break the space's constraints."""
    values: dict[str, Value] = {}
    for knob in space.knobs:
        if space.active(knob, values):
            values[knob.path] = _suggest(trial, knob)
    return Candidate(values)


def _suggest(trial: optuna.trial.Trial, knob: Knob) -> Value:
    match distribution_of(knob.domain):
        case CategoricalDistribution(choices=choices):
            return value_of(knob.domain, trial.suggest_categorical(knob.path, choices))
        case IntDistribution() as d:
            number = trial.suggest_int(knob.path, d.low, d.high, step=d.step, log=d.log)
            return value_of(knob.domain, number)
        case FloatDistribution() as d:
            return value_of(
                knob.domain, trial.suggest_float(knob.path, d.low, d.high, step=d.step, log=d.log)
            )
    raise AssertionError(knob)


def distribution_of(domain: Domain) -> BaseDistribution:
    """Returns the Optuna distribution of a domain."""
    if isinstance(domain, Choices):
        if domain.ordered:
            return IntDistribution(0, len(domain.values) - 1)
        return CategoricalDistribution([param_of(domain, v) for v in domain.values])
    # Optuna requires `high - low` to be a multiple of the step
    high = (
        domain.high
        if domain.size is None or domain.log
        else domain.low + (domain.size - 1) * (domain.spacing or 0)
    )
    if domain.integer:
        return IntDistribution(round(domain.low), round(high), log=domain.log, step=round(domain.step or 1))
    return FloatDistribution(domain.low, round(high, 12), log=domain.log, step=domain.step)


def value_of(domain: Domain, param: Param) -> Value:
    """The inverse of `param_of`."""
    if isinstance(domain, Choices):
        if domain.ordered:
            assert isinstance(param, int)
            return domain.values[param]
        return next(v for v in domain.values if same(param_of(domain, v), param))
    return round(param, 12) if isinstance(param, float) and domain.step is not None else param


def param_of(domain: Domain, value: Value) -> Param:
    """Returns a value as Optuna's parameter: an ordered choice's position, a list as JSON, else itself."""
    if isinstance(domain, Choices) and domain.ordered:
        return next(i for i, v in enumerate(domain.values) if same(v, value))
    return value_text(value) if isinstance(value, tuple) else value


def params_of(space: Space, candidate: Mapping[str, Value]) -> dict[str, Param]:
    """Returns the Optuna parameters of a candidate."""
    return {path: param_of(space[path].domain, value) for path, value in candidate.items()}


def candidate_of(space: Space, params: Mapping[str, Param]) -> Candidate:
    """The inverse of `params_of`."""
    return Candidate({path: value_of(space[path].domain, param) for path, param in params.items()})


def pool(space: Space) -> list[dict[str, Param]] | None:
    """Returns every candidate as Optuna's parameters if there are at most 100,000, else None."""
    listed = candidates(space)
    return None if listed is None else [params_of(space, candidate) for candidate in listed]


def candidates(space: Space) -> Iterator[Candidate] | None:
    """Returns an iterator over every candidate if there are at most 100,000, else None."""
    size = space.size
    return space.enumerate() if size.count is not None and size.count <= MAX_POOL else None
