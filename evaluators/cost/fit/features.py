"""Latency of networks from counts of what they execute, where there is no file to analyse, only a table.

Which operations a runtime executes matters more than how the counts are weighed, so several ways of counting compete, and
cross-validation on the measured networks decides.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Correction = Literal["none", "gaussian_process", "xgboost"]
CORRECTIONS: tuple[Correction, ...] = ("none", "gaussian_process", "xgboost")


@dataclass(frozen=True)
class FeatureFit:
    """A fitted model of latency.

    Attributes:
        counts: Name of the way of counting that was chosen.
        cost_ms: What one of each counted thing costs, and a run besides, `(d + 1,)`, none negative.
        correction: What was learned on top.
        errors: Way of counting and correction to the mean relative error in cross-validation.
        factor: The correction: features `(n, d)` to factors `(n,)`.
    """

    counts: str
    cost_ms: Array
    correction: Correction
    errors: Mapping[tuple[str, Correction], float]
    factor: Callable[[Array], Array]

    def predict(self, features: Mapping[str, Array]) -> Array:
        """Latency in ms, `(n,)`, of networks with the features that were fitted."""
        chosen = features[self.counts]
        return np.asarray(_linear(chosen, self.cost_ms) * self.factor(chosen))


def fit_features(
    features: Mapping[str, Array],
    latency_ms: Array,
    rng: np.random.Generator,
    n_folds: int = 10,
    corrections: tuple[Correction, ...] = CORRECTIONS,
) -> FeatureFit:
    """Chooses the way of counting, then whether to learn a correction, both by cross-validation.

    The base is non-negative least squares of relative errors (Lawson, Hanson 1974, "Solving Least Squares Problems",
    chapter 23). A correction, which multiplies it, is kept only if its error is smaller by more than two standard
    errors of the difference between the two.

    Args:
        features: Way of counting to counts, `(n, d)`, none negative.
        latency_ms: Measured, `(n,)`, above zero.
        rng: Deals the networks to the folds.
        n_folds: Folds.
        corrections: Those that are tried.
    """
    n = len(latency_ms)
    folds = [part for part in np.array_split(rng.permutation(n), min(n_folds, n)) if len(part)]
    errors: dict[tuple[str, Correction], float] = {}
    held = {name: _held_out(x, latency_ms, folds, "none") for name, x in features.items()}
    for name, each in held.items():
        errors[name, "none"] = float(each.mean())
    chosen = min(held, key=lambda name: errors[name, "none"])
    best: Correction = "none"
    base, x = held[chosen], features[chosen]
    for correction in corrections:
        if correction == "none":
            continue
        each = _held_out(x, latency_ms, folds, correction)
        errors[chosen, correction] = float(each.mean())
        gain = base - each
        sure = float(gain.mean()) > 2 * float(gain.std(ddof=1)) / np.sqrt(n)
        if sure and errors[chosen, correction] < errors[chosen, best]:
            best = correction
    cost_ms, factor = _fit(x, latency_ms, best)
    return FeatureFit(chosen, cost_ms, best, errors, factor)


def non_negative(features: Array, latency_ms: Array, known_ms: Array | float = 0.0) -> Array:
    """Costs `(d + 1,)` of one of each and of a run that make the squares of the relative errors least.

    Args:
        features: Counts, `(n, d)`, none negative.
        latency_ms: Measured, `(n,)`.
        known_ms: Part of it that other costs explain, `(n,)`.
    """
    from scipy.optimize import nnls

    design = np.column_stack([features, np.ones(len(features))])
    # Columns of like size, so that the solver's tolerance means the same for bytes and for kernels.
    size = np.maximum(np.abs(design).max(axis=0), 1e-30)
    costs, _ = nnls(design / size / latency_ms[:, None], (latency_ms - known_ms) / latency_ms)
    return np.asarray(costs / size)


def _linear(features: Array, cost_ms: Array) -> Array:
    return np.asarray(features @ cost_ms[:-1] + cost_ms[-1])


def _held_out(
    features: Array, latency_ms: Array, folds: list[NDArray[np.int64]], correction: Correction
) -> Array:
    """Relative error of each network by a fit to the other folds, `(n,)`."""
    errors = np.empty(len(latency_ms))
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(latency_ms)), fold)
        cost_ms, factor = _fit(features[rest], latency_ms[rest], correction)
        predicted = _linear(features[fold], cost_ms) * factor(features[fold])
        errors[fold] = np.abs(predicted / latency_ms[fold] - 1)
    return errors


def _fit(
    features: Array, latency_ms: Array, correction: Correction
) -> tuple[Array, Callable[[Array], Array]]:
    cost_ms = non_negative(features, latency_ms)
    if correction == "none":
        return cost_ms, lambda asked: np.ones(len(asked))
    log_ratio = np.log(latency_ms / np.maximum(_linear(features, cost_ms), 1e-12))
    if correction == "xgboost":
        return cost_ms, _trees(features, log_ratio)
    return cost_ms, _gaussian_process(features, log_ratio)


def _trees(features: Array, log_ratio: Array) -> Callable[[Array], Array]:
    from evaluators.cost.latency.residual.network import boosted, booster_of

    booster = booster_of(boosted(features, log_ratio, seed=0))
    return lambda asked: np.exp(np.asarray(booster.inplace_predict(asked), np.float64))


def _gaussian_process(features: Array, log_ratio: Array) -> Callable[[Array], Array]:
    """Linear and smooth part with noise; kernel parameters by marginal likelihood (Rasmussen, Williams 2006, ch. 5)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

    middle, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    size = max(float(log_ratio.std()), 1e-6)
    smooth = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(3.0, (0.3, 100.0))
    linear = ConstantKernel(0.1, (1e-4, 1e2)) * DotProduct(1.0, "fixed")
    model = GaussianProcessRegressor(smooth + linear + WhiteKernel(0.5, (1e-4, 10.0)))
    with warnings.catch_warnings():
        # A kernel parameter at its bound says that its part is not needed; that is an answer, not a failure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((features - middle) / scale, log_ratio / size)
    return lambda asked: np.asarray(np.exp(model.predict((asked - middle) / scale) * size))
