"""What a study can tell its sampler before the first proposal: the candidates, the task, and what is known of others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

Params = Mapping[str, Any]
"""One candidate as Optuna holds it: knob to value, only the active knobs."""


@dataclass(frozen=True)
class KnowledgeRow:
    """One measurement of another task.

    Attributes:
        task: Name of the task.
        params: The candidate, encoded as in `optuna.trial.FrozenTrial.params`.
        value: The first objective, raw (not negated where it is minimised).
        descriptors: What is known of that task, e.g. its number of convolutions.
        baseline: What the uncompressed model has for the first objective there; None if unknown.
        values: All objectives in the study's order, each relative to the uncompressed model there: the difference for
            a score, the ratio for a cost; NaN where it was not measured. Empty if nothing but `value` is known.
        same_model: Whether it is the very model, data and knobs of the present study, so that the row is nearly the truth.
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
    """What is certain of candidates before any of them is built.

    Attributes:
        values: Objectives in the study's order, `(n, n_objectives)`, raw; NaN where only a trial can tell.
        excesses: Constraint to how far it is broken, `(n,)`, <= 0 where it holds; NaN where only a trial can tell.
        keys: For each candidate a text that is equal for candidates which come to the same file; "" where the
            candidate cannot be built.
    """

    values: NDArray[np.float64]
    excesses: Mapping[str, NDArray[np.float64]]
    keys: Sequence[str]


@dataclass(frozen=True)
class PartialResult:
    """What running a candidate on a few examples said.

    Attributes:
        n_examples: The first so many of the validation split.
        values: Estimates of the objectives, `(n_objectives,)`, raw; NaN where the look cannot tell.
        errors: Their standard errors: of the difference from the float model over the same examples, `(n_objectives,)`.
        excesses: Constraint to `(estimate, standard error)` of its excess, where the look can tell.
        features: Whatever else says how good the candidate is, by name, higher is better (agreement, output_sqnr_db).
    """

    n_examples: int
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    excesses: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    features: Mapping[str, float] = field(default_factory=dict)


class LowFidelityEvaluations(Protocol):
    """Cheap looks before dear trials. Nothing here is a trial; the seconds are noted under `seconds.*`.

    Attributes:
        sizes: How many examples a short look can have, ascending; the last may be most of the validation split.
        n_full: Examples of a full evaluation.
    """

    sizes: Sequence[int]
    n_full: int

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns what is certain: modelled costs, which are exact and free."""

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, NDArray[np.float64]]:
        """Returns figures that need no run of the candidate, by name, `(n,)` each, NaN where there is none.

        Higher is better (propagated signal-to-noise ratios).
        """

    def short(self, candidate: Params, n_examples: int) -> PartialResult | None:
        """Runs a candidate on the first examples of the validation split; None if it cannot be built or run."""


@dataclass(frozen=True)
class SamplerContext:
    """Handed to a sampler's `bind`, once, after its construction.

    Attributes:
        pool: Every candidate, with values exactly as they appear in `trial.params`; None if there are too many.
        knowledge: Measurements of other tasks.
        descriptors: Those of the present task.
        directions: "maximize" or "minimize" per objective.
        draw: Draws one random candidate, for spaces without a pool; None leaves the drawing to the sampler.
        distributions: Every knob's distribution, if they are known beforehand.
        low_fidelity: What can be told of a candidate before its trial; None where nothing can (a table).
        baselines: What the uncompressed model has, per objective, raw; None where it is unknown. Empty if none is.
    """

    pool: Sequence[Params] | None = None
    knowledge: Sequence[KnowledgeRow] = ()
    descriptors: Mapping[str, float] = field(default_factory=dict)
    directions: Sequence[str] = ("maximize",)
    draw: Callable[[np.random.Generator], Params] | None = None
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    low_fidelity: LowFidelityEvaluations | None = None
    baselines: Sequence[float | None] = ()


@runtime_checkable
class Bindable(Protocol):
    """A sampler that wants the context. One without `bind` is left alone."""

    def bind(self, context: SamplerContext) -> None:
        """Takes the context.

        Raises:
            ConfigError: The sampler cannot work on this study.
        """


def key_of(params: Params) -> frozenset[tuple[str, Any]]:
    """Returns a hashable form of a candidate: equal for equal candidates, whatever the order of their knobs."""
    return frozenset((name, _comparable(value)) for name, value in params.items())


def _comparable(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return (type(value).__name__, value)  # keeps True and 1 apart
    return float(f"{value:.12g}")  # 0.1 + 0.2 and 0.3 are one value
