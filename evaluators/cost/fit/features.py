"""Latency model on counts of operations, for networks that are given as a table instead of as ONNX files.

Which operations are counted matters more than how the counts are weighted, so cross-validation on the
measured networks selects one of several feature sets.
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
        counts: Name of the selected feature set.
        cost_ms: Non-negative cost of one unit of each feature, then the constant cost of a run, `(d + 1,)`.
        correction: The learned correction that multiplies the linear model.
        errors: Mean relative error in cross-validation by feature set and correction.
        factor: The correction as a function from features `(n, d)` to factors `(n,)`.
    """

    counts: str
    cost_ms: Array
    correction: Correction
    errors: Mapping[tuple[str, Correction], float]
    factor: Callable[[Array], Array]

    def predict(self, features: Mapping[str, Array]) -> Array:
        """Returns latencies in ms, `(n,)`; `features` needs the selected feature set, `(n, d)`."""
        chosen = features[self.counts]
        return np.asarray(_linear(chosen, self.cost_ms) * self.factor(chosen))


def fit_features(
    features: Mapping[str, Array],
    latency_ms: Array,
    rng: np.random.Generator,
    n_folds: int = 10,
    corrections: tuple[Correction, ...] = CORRECTIONS,
) -> FeatureFit:
    """Selects the feature set, then whether to learn a correction, both by cross-validation.

    The base model minimises squared relative errors by non-negative least squares (Lawson, Hanson 1974,
    "Solving Least Squares Problems", chapter 23). A correction, which multiplies it, is kept only if it
    reduces the mean error by more than two standard errors of the paired difference.

    Args:
        features: Non-negative counts `(n, d)` by name of the feature set.
        latency_ms: Measured latencies, `(n,)`, above zero.
        rng: Assigns the networks to folds.
        n_folds: Number of folds.
        corrections: Candidate corrections.
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
        reduction = base - each
        significant = float(reduction.mean()) > 2 * float(reduction.std(ddof=1)) / np.sqrt(n)
        if significant and errors[chosen, correction] < errors[chosen, best]:
            best = correction
    cost_ms, factor = _fit(x, latency_ms, best)
    return FeatureFit(chosen, cost_ms, best, errors, factor)


def non_negative(features: Array, latency_ms: Array, known_ms: Array | float = 0.0) -> Array:
    """Returns non-negative costs in ms, `(d + 1,)`, per unit of each feature and per run, by least squares.

    The squares are those of the relative errors.

    Args:
        features: Non-negative counts, `(n, d)`.
        latency_ms: Measured latencies, `(n,)`.
        known_ms: Part of each latency that other costs explain, `(n,)`; it is subtracted first.
    """
    from scipy.optimize import nnls

    design = np.column_stack([features, np.ones(len(features))])
    # Columns scaled to maximum 1, so that the solver's tolerance means the same for bytes and for kernels.
    size = np.maximum(np.abs(design).max(axis=0), 1e-30)
    costs, _ = nnls(design / size / latency_ms[:, None], (latency_ms - known_ms) / latency_ms)
    return np.asarray(costs / size)


def _linear(features: Array, cost_ms: Array) -> Array:
    return np.asarray(features @ cost_ms[:-1] + cost_ms[-1])


def _held_out(
    features: Array, latency_ms: Array, folds: list[NDArray[np.int64]], correction: Correction
) -> Array:
    """Returns the relative error of each network under the fit to the other folds, `(n,)`."""
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
    """Linear plus RBF kernel, fitted by marginal likelihood (Rasmussen, Williams 2006, chapter 5)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

    middle, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    size = max(float(log_ratio.std()), 1e-6)
    smooth = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(3.0, (0.3, 100.0))
    linear = ConstantKernel(0.1, (1e-4, 1e2)) * DotProduct(1.0, "fixed")
    model = GaussianProcessRegressor(smooth + linear + WhiteKernel(0.5, (1e-4, 10.0)))
    with warnings.catch_warnings():
        # A kernel parameter at its bound means that its term is not needed, which is a valid fit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((features - middle) / scale, log_ratio / size)
    return lambda asked: np.asarray(np.exp(model.predict((asked - middle) / scale) * size))
