"""Looks before trials: longer and longer ones at the candidates that promise most, until one of them is worth a trial."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.batches import diverse
from search.samplers.candidates.context import LowFidelityEvaluations, Params, PartialResult, key_of
from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.gaussian_process import Posterior
from search.samplers.surrogate.model.low_fidelity_results import Evidence, Key
from search.samplers.surrogate.model.multi_fidelity import Compressed, Estimates, posterior_of
from search.samplers.surrogate.model.quality import Quality, expected_quality, observed_quality

Array = NDArray[np.float64]
Judge = Callable[["FidelityPosteriors", NDArray[np.bool_] | None], Array]

Fit = tuple[float, Array | None]
"""To what amplitudes were fitted, in full evaluations' worth of examples, and these."""

_GROWN = 1.25  # times as many examples, and the amplitudes are fitted anew
_FIRST = 16  # looks before anything can be learned from them
_AT_ONCE = 4  # looks between two updates of what is believed
_MOST_ESTIMATES = 200  # that a belief is conditioned on; the least telling are left out
_UNLIKE = 3.0  # candidates that differ in every knob have a correlation of exp(-3)


@dataclass(frozen=True)
class FidelityPosterior:
    """What is believed of one objective or constraint, by looks, higher is better."""

    posterior: Posterior
    scale: Compressed
    rise: Array  # (n,), the part of the standard deviation that a first look would take away

    def after(self, share: Array, unseen: NDArray[np.bool_]) -> "FidelityPosterior":
        """Returns what would be expected of the belief after looks at so many more of all examples, `(n,)`."""
        errors = self.scale.error(
            self.scale.noise * np.sqrt(np.maximum(1 / share - 1, 0.0)), self.posterior.mean
        )
        rest = np.maximum(self.posterior.std**2 - self.rise**2, 0.0)
        moves = rest**2 / np.maximum(rest + errors**2, 1e-12) + np.where(unseen, self.rise, 0.0) ** 2
        return replace(self, posterior=Posterior(self.posterior.mean, np.sqrt(moves)))


FidelityPosteriors = Mapping[Hashable, FidelityPosterior]
"""By position of the objective, or by name of the constraint."""


@dataclass(frozen=True)
class Observations:
    """What a proposal chooses among.

    Attributes:
        candidates: `n` of them.
        points: `(n, n_knobs)`.
        hopeless: `(n,)`, where a constraint is certain to be broken.
        tried: Candidates with full or partial results.
        tried_points: `(n_tried, n_knobs)`.
        values: `(n_tried, n_objectives)`, higher is better, NaN where nothing was measured.
        errors: `(n_tried, n_objectives)`, standard errors, 0 for full results.
        excesses: Constraint to `(n_tried,)`.
        signs: `(n_objectives,)`, -1 where an objective is to be minimised.
        baselines: `(n_objectives,)`, the float model's value of each, higher is better; NaN where unknown.
        guess: `(n,)`, what other tasks let expect, higher is better; None if nothing.
    """

    candidates: Sequence[Params]
    points: Array
    hopeless: NDArray[np.bool_]
    tried: Sequence[Params]
    tried_points: Array
    values: Array
    errors: Array
    excesses: Mapping[str, Array]
    signs: Array
    baselines: Array
    guess: Array | None = None

    @cached_property
    def keys(self) -> list[Key]:
        """Of the candidates."""
        return [key_of(candidate) for candidate in self.candidates]


