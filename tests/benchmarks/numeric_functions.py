"""Regret on made-up functions of numeric knobs after some trials: the surrogate beside Optuna's samplers.

Run from the root of the repository::

    python tests/benchmarks/numeric_functions.py --results results.jsonl --seeds 20

Unlike the rows of a table (`numeric_table.py`) these have a value everywhere. `hartmann6` (Picheny et al. 2013), and the same in 19 knobs of which 13 do
nothing (`hartmann6_of_19`); `ridge_19`, a quadratic with five steep directions that are mixtures of all knobs; `limit_19`, a sum of costs
with a kink where a limit is exceeded, like pruning ratios; `ackley_10`, many local optima; `mixed_12`, six ranges, three
whole numbers, three choices. Every seed has its own optimum. All are maximised; regret is the optimum less the best so far.

Prints its mean over the seeds after `--at` trials with 95 % intervals.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from table_search import SAMPLERS, mean_text

from search.samplers.candidates.context import SamplerContext
from search.samplers.candidates.pools import draw_candidates

Array = NDArray[np.float64]
_HARTMANN_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
_HARTMANN_ALPHA = np.array([1, 1.2, 3, 3.2])
_HARTMANN_BEST = 3.32237


@dataclass(frozen=True)
class Function:
    """A function to maximise.

    Attributes:
        space: Its knobs.
        value: Maps a candidate to its value.
        best: The highest value.
    """

    space: Mapping[str, BaseDistribution]
    value: Callable[[Mapping[str, Any]], float]
    best: float


def _unit(n: int, value: Callable[[Array], float], best: float) -> Function:
    """Returns a function of `n` ranges from 0 to 1."""
    space = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(n)}
    return Function(space, lambda params: value(np.array([params[name] for name in space])), best)


def _hartmann(u: Array) -> float:
    return float(_HARTMANN_ALPHA @ np.exp(-np.sum(_HARTMANN_A * (u - _HARTMANN_P) ** 2, axis=1)))


def hartmann6(rng: np.random.Generator) -> Function:
    """Six knobs, six local optima."""
    return _unit(6, _hartmann, _HARTMANN_BEST)


def hartmann6_of_19(rng: np.random.Generator) -> Function:
    """Six of 19 knobs count."""
    chosen = rng.permutation(19)[:6]
    return _unit(19, lambda u: _hartmann(u[chosen]), _HARTMANN_BEST)


def ridge_19(rng: np.random.Generator) -> Function:
    """A quadratic, ten times as steep along five mixtures of the knobs."""
    turned = np.linalg.qr(rng.normal(size=(19, 19)))[0]
    mixing, center = 0.5 * turned + 0.5 * np.eye(19), rng.uniform(0.2, 0.8, 19)
    weights = np.r_[np.full(5, 10.0), np.ones(14)]
    return _unit(19, lambda u: -float(weights @ (mixing @ (u - center)) ** 2), 0.0)


def limit_19(rng: np.random.Generator) -> Function:
    """Cubic costs of pruning 19 layers, and a penalty for what is left beyond half."""
    cost, size = rng.gamma(1, 1, 19), rng.gamma(2, 1, 19)
    size /= size.sum()

    def value(u: Array) -> float:
        return -float(cost @ u**3 + 30 * max(0.0, size @ (1 - u) - 0.5))

    # with a multiplier of the limit each knob is alone; the best lies at one of these, or between
    lagrangian = [np.clip(np.sqrt(m * size / (3 * cost)), 0, 1) for m in np.linspace(0, 30, 3001)]
    return _unit(19, value, max(map(value, lagrangian)))


def ackley_10(rng: np.random.Generator) -> Function:
    """Ackley's function with its optimum near the middle."""
    center = rng.uniform(0.3, 0.7, 10)

    def value(u: Array) -> float:
        z = 8 * (u - center)
        return float(
            20 * np.exp(-0.2 * np.sqrt(np.mean(z**2))) + np.exp(np.mean(np.cos(np.pi * z))) - 20 - np.e
        )

    return _unit(10, value, 0.0)


