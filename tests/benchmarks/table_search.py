"""Searches a table of measured candidates as a study would search a space: the loop that the benchmarks share.

A candidate that results in the same file as one that was measured before is answered from the study and does
not count as a trial. A proposal that is not in the table is answered with the nearest candidate that was not
measured, in one of two ways (`Miss`), so that every sampler learns from it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState, create_trial

from search.cli.sweep import interval
from search.samplers.candidates.context import (
    KnowledgeRow,
    LowFidelityEvaluations,
    Params,
    SamplerContext,
    key_of,
)

Array = NDArray[np.float64]
Miss = Literal["row", "value"]
"""What a proposal that is not in the table becomes: a trial of the nearest `row`, which takes its place, or a trial of
the proposal itself with that row's `value`."""
MISSES_IN_A_ROW = 32  # duplicates, before a random candidate is measured
RESAMPLES = 4000
MOST_CHOICES = 16  # numbers with more values are searched as a range


def _surrogate(seed: int) -> BaseSampler:
    from search.samplers.surrogate.sampler import SurrogateSampler

    return SurrogateSampler(seed=seed)


OPTUNA: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "tpe_5": lambda seed: optuna.samplers.TPESampler(n_startup_trials=5, seed=seed),
    "tpe_multivariate": lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(population_size=12, seed=seed),
    "nsga2_24": lambda seed: optuna.samplers.NSGAIISampler(population_size=24, seed=seed),
    "nsga2_50": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=10),
}
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    **OPTUNA,
    "surrogate": _surrogate,
}


@dataclass(frozen=True)
class Table:
    """Candidates with the result of a trial of each.

    Attributes:
        candidates: The `n` candidates, as Optuna parameters, without inactive knobs.
        values: `(n, n_objectives)`, not negated.
        directions: "maximize" or "minimize" per objective.
        same: `(n,)`, equal numbers for candidates that result in the same file; empty if no two do.
        excesses: Constraint to its excess, `(n,)`, <= 0 where it holds.
    """

    candidates: list[Params]
    values: Array
    directions: list[str]
    same: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    excesses: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.same):
            object.__setattr__(self, "same", np.arange(len(self.candidates)))

    @cached_property
    def position(self) -> dict[Any, int]:
        """Position of each candidate by `key_of`."""
        return {key_of(candidate): at for at, candidate in enumerate(self.candidates)}

    @cached_property
    def knobs(self) -> dict[str, tuple[Any, ...]]:
        """Values of each knob, in the order of their appearance."""
        found: dict[str, dict[tuple[type, Any], None]] = {}
        for candidate in self.candidates:
            for name, value in candidate.items():
                found.setdefault(name, {})[type(value), value] = None
        return {
            name: tuple(value for _, value in sorted(values_of_knob, key=str))
            for name, values_of_knob in found.items()
        }

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions of the knobs: a range for numbers with many values, choices for others."""
        return {name: _distribution(values) for name, values in self.knobs.items()}

    @cached_property
    def codes(self) -> Array:
        """`(n, n_knobs)`, positions of the values, or places in the range; -1 where a knob is inactive."""
        return np.array([self._code(candidate) for candidate in self.candidates])

    def _code(self, candidate: Params) -> Array:
        return np.array(
            [self.code(name, candidate[name]) if name in candidate else -1.0 for name in self.knobs]
        )

    def code(self, name: str, value: Any) -> float:
        """Returns the position of a knob's value, or its place in the range, in [0, 1]."""
        kind = self.distributions[name]
        if isinstance(kind, FloatDistribution):
            return float((value - kind.low) / (kind.high - kind.low))
        return float(self.knobs[name].index(value))

    def nearest(self, candidate: Params, left: NDArray[np.intp], rng: np.random.Generator) -> int:
        """Returns the position among `left` with the smallest distance, ties at random.

        A knob with choices adds 1 where it differs, a number its distance over the range.
        """
        gaps = np.abs(self.codes[left] - self._code(candidate))
        numeric = [isinstance(kind, FloatDistribution) for kind in self.distributions.values()]
        distance = np.where(numeric, gaps, gaps != 0).sum(axis=1)
        return int(rng.choice(left[distance == distance.min()]))

    def part(self, chosen: NDArray[np.bool_]) -> "Table":
        """Returns the table of the candidates in a mask `(n,)`."""
        at = np.flatnonzero(chosen)
        excesses = {name: excess[at] for name, excess in self.excesses.items()}
        return Table(
            [self.candidates[i] for i in at], self.values[at], self.directions, self.same[at], excesses
        )

    def context(
        self,
        low_fidelity: LowFidelityEvaluations | None = None,
        knowledge: Sequence[KnowledgeRow] = (),
        baselines: Sequence[float | None] = (),
    ) -> SamplerContext:
        """Returns the context that a study would hand its sampler."""
        return SamplerContext(
            self.candidates,
            knowledge,
            directions=self.directions,
            distributions=self.distributions,
            low_fidelity=low_fidelity,
            baselines=baselines,
        )


