"""How long a sampler takes to propose, after so many trials.

Run from the root of the repository::

    python tests/benchmarks/propose_speed.py

Three spaces: 4,096 candidates that are listed; 4^10 (a million) with one knob per layer that are not; and 20 mixed knobs (eight
ranges of numbers, four of whole numbers, eight choices). Past trials are random
candidates; then each sampler proposes a few times, and each result is reported to it. Prints the median
processor time of the proposals after the first, and that of the first, which may fill caches for later ones.
Optuna's Gaussian process is measured after at most 100 trials: after 1,000 it would take too long.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, GPSampler, TPESampler

from search.samplers.candidates.context import SamplerContext
from search.samplers.surrogate.sampler import SurrogateSampler

Space = dict[str, BaseDistribution]
SPACES: dict[str, Space] = {
    "4,096 listed": {f"knob{i}": CategoricalDistribution([0, 1, 2, 3]) for i in range(6)},
    "a million, per layer": {
        f"quantize.weight_bits[layer{i}]": CategoricalDistribution([2, 4, 6, 8]) for i in range(10)
    },
    "20 mixed knobs": {
        **{f"ratio[layer{i}]": FloatDistribution(0.0, 0.9) for i in range(8)},
        **{f"width{i}": IntDistribution(8, 64) for i in range(4)},
        **{f"method{i}": CategoricalDistribution(["a", "b", "c", "d"]) for i in range(8)},
    },
}
SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "surrogate": lambda: SurrogateSampler(pool_size=4096, seed=0),
    "tpe": lambda: TPESampler(seed=0),
    "gp": lambda: GPSampler(seed=0),
}
PAST = (10, 100, 1000, 3000)
GP_MOST = 100


@dataclass
class Problem:
    """A random function over a space: a part for each knob, and noise."""

    space: Space
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self._parts = {name: self.rng.normal(size=10) for name in self.space}

    def value(self, params: dict[str, Any]) -> float:
        """Returns a noisy result."""
        return float(sum(self._part(name, value) for name, value in params.items()) + self.rng.normal(0, 0.3))

    def _part(self, name: str, value: Any) -> float:
        kind = self.space[name]
        if isinstance(kind, CategoricalDistribution):
            return float(self._parts[name][kind.choices.index(value)])
        assert isinstance(kind, FloatDistribution | IntDistribution)
        return float(
            np.interp((value - kind.low) / (kind.high - kind.low), np.linspace(0, 1, 10), self._parts[name])
        )

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Returns a random candidate."""
        return {name: _drawn(kind, rng) for name, kind in self.space.items()}

    def context(self) -> SamplerContext:
        """Returns the context that a study hands its sampler, with all candidates where they can be listed."""
        choices = [getattr(kind, "choices", ()) for kind in self.space.values()]
        listed = 0 < np.prod([float(len(c)) for c in choices]) <= 4096
        pool = (
            [dict(zip(self.space, values, strict=True)) for values in product(*choices)] if listed else None
        )
        return SamplerContext(pool, draw=self.draw, distributions=self.space)


def _drawn(kind: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(rng.integers(len(kind.choices)))]
    assert isinstance(kind, FloatDistribution | IntDistribution)
    if isinstance(kind, IntDistribution):
        return int(rng.integers(kind.low, kind.high + 1))
    return float(rng.uniform(kind.low, kind.high))


def seconds(problem: Problem, sampler: BaseSampler, n_past: int, n: int) -> list[float]:
    """Returns the processor time of each of `n` proposals after `n_past` trials."""
    if isinstance(sampler, SurrogateSampler):
        sampler.bind(problem.context())
    study = optuna.create_study(direction="maximize", sampler=sampler)
    past = [problem.draw(problem.rng) for _ in range(n_past)]
    kinds = problem.space
    study.add_trials(
        [optuna.trial.create_trial(params=p, distributions=kinds, value=problem.value(p)) for p in past]
    )
    found = []
    for _ in range(n):
        began = time.process_time()
        trial = study.ask()
        params = {name: trial._suggest(name, kind) for name, kind in problem.space.items()}
        found.append(time.process_time() - began)
        study.tell(trial, problem.value(params))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proposals", type=int, default=12)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print("processor time of a proposal, ms: median (first)")
    for space, name in product(SPACES, given.samplers.split(",")):
        cells = []
        for n_past in PAST:
            if name == "gp" and n_past > GP_MOST:
                continue
            found = seconds(
                Problem(SPACES[space], np.random.default_rng(0)), SAMPLERS[name](), n_past, given.proposals
            )
            cells.append(f"{n_past}: {1e3 * statistics.median(found[1:]):.0f} ({1e3 * found[0]:.0f})")
        print(f"{space:22} {name:10}", "   ".join(f"{cell:22}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