def mixed_12(rng: np.random.Generator) -> Function:
    """Ranges, whole numbers and choices; two ranges do nothing."""
    center, whole = rng.uniform(0.2, 0.8, 6), rng.integers(3, 18, 3)
    effects = rng.normal(0, 0.3, (3, 4))
    effects -= effects.max(axis=1, keepdims=True)
    space: dict[str, BaseDistribution] = {
        **{f"x{i}": FloatDistribution(0.0, 1.0) for i in range(6)},
        **{f"n{i}": IntDistribution(1, 20) for i in range(3)},
        **{f"k{i}": CategoricalDistribution(list("abcd")) for i in range(3)},
    }

    def value(params: Mapping[str, Any]) -> float:
        x = np.array([params[f"x{i}"] for i in range(6)]) - center
        n = (np.array([params[f"n{i}"] for i in range(3)]) - whole) / 20
        chosen = sum(effects[i]["abcd".index(params[f"k{i}"])] for i in range(3))
        return float(
            chosen - np.array([8, 4, 2, 1, 0, 0]) @ x**2 - np.array([4, 2, 1]) @ n**2 - 3 * abs(x[0] * n[0])
        )

    return Function(space, value, 0.0)


FUNCTIONS: dict[str, Callable[[np.random.Generator], Function]] = {
    function.__name__: function
    for function in (hartmann6_of_19, ridge_19, limit_19, ackley_10, mixed_12, hartmann6)
}


def one(name: str, sampler_name: str, seed: int, n_trials: int) -> dict[str, Any]:
    """Searches once; returns the regret after each trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    function, sampler = FUNCTIONS[name](np.random.default_rng(7000 + seed)), SAMPLERS[sampler_name](seed)
    if hasattr(sampler, "bind"):

        def draw(rng: np.random.Generator) -> dict[str, Any]:
            return draw_candidates(function.space, 1, rng)[0]

        sampler.bind(SamplerContext(directions=["maximize"], distributions=dict(function.space), draw=draw))
    began = time.process_time()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(n_trials):
        trial = study.ask()
        study.tell(trial, function.value({k: trial._suggest(k, kind) for k, kind in function.space.items()}))
    found = [trial.value for trial in study.trials]
    regrets = (function.best - np.maximum.accumulate(found)).round(4).tolist()
    cpu_s = time.process_time() - began
    return {"function": name, "sampler": sampler_name, "seed": seed, "regrets": regrets, "cpu_s": cpu_s}


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs what is not in the results yet, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument(
        "--samplers", nargs="+", choices=SAMPLERS, default=["random", "tpe", "gp", "cmaes", "surrogate"]
    )
    parser.add_argument("--at", type=int, nargs="+", default=[10, 25, 60])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args(arguments)
    lines = given.results.read_text().splitlines() if given.results.exists() else []
    done = [json.loads(line) for line in lines]
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    have = {(r["function"], r["sampler"], r["seed"]) for r in done if len(r["regrets"]) >= max(given.at)}
    wanted = [(f, s, seed) for seed in seeds for f in given.functions for s in given.samplers]
    with ProcessPoolExecutor(given.jobs) as pool, given.results.open("a") as file:
        jobs = [pool.submit(one, *job, max(given.at)) for job in wanted if job not in have]
        for job in jobs:
            done.append(job.result())
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    for function in given.functions:
        for sampler in given.samplers:
            runs = [r for r in done if (r["function"], r["sampler"], r["seed"]) in {*wanted}]
            runs = [r for r in runs if r["function"] == function and r["sampler"] == sampler]
            texts = [mean_text([r["regrets"][at - 1] for r in runs]) for at in given.at]
            print(f"{function:16} {sampler:10} {len(runs):3} seeds  " + "  ".join(f"{t:20}" for t in texts))


if __name__ == "__main__":
    main()
