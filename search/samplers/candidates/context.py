"""The context that a study hands its sampler: candidates, knowledge, low-fidelity evaluations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from search.allocators.base import AllocationContext

Params = Mapping[str, Any]
"""One candidate as in `trial.params`: knob to value, only the active knobs."""


WEIGHTS = "surrogate_weights"
"""User attribute of a trial: how much other tasks' measurements counted in its choice, `{"knowledge": ..., "none": ...}`."""


@dataclass(frozen=True)
class KnowledgeRow:
    """One measurement of another task.

    Attributes:
        task: Name of the task.
        params: The candidate, encoded as in `optuna.trial.FrozenTrial.params`.
        value: The first objective, not negated where it is minimised.
        descriptors: Features of that task, e.g. its number of convolutions.
        baseline: The first objective of that task's uncompressed model; None if unknown.
        values: All objectives in the study's order, each relative to that task's uncompressed model: the
            difference for a score, the ratio for a cost; NaN where it was not measured. Empty if only `value`
            is known.
        same_model: Whether model, data and knobs are those of the present study, so that the row nearly
            equals a result of it.
    """

    task: str
    params: Params
    value: float
    descriptors: Mapping[str, float] = field(default_factory=dict)
    baseline: float | None = None
    values: tuple[float, ...] = ()
    same_model: bool = False


@dataclass(frozen=True)
class Known:
    """Exact values of `n` candidates that are known before any of them is built.

    Attributes:
        values: Objectives in the study's order, `(n, n_objectives)`, not negated; NaN where only a trial
            measures them.
        excesses: Constraint to its excess, `(n,)`, <= 0 where it holds; NaN where only a trial measures it.
        keys: For each candidate the key of its artifact, equal for candidates that result in the same file;
            "" where the candidate cannot be built.
    """

    values: NDArray[np.float64]
    excesses: Mapping[str, NDArray[np.float64]]
    keys: Sequence[str]


@dataclass(frozen=True)
class PartialResult:
    """Result of a low-fidelity evaluation: a candidate run on a subset of the validation examples.

    Attributes:
        n_examples: Size of the subset: the first examples of the validation split.
        values: Estimates of the objectives, `(n_objectives,)`, not negated; NaN where the run does not
            estimate one.
        errors: Their standard errors: of the difference from the float model over the same examples, `(n_objectives,)`.
        excesses: Constraint to `(estimate, standard error)` of its excess, for those that the run estimates.
        features: Other indicators of quality by name, higher is better (agreement, output_sqnr_db).
    """

    n_examples: int
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    excesses: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    features: Mapping[str, float] = field(default_factory=dict)


class LowFidelityEvaluations(Protocol):
    """Cheap evaluations before expensive trials.

    None of them counts as a trial; their seconds are recorded as `seconds.*`.

    Attributes:
        sizes: Subset sizes that are allowed, in examples, ascending; the last may be most of the validation
            split.
        n_full: Number of examples of a full evaluation.
    """

    sizes: Sequence[int]
    n_full: int

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns the exact values that need no run: modelled costs."""

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, NDArray[np.float64]]:
        """Returns statistics that need no run of the candidate, by name, `(n,)` each, NaN where there is none.

        Higher is better (propagated signal-to-noise ratios).
        """

    def short(self, candidate: Params, n_examples: int) -> PartialResult | None:
        """Runs a candidate on the first examples of the validation split; None if it cannot be built or run."""


class KnownOnly(LowFidelityEvaluations):
    """What is known of candidates, without any evaluation of them. A subclass implements `known`."""

    sizes: Sequence[int] = ()
    n_full: int = 1

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, NDArray[np.float64]]:
        """Returns none."""
        return {}

    def short(self, candidate: Params, n_examples: int) -> PartialResult | None:
        """Returns None: nothing is run before a trial."""
        return None


class Expense(Protocol):
    """What trials cost, where several candidates share an expensive part, e.g. a training."""

    @property
    def trained(self) -> Mapping[str, tuple[Params, float]]:
        """By key of a part that has been built, an example of its candidates and the seconds it took."""

    @property
    def rest_s(self) -> float:
        """Mean seconds of a trial besides that part."""

    def keys(self, candidates: Sequence[Params]) -> list[str]:
        """Returns a key for each candidate that is equal for those that share the part; empty if it has none."""


@dataclass(frozen=True)
class SamplerContext:
    """Handed to a sampler's `bind`, once, after its construction.

    Attributes:
        pool: Every candidate, with values exactly as they appear in `trial.params`; None if there are too many.
        knowledge: Measurements of other tasks.
        descriptors: Features of the present task.
        directions: "maximize" or "minimize" per objective.
        draw: Draws one random candidate, for spaces without a pool; None leaves the drawing to the sampler.
        distributions: Every knob's distribution, if they are known beforehand.
        low_fidelity: Evaluates candidates before their trial; None where that is impossible (a table).
        baselines: The uncompressed model's objectives, not negated; None where unknown. Empty if all are.
        expense: What trials cost; where it is given, the budget is time, and a gain counts by what it costs.
        allocation: What an allocator needs of the layers; None where no knob belongs to layers.
    """

    pool: Sequence[Params] | None = None
    knowledge: Sequence[KnowledgeRow] = ()
    descriptors: Mapping[str, float] = field(default_factory=dict)
    directions: Sequence[str] = ("maximize",)
    draw: Callable[[np.random.Generator], Params] | None = None
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    low_fidelity: LowFidelityEvaluations | None = None
    baselines: Sequence[float | None] = ()
    expense: Expense | None = None
    allocation: AllocationContext | None = None


@runtime_checkable
class Bindable(Protocol):
    """A sampler that uses the context; samplers without `bind` get none."""

    def bind(self, context: SamplerContext) -> None:
        """Stores the context.

        Raises:
            ConfigError: The sampler cannot work on this study.
        """


@runtime_checkable
class Explains(Protocol):
    """A sampler that says what led to its proposals."""

    def explanation(self) -> Mapping[str, Any]:
        """Returns JSON-able details for the report; empty if there are none."""


def key_of(params: Params) -> frozenset[tuple[str, Any]]:
    """Returns a hashable form of a candidate: equal for equal candidates, whatever the order of their knobs."""
    return frozenset((name, _comparable(value)) for name, value in params.items())


def _comparable(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return (type(value).__name__, value)  # keeps True and 1 apart
    return float(f"{value:.12g}")  # 0.1 + 0.2 and 0.3 are one value
