"""Low-fidelity evaluations before a trial, on growing subsets of the validation examples."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.batches import diverse
from search.samplers.candidates.context import LowFidelityEvaluations, Params, PartialResult, key_of
from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.gaussian_process import Posterior
from search.samplers.surrogate.model.low_fidelity_results import Key, LowFidelityResults
from search.samplers.surrogate.model.multi_fidelity import Compressed, Estimates, posterior_of
from search.samplers.surrogate.model.quality import Quality, expected_quality, observed_quality

Array = NDArray[np.float64]
AcquisitionFunction = Callable[["FidelityPosteriors", NDArray[np.bool_] | None], Array]
"""From posteriors, and a mask of candidates that count as measured, to acquisition values `(n,)`."""

Fit = tuple[float, Array | None]
"""The examples behind the fitted amplitudes, in full evaluations, and the logarithms of the amplitudes."""

_REFIT_GROWTH = 1.25  # the amplitudes are fitted anew once there are so many times as many examples
_N_INITIAL = 16  # evaluations before the model is fitted
_BATCH_SIZE = 4  # evaluations between two updates of the posteriors
_MAX_ESTIMATES = 200  # estimates that a model is conditioned on: those with the smallest errors
_DECAY = 3.0  # candidates that differ in every knob have a correlation of exp(-3)


@dataclass(frozen=True)
class FidelityPosterior:
    """Posterior of one objective or constraint from low-fidelity evaluations, higher is better.

    Attributes:
        posterior: Of `n` candidates, on `scale`.
        scale: The compressed scale of the multi-fidelity model.
        quality_std: `(n,)`, the part of the standard deviation that a first low-fidelity evaluation would
            remove.
    """

    posterior: Posterior
    scale: Compressed
    quality_std: Array

    def after(self, shares: Array, unevaluated: NDArray[np.bool_]) -> "FidelityPosterior":
        """Returns the predictive distribution of the posterior mean after one more evaluation of each candidate.

        Its standard deviation is that of the change of the mean (0 for an evaluation without information).

        Args:
            shares: `(n,)`, the share of all examples by which each candidate's subset would grow.
            unevaluated: `(n,)`, whether it would be the candidate's first evaluation.
        """
        errors = self.scale.error(
            self.scale.noise * np.sqrt(np.maximum(1 / shares - 1, 0.0)), self.posterior.mean
        )
        # a normal with variance v, measured with error e: its posterior mean has variance v^2 / (v + e^2)
        rest = np.maximum(self.posterior.std**2 - self.quality_std**2, 0.0)
        variances = (
            rest**2 / np.maximum(rest + errors**2, 1e-12) + np.where(unevaluated, self.quality_std, 0.0) ** 2
        )
        return replace(self, posterior=Posterior(self.posterior.mean, np.sqrt(variances)))


FidelityPosteriors = Mapping[Hashable, FidelityPosterior]
"""By position of the objective, or by name of the constraint."""


@dataclass(frozen=True)
class Observations:
    """The candidates of one proposal and the study's measurements.

    Attributes:
        candidates: The `n` candidates to choose among.
        points: `(n, n_knobs)`.
        infeasible: `(n,)`, where a constraint is known to be broken.
        measured: The `m` candidates with full or partial results of trials.
        measured_points: `(m, n_knobs)`.
        values: `(m, n_objectives)`, higher is better, NaN where nothing was measured.
        errors: `(m, n_objectives)`, standard errors, 0 for full results.
        excesses: Constraint to `(m,)`, <= 0 where it holds.
        signs: `(n_objectives,)`, -1 where an objective is to be minimised.
        baselines: `(n_objectives,)`, the float model's value of each, higher is better; NaN where unknown.
        prior_mean: `(n,)`, the first objective as the prior from other tasks predicts it, higher is better;
            None without such a prior.
    """

    candidates: Sequence[Params]
    points: Array
    infeasible: NDArray[np.bool_]
    measured: Sequence[Params]
    measured_points: Array
    values: Array
    errors: Array
    excesses: Mapping[str, Array]
    signs: Array
    baselines: Array
    prior_mean: Array | None = None

    @cached_property
    def keys(self) -> list[Key]:
        """Keys of the candidates."""
        return [key_of(candidate) for candidate in self.candidates]


class LowFidelityPolicy:
    """Decides which candidates are evaluated, on how many examples, and which one becomes a trial.

    The candidate with the highest acquisition value is evaluated on more examples and all are scored anew,
    until the best one has been evaluated on the largest subset. So the budget is spent where it may change
    the choice (a race, as in Maron and Moore 1994, with expected improvement in the place of bounds).

    Args:
        low_fidelity: The study's low-fidelity evaluations.
        encoding: Measures distances between candidates.
        budget: Low-fidelity cost allowed per trial, in full evaluations; what a trial leaves is added to the
            next one's.
    """

    def __init__(self, low_fidelity: LowFidelityEvaluations, encoding: Encoding, budget: float) -> None:
        self.results = LowFidelityResults(low_fidelity)
        self._low_fidelity, self._encoding, self._budget = low_fidelity, encoding, budget
        self._fits: dict[Hashable, Fit] = {}

    def pick(
        self, observations: Observations, acquisition: AcquisitionFunction, rng: np.random.Generator
    ) -> int | None:
        """Runs low-fidelity evaluations and returns the position of the candidate to try.

        Args:
            observations: The candidates, and the study's measurements.
            acquisition: Scores the candidates.
            rng: Breaks ties.

        Returns:
            None where low-fidelity evaluations estimate no objective or constraint.
        """
        model = _FidelityModel(self._low_fidelity, self._encoding, self.results, observations, self._fits)
        allowed = self._budget * (1 + len(observations.measured))
        self._explore(model, observations, rng)
        while True:
            fidelity_posteriors = model.fidelity_posteriors()
            if not fidelity_posteriors:
                return None
            ready = self.results.exhausted(observations.keys) & (self.results.examples(observations.keys) > 0)
            if self.results.spent >= allowed:
                break
            sizes, rates = self._best_evaluations(fidelity_posteriors, observations, acquisition, ready)
            trial_rates = _improvement(
                np.where(ready, acquisition(fidelity_posteriors, ready), -np.inf), observations
            ) / (1 + self._budget)
            least = max(float(trial_rates.max()), 0.0)  # with no candidate ready, none has a rate
            if rates.max() <= least:
                break
            for i in np.argsort(-rates, kind="stable")[:_BATCH_SIZE]:
                if rates[i] > least:
                    self.results.evaluate(observations.candidates[i], sizes[i])
        return self._best_candidate(model, observations, acquisition, allowed + self._budget, rng)

    def _best_candidate(
        self,
        model: "_FidelityModel",
        observations: Observations,
        acquisition: AcquisitionFunction,
        allowed: float,
        rng: np.random.Generator,
    ) -> int | None:
        """Returns the candidate with the highest acquisition value, once that one was run on the largest subset.

        Until then the best candidate is evaluated there. When `allowed` (in full evaluations) is spent, it is
        the best among those that have been.
        """
        while True:
            scores = acquisition(model.fidelity_posteriors(), None)
            scores = np.where(self.results.examples(observations.keys) < 0, -np.inf, scores)
            best = int(rng.choice(np.flatnonzero(scores == scores.max())))
            if self.results.exhausted(observations.keys[best : best + 1])[0]:
                return best
            if self.results.spent >= allowed:
                break
            self.results.evaluate(observations.candidates[best], self._low_fidelity.sizes[-1])
        ready = self.results.exhausted(observations.keys) & (scores > -np.inf)
        return int(np.argmax(np.where(ready, scores, -np.inf))) if ready.any() else best

    def _best_evaluations(
        self,
        fidelity_posteriors: FidelityPosteriors,
        observations: Observations,
        acquisition: AcquisitionFunction,
        ready: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], Array]:
        """Returns for each candidate the best size of its next evaluation and its gain per cost, both `(n,)`.

        The gain is the expected improvement of the posterior mean after the evaluation (knowledge gradient,
        Frazier et al. 2009): an evaluation too short to move the mean gains nothing. The cost is in full
        evaluations.
        """
        before = self.results.examples(observations.keys)
        sizes, rates = np.zeros(len(before), np.int64), np.full(len(before), -np.inf)
        for size in self._low_fidelity.sizes:
            more = size - before
            shares = np.clip(more / self._low_fidelity.n_full, 1e-9, 1.0)
            updated = {
                name: fidelity_posterior.after(shares, before == 0)
                for name, fidelity_posterior in fidelity_posteriors.items()
            }
            cost = (np.maximum(more, 0) + self._low_fidelity.sizes[0]) / self._low_fidelity.n_full
            rate = np.where(
                (more > 0) & (before >= 0),
                _improvement(acquisition(updated, ready), observations) / cost,
                -np.inf,
            )
            sizes, rates = np.where(rate > rates, size, sizes), np.maximum(rate, rates)
        return sizes, rates

    def _explore(self, model: "_FidelityModel", observations: Observations, rng: np.random.Generator) -> None:
        """Evaluates candidates on the smallest subset until `_N_INITIAL` have a result.

        Half of them are those with the best statistics, the others are random.
        """
        n_examples = self.results.examples(observations.keys)
        fresh = (n_examples == 0) & ~observations.infeasible
        lacking = min(_N_INITIAL - int(np.sum(n_examples > 0)), int(fresh.sum()))
        if lacking <= 0:
            return
        likely = np.where(fresh, model.mean_statistic() + 1e-9 * rng.random(len(n_examples)), -np.inf)
        chosen = diverse(likely, observations.candidates, (lacking + 1) // 2)
        others = np.setdiff1d(np.flatnonzero(fresh), chosen)
        for i in (*chosen, *rng.choice(others, min(lacking // 2, len(others)), replace=False)):
            self.results.evaluate(observations.candidates[i], self._low_fidelity.sizes[0])


def _improvement(scores: Array, observations: Observations) -> Array:
    """Returns expected improvements `(n,)`: with a single objective the acquisition values are their logarithms."""
    return np.exp(scores) if len(observations.signs) == 1 else scores


class _FidelityModel:
    """Multi-fidelity models of all objectives and constraints for the observations of one proposal.

    Its rows are the `n` candidates of the proposal followed by the `m` measured ones.

    Args:
        low_fidelity: Computes the statistics.
        encoding: Measures distances between candidates.
        results: The low-fidelity results so far.
        observations: The candidates and the study's measurements.
        fits: The amplitudes fitted so far by objective or constraint; updated in place.
    """

    def __init__(
        self,
        low_fidelity: LowFidelityEvaluations,
        encoding: Encoding,
        results: LowFidelityResults,
        observations: Observations,
        fits: dict[Hashable, Fit],
    ) -> None:
        self._fits = fits
        self._low_fidelity, self._observations, self._results, self._encoding = (
            low_fidelity,
            observations,
            results,
            encoding,
        )
        self._candidates = [*observations.candidates, *observations.measured]
        self._keys = [*observations.keys, *(key_of(candidate) for candidate in observations.measured)]
        self._points = (
            np.concatenate([observations.points, observations.measured_points])
            if observations.measured
            else observations.points
        )
        columns = list(low_fidelity.statistics(self._candidates).values())
        if observations.prior_mean is not None:
            columns.append(
                np.concatenate([observations.prior_mean, np.full(len(observations.measured), np.nan)])
            )
        self._statistics = (
            np.stack([_standardised(column) for column in columns], axis=1)
            if columns
            else self._points[:, :0]
        )

    def mean_statistic(self) -> Array:
        """Returns the mean of each candidate's standardised statistics, `(n,)`; zeros where there are none."""
        n = len(self._observations.candidates)
        return self._statistics[:n].mean(axis=1) if self._statistics.shape[1] else np.zeros(n)

    def fidelity_posteriors(self) -> dict[Hashable, FidelityPosterior]:
        """Returns the posteriors of every objective and constraint that low-fidelity evaluations estimate."""
        evaluated = np.array(
            [i for i, key in enumerate(self._keys) if self._results.first(key) is not None], np.intp
        )
        if not len(evaluated):
            return {}
        quality = self._quality(evaluated)
        posteriors: dict[Hashable, FidelityPosterior] = {}
        for axis, sign in enumerate(self._observations.signs):
            estimates = [
                (sign * result.values[axis], result.errors[axis], result.n_examples)
                for result in self._longest(evaluated)
            ]
            fidelity_posterior = self._fidelity_posterior(
                axis, quality, evaluated, estimates, self._observations.values[:, axis],
                self._observations.errors[:, axis], float(self._observations.baselines[axis]),
            )  # fmt: skip
            posteriors |= {} if fidelity_posterior is None else {axis: fidelity_posterior}
        for name in sorted({n for result in self._longest(evaluated) for n in result.excesses}):
            missing = (np.nan, np.nan)
            excesses = [
                (*result.excesses.get(name, missing), result.n_examples)
                for result in self._longest(evaluated)
            ]
            measured = -self._observations.excesses.get(
                name, np.full(len(self._observations.measured), np.nan)
            )
            estimates = [(-value, error, n) for value, error, n in excesses]
            fidelity_posterior = self._fidelity_posterior(
                name, quality, evaluated, estimates, measured, np.zeros(len(measured)), 0.0
            )
            posteriors |= {} if fidelity_posterior is None else {name: fidelity_posterior}
        return posteriors

    def _longest(self, evaluated: NDArray[np.intp]) -> list[PartialResult]:
        """Returns the result on the most examples of each row in `evaluated`."""
        results = [self._results.longest(self._keys[i]) for i in evaluated]
        return [result for result in results if result is not None]

    def _quality(self, evaluated: NDArray[np.intp]) -> Quality:
        """Returns the quality scores of all `n + m` rows, observed for those in `evaluated`."""
        first = [self._results.first(self._keys[i]) for i in evaluated]
        features = [result.features for result in first if result is not None]
        some = evaluated[-_MAX_ESTIMATES:]
        observed = observed_quality(features)
        quality = expected_quality(
            some, observed[-_MAX_ESTIMATES:], self._statistics, self._correlations(some)
        )
        quality.mean[evaluated], quality.std[evaluated] = observed, 0.0
        return quality

    def _fidelity_posterior(
        self,
        what: Hashable,
        quality: Quality,
        evaluated: NDArray[np.intp],
        estimates: Sequence[tuple[float, float, int]],
        measured: Array,
        measured_errors: Array,
        reference: float,
    ) -> FidelityPosterior | None:
        """Returns the posterior of one objective or constraint for the `n` candidates.

        Args:
            what: Position of the objective or name of the constraint.
            quality: Quality scores of all rows.
            evaluated: `(k,)`, rows with a low-fidelity result.
            estimates: Their `k` estimates, each with its standard error and number of examples; higher is
                better.
            measured: `(m,)`, values that trials measured, higher is better; NaN where none.
            measured_errors: `(m,)`, their standard errors.
            reference: The origin of the compressed scale; NaN takes the best value.

        Returns:
            None if low-fidelity evaluations do not estimate it.
        """
        values, errors, sizes = (np.array(column, np.float64) for column in zip(*estimates, strict=True))
        shares = np.minimum(sizes / self._low_fidelity.n_full, 0.99)
        # the standard error of a full evaluation, as each estimate's error implies it
        noises = (errors * np.sqrt(shares / (1 - shares)))[np.isfinite(errors) & (errors > 0)]
        if not len(noises):
            return None
        n = len(self._observations.candidates)
        at = np.concatenate([evaluated, n + np.arange(len(measured))])
        all_estimates = Estimates(
            at, np.concatenate([values, measured]), np.concatenate([errors, measured_errors]),
            np.concatenate([shares, np.ones(len(measured))]),
        )  # fmt: skip
        # estimates of measured candidates stay: their errors correlate with others' on the same examples
        used = all_estimates.chosen(np.isfinite(all_estimates.values) & np.isfinite(all_estimates.errors))
        used = used.chosen(np.argsort(used.errors, kind="stable")[:_MAX_ESTIMATES])
        origin = reference if np.isfinite(reference) else float(used.values.max())
        scale = Compressed(origin, float(np.median(noises)))
        fitted_to, log_amplitudes = self._fits.get(what, (0.0, None))
        n_evaluations = float(all_estimates.shares.sum())
        if n_evaluations > _REFIT_GROWTH * fitted_to:
            fitted_to, log_amplitudes = n_evaluations, None
        posterior, quality_std, log_amplitudes = posterior_of(
            quality, self._correlations(used.at), used, scale, log_amplitudes
        )
        self._fits[what] = fitted_to, log_amplitudes
        return FidelityPosterior(Posterior(posterior.mean[:n], posterior.std[:n]), scale, quality_std[:n])

    def _correlations(self, at: NDArray[np.intp]) -> Array:
        """Returns correlations by knobs `(k, n + m)` of the rows `at` with all: `exp(-3 * mean distance)`."""
        distance = np.zeros((len(at), len(self._candidates)))
        for axis in range(self._encoding.n_axes):
            distance += self._encoding.distance(axis, self._points[at], self._points)
        return np.asarray(np.exp(-_DECAY * distance / max(self._encoding.n_axes, 1)))


def _standardised(column: Array) -> Array:
    """Returns a column `(n,)` with mean 0 and standard deviation 1 over its finite entries, and 0 for the others."""
    spread = float(np.nanstd(column)) if np.isfinite(column).any() else 0.0
    if not spread:
        return np.zeros(len(column))
    return np.nan_to_num((column - np.nanmean(column)) / spread)