def search(
    table: Table, sampler: BaseSampler, seed: int, context: SamplerContext | None = None, miss: Miss = "row"
) -> Iterator[int]:
    """Yields the positions of the candidates that are measured, each file once, until there are no more.

    Args:
        table: The candidates.
        sampler: Proposes candidates.
        seed: Seed of the replacements of duplicates and of proposals that are not in the table.
        context: For samplers with `bind`; None takes `table.context()`.
        miss: What a proposal that is not in the table becomes.
    """
    study = optuna.create_study(directions=table.directions, sampler=sampler)
    if hasattr(sampler, "bind"):
        sampler.bind(context or table.context())
    rng = np.random.default_rng([seed, 1])
    left, misses = np.arange(len(table.candidates)), 0
    while len(left):
        if misses >= MISSES_IN_A_ROW:
            study.enqueue_trial(dict(table.candidates[int(rng.choice(left))]))
        trial = study.ask()
        at = table.position.get(key_of(_ask_all(trial, table)))
        if at is None:
            at = table.nearest(trial.params, left, rng)
            if miss == "row":
                trial = _replaced(study, trial, table, table.candidates[at])
        for name, excess in table.excesses.items():
            trial.set_constraint(name, float(excess[at]))
        study.tell(trial, table.values[at].tolist())
        if at in left:
            misses, left = 0, left[table.same[left] != table.same[at]]
            yield at
        else:
            misses += 1


def _replaced(study: optuna.Study, trial: Trial, table: Table, candidate: Params) -> Trial:
    """Returns a trial of a candidate in the place of another trial, which fails.

    It takes over what the sampler noted at that one: NSGA-II keeps the generation there, and does not count a trial
    without it, as `enqueue_trial` makes them.
    """
    noted = study.get_trials(deepcopy=False)[trial.number].system_attrs
    study.tell(trial, state=TrialState.FAIL)
    attributes = {**noted, "fixed_params": dict(candidate)}
    study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=attributes))
    replacement = study.ask()
    _ask_all(replacement, table)
    return replacement


def _ask_all(trial: optuna.trial.Trial, table: Table) -> Params:
    """Asks for every knob that is active in the table's rows with the values so far; returns the candidate."""
    agree = np.ones(len(table.candidates), dtype=np.bool_)
    for at, (name, kind) in enumerate(table.distributions.items()):
        codes = table.codes[:, at]
        if (codes[agree] >= 0).any() or (not agree.any() and (codes >= 0).all()):
            value = trial._suggest(name, kind)
            agree &= codes == table.code(name, value)
        else:
            agree &= codes < 0
    return trial.params


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numeric and len(values) > MOST_CHOICES:
        return FloatDistribution(float(min(values)), float(max(values)))
    return CategoricalDistribution(values)


def mean_text(counts: Sequence[float]) -> str:
    """Returns the mean with its 95 % interval."""
    if len(set(counts)) < 2:
        return f"{np.mean(counts):.1f}"
    low, high = interval(counts)  # type: ignore[arg-type]
    return f"{np.mean(counts):.1f} [{low:.1f}, {high:.1f}]"


def median_text(counts: Sequence[float]) -> str:
    """Returns the median with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(counts, (RESAMPLES, len(counts))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{np.median(counts):g} [{low:g}, {high:g}]"
