"""What a study can tell its sampler before the first proposal: the candidates, the task, and what is known of others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
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
    """

    task: str
    params: Params
    value: float
    descriptors: Mapping[str, float] = field(default_factory=dict)


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
    """

    pool: Sequence[Params] | None = None
    knowledge: Sequence[KnowledgeRow] = ()
    descriptors: Mapping[str, float] = field(default_factory=dict)
    directions: Sequence[str] = ("maximize",)
    draw: Callable[[np.random.Generator], Params] | None = None
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)


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