class LowFidelityPolicy:
    """Decides which candidates to look at, for how long, and which one to try.

    The candidate that promises most is looked at for longer, and judged anew, until the one that promises most has been looked
    at for as long as looks go. So effort goes where it may change the choice (a race, as in Maron and Moore 1994,
    with expected improvement in the place of bounds).

    Args:
        low_fidelity: The study's.
        encoding: Knows how alike candidates are.
        budget: What looks may cost for each trial, in full evaluations; what is left over is saved.
    """

    def __init__(self, low_fidelity: LowFidelityEvaluations, encoding: Encoding, budget: float) -> None:
        self.evidence = Evidence(low_fidelity)
        self._low_fidelity, self._encoding, self._budget = low_fidelity, encoding, budget
        self._fits: dict[Hashable, Fit] = {}

    def pick(self, observations: Observations, judge: Judge, rng: np.random.Generator) -> int | None:
        """Takes looks and returns the position of the candidate to try; None where looks tell nothing.

        Args:
            observations: The candidates, and what was measured.
            judge: From what is believed, and candidates that count as measured besides, to how much each candidate promises.
            rng: Breaks ties.
        """
        eyes = _Eyes(self._low_fidelity, self._encoding, self.evidence, observations, self._fits)
        allowed = self._budget * (1 + len(observations.tried))
        self._explore(eyes, observations, rng)
        while True:
            fidelity_posteriors = eyes.fidelity_posteriors()
            if not fidelity_posteriors:
                return None
            ready = self.evidence.exhausted(observations.keys) & (
                self.evidence.examples(observations.keys) > 0
            )
            if self.evidence.spent >= allowed:
                break
            sizes, worth = self._best_evaluations(fidelity_posteriors, observations, judge, ready)
            trials = _gain(np.where(ready, judge(fidelity_posteriors, ready), -np.inf), observations) / (
                1 + self._budget
            )
            if worth.max() <= trials.max():
                break
            for i in np.argsort(-worth, kind="stable")[:_AT_ONCE]:
                if worth[i] > max(trials.max(), 0.0):
                    self.evidence.further(observations.candidates[i], sizes[i])
        return self._leap(eyes, observations, judge, allowed + self._budget, rng)

    def _leap(
        self,
        eyes: "_Eyes",
        observations: Observations,
        judge: Judge,
        allowed: float,
        rng: np.random.Generator,
    ) -> int | None:
        """Returns the candidate that promises most, once that is one that was looked at for as long as looks go."""
        while True:
            scores = judge(eyes.fidelity_posteriors(), None)
            scores = np.where(self.evidence.examples(observations.keys) < 0, -np.inf, scores)
            best = int(rng.choice(np.flatnonzero(scores == scores.max())))
            if self.evidence.exhausted(observations.keys[best : best + 1])[0]:
                return best
            if self.evidence.spent >= allowed:
                break
            self.evidence.further(observations.candidates[best], self._low_fidelity.sizes[-1])
        ready = self.evidence.exhausted(observations.keys) & (scores > -np.inf)
        return int(np.argmax(np.where(ready, scores, -np.inf))) if ready.any() else best

    def _best_evaluations(
        self,
        fidelity_posteriors: FidelityPosteriors,
        observations: Observations,
        judge: Judge,
        ready: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], Array]:
        """Returns for each candidate how long the next look should be, and its gain for its cost, both `(n,)`.

        The gain of a look is the improvement that is expected of what will be believed after it (knowledge gradient, Frazier et
        al. 2009): a look too short to change a belief gains nothing.
        """
        before = self.evidence.examples(observations.keys)
        best, worth = np.zeros(len(before), np.int64), np.full(len(before), -np.inf)
        for size in self._low_fidelity.sizes:
            more = size - before
            share = np.clip(more / self._low_fidelity.n_full, 1e-9, 1.0)
            told = {
                name: fidelity_posterior.after(share, before == 0)
                for name, fidelity_posterior in fidelity_posteriors.items()
            }
            cost = (np.maximum(more, 0) + self._low_fidelity.sizes[0]) / self._low_fidelity.n_full
            gains = np.where(
                (more > 0) & (before >= 0), _gain(judge(told, ready), observations) / cost, -np.inf
            )
            best, worth = np.where(gains > worth, size, best), np.maximum(gains, worth)
        return best, worth

    def _explore(self, eyes: "_Eyes", observations: Observations, rng: np.random.Generator) -> None:
        """Sees to it that some candidates were looked at: half of them likely ones, the others any."""
        seen = self.evidence.examples(observations.keys)
        fresh = (seen == 0) & ~observations.hopeless
        lacking = min(_FIRST - int(np.sum(seen > 0)), int(fresh.sum()))
        if lacking <= 0:
            return
        likely = np.where(fresh, eyes.first_guess() + 1e-9 * rng.random(len(seen)), -np.inf)
        chosen = diverse(likely, observations.candidates, (lacking + 1) // 2)
        others = np.setdiff1d(np.flatnonzero(fresh), chosen)
        for i in (*chosen, *rng.choice(others, min(lacking // 2, len(others)), replace=False)):
            self.evidence.further(observations.candidates[i], self._low_fidelity.sizes[0])


def _gain(scores: Array, observations: Observations) -> Array:
    """Returns expected improvements: of a single objective they are judged by their logarithms."""
    return np.exp(scores) if len(observations.signs) == 1 else scores


class _Eyes:
    """Puts evidence, statistics and trials together for one scene."""

    def __init__(
        self,
        low_fidelity: LowFidelityEvaluations,
        encoding: Encoding,
        evidence: Evidence,
        observations: Observations,
        fits: dict[Hashable, Fit],
    ) -> None:
        self._fits = fits
        self._low_fidelity, self._observations, self._evidence, self._encoding = (
            low_fidelity,
            observations,
            evidence,
            encoding,
        )
        self._all = [*observations.candidates, *observations.tried]
        self._keys = [*observations.keys, *(key_of(candidate) for candidate in observations.tried)]
        self._points = (
            np.concatenate([observations.points, observations.tried_points])
            if observations.tried
            else observations.points
        )
        found = list(low_fidelity.statistics(self._all).values())
        if observations.guess is not None:
            found.append(np.concatenate([observations.guess, np.full(len(observations.tried), np.nan)]))
        self._statistics = (
            np.stack([_standardised(f) for f in found], axis=1) if found else self._points[:, :0]
        )

    def first_guess(self) -> Array:
        """Returns what statistics alone say of the candidates, `(n,)`."""
        n = len(self._observations.candidates)
        return self._statistics[:n].mean(axis=1) if self._statistics.shape[1] else np.zeros(n)

    def fidelity_posteriors(self) -> dict[Hashable, FidelityPosterior]:
        """Returns what is believed of the candidates, of every objective and constraint that looks can tell of."""
        looked = np.array(
            [i for i, key in enumerate(self._keys) if self._evidence.first(key) is not None], np.intp
        )
        if not len(looked):
            return {}
        quality = self._quality(looked)
        found: dict[Hashable, FidelityPosterior] = {}
        for axis, sign in enumerate(self._observations.signs):
            told = [
                (sign * look.values[axis], look.errors[axis], look.n_examples)
                for look in self._longest(looked)
            ]
            fidelity_posterior = self._fidelity_posterior(
                axis, quality, looked, told, self._observations.values[:, axis], self._observations.errors[:, axis],
                float(self._observations.baselines[axis]),
            )  # fmt: skip
            found |= {} if fidelity_posterior is None else {axis: fidelity_posterior}
        for name in sorted({n for look in self._longest(looked) for n in look.excesses}):
            nothing = (np.nan, np.nan)
            excesses = [
                (*look.excesses.get(name, nothing), look.n_examples) for look in self._longest(looked)
            ]
            tried = -self._observations.excesses.get(name, np.full(len(self._observations.tried), np.nan))
            told = [(-value, error, n) for value, error, n in excesses]
            fidelity_posterior = self._fidelity_posterior(
                name, quality, looked, told, tried, np.zeros(len(tried)), 0.0
            )
            found |= {} if fidelity_posterior is None else {name: fidelity_posterior}
        return found

    def _longest(self, looked: NDArray[np.intp]) -> list[PartialResult]:
        found = [self._evidence.longest(self._keys[i]) for i in looked]
        return [look for look in found if look is not None]

    def _quality(self, looked: NDArray[np.intp]) -> Quality:
        first = [self._evidence.first(self._keys[i]) for i in looked]
        features = [look.features for look in first if look is not None]
        some = looked[-_MOST_ESTIMATES:]
        seen = observed_quality(features)
        found = expected_quality(some, seen[-_MOST_ESTIMATES:], self._statistics, self._alike(some))
        found.mean[looked], found.doubt[looked] = seen, 0.0
        return found

    def _fidelity_posterior(
        self,
        what: Hashable,
        quality: Quality,
        looked: NDArray[np.intp],
        told: Sequence[tuple[float, float, int]],
        tried: Array,
        tried_errors: Array,
        reference: float,
    ) -> FidelityPosterior | None:
        """Returns what is believed of one objective or constraint; None where looks do not tell of it.

        The scale begins at the reference, or at the best estimate where that is NaN.
        """
        values, errors, sizes = (np.array(column, np.float64) for column in zip(*told, strict=True))
        share = np.minimum(sizes / self._low_fidelity.n_full, 0.99)
        noises = (errors * np.sqrt(share / (1 - share)))[np.isfinite(errors) & (errors > 0)]
        if not len(noises):
            return None
        n = len(self._observations.candidates)
        at = np.concatenate([looked, n + np.arange(len(tried))])
        told_all = Estimates(
            at, np.concatenate([values, tried]), np.concatenate([errors, tried_errors]),
            np.concatenate([share, np.ones(len(tried))]),
        )  # fmt: skip
        # looks at what was tried stay: their errors tell of those of other looks at the same examples
        estimates = told_all.chosen(np.isfinite(told_all.values) & np.isfinite(told_all.errors))
        estimates = estimates.chosen(np.argsort(estimates.errors, kind="stable")[:_MOST_ESTIMATES])
        origin = reference if np.isfinite(reference) else float(estimates.values.max())
        scale = Compressed(origin, float(np.median(noises)))
        told_of, amplitudes = self._fits.get(what, (0.0, None))
        telling = float(told_all.shares.sum())
        if telling > _GROWN * told_of:
            told_of, amplitudes = telling, None
        posterior, rise, amplitudes = posterior_of(
            quality, self._alike(estimates.at), estimates, scale, amplitudes
        )
        self._fits[what] = told_of, amplitudes
        return FidelityPosterior(Posterior(posterior.mean[:n], posterior.std[:n]), scale, rise[:n])

    def _alike(self, at: NDArray[np.intp]) -> Array:
        gap = np.zeros((len(at), len(self._all)))
        for axis in range(self._encoding.n_axes):
            gap += self._encoding.distance(axis, self._points[at], self._points)
        return np.asarray(np.exp(-_UNLIKE * gap / max(self._encoding.n_axes, 1)))


def _standardised(column: Array) -> Array:
    spread = float(np.nanstd(column)) if np.isfinite(column).any() else 0.0
    if not spread:
        return np.zeros(len(column))
    return np.nan_to_num((column - np.nanmean(column)) / spread)
