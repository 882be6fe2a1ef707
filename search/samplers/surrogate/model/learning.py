"""Gaussian-process models of the objectives and constraints of one study."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.gaussian_process import (
    FlatPrior,
    Posterior,
    Prior,
    Rows,
    mixture,
    posterior,
)
from search.samplers.surrogate.model.kernel import Block, fitted, unfitted
from search.samplers.surrogate.model.targets import Target

Array = NDArray[np.float64]
_MAX_ROWS = 200  # more are subsampled: the cost of a proposal grows with their square
_MAX_FITTED = 120  # rows that a kernel is fitted to
_P_SIMILAR = 0.97  # prior probability that other tasks resemble this one
_P_MIN = 0.05  # posterior probability of that below which their prior is not used


@dataclass
class _Fit:
    """Priors and the number of rows that they were fitted to."""

    priors: list[FlatPrior]
    n_rows: int


class Learner:
    """Computes posteriors; keeps the fitted kernels from one proposal to the next.

    Args:
        encoding: Computes distances between candidates.
        prior: The prior of the first objective learned from other tasks, on the scale of its target; None if
            there is none.
    """

    def __init__(self, encoding: Encoding, prior: Prior | None = None) -> None:
        self._encoding, self._prior = encoding, prior
        self._fits: dict[Hashable, _Fit] = {}

    def posterior_of(self, what: Hashable, rows: Rows, query: Array, pending: Array) -> Posterior:
        """Returns the posterior of candidates under a prior with mean 0 whose kernel is fitted to the rows.

        Args:
            what: Position of the objective or name of the constraint.
            rows: Its measured values, on the scale of its target.
            query: `(n, n_knobs)`, the candidates.
            pending: `(p, n_knobs)`, candidates of running trials.
        """
        return self.posterior_with_evidence(what, rows, query, pending)[0]

    def posterior_with_evidence(
        self, what: Hashable, rows: Rows, query: Array, pending: Array
    ) -> tuple[Posterior, float]:
        """Returns the posterior under priors with mean 0, and the logarithm of the rows' evidence.

        Where there are like knobs it is the mixture of two models, with a term of counts and without, weighted by their
        marginal likelihoods: few rows do not tell which of them is right.

        Args:
            what: As in `posterior_of`, and so on.
            rows: More than 200 are subsampled.
            query: `(n, n_knobs)`, the candidates.
            pending: `(p, n_knobs)`, candidates of running trials.
        """
        rows = subsampled(rows)
        found = [posterior(prior, rows, query, pending) for prior in self._flat(what, rows)]
        if len(found) == 1:
            return found[0]
        posteriors, log_likelihoods = zip(*found, strict=True)
        evidence = float(np.logaddexp.reduce(log_likelihoods) - np.log(len(found)))
        return mixture(posteriors, log_likelihoods), evidence

    def posterior_with_prior(self, rows: Rows, query: Array, pending: Array) -> Posterior | None:
        """Returns the posterior of candidates with the prior that was learned from other tasks.

        It is a mixture with the posterior without that prior, weighted by the marginal likelihoods of the
        rows.

        Args:
            rows: Of the first objective, on the scale of that prior.
            query: `(n, n_knobs)`, the candidates.
            pending: `(p, n_knobs)`, candidates of running trials.

        Returns:
            None if there is no such prior, or the rows make it improbable.
        """
        if self._prior is None:
            return None
        rows = subsampled(rows)
        informed, log_likelihood = posterior(self._prior, rows, query, pending)
        if not len(rows):
            return informed
        flat, flat_log_likelihood = self.posterior_with_evidence("informed", rows, query, pending)
        log_weights = log_likelihood + np.log(_P_SIMILAR), flat_log_likelihood + np.log(1 - _P_SIMILAR)
        if log_weights[0] - np.logaddexp(*log_weights) < np.log(_P_MIN):
            return None
        return mixture([informed, flat], log_weights)

    def variance_reduction(self, query: Array, others: Array) -> Array:
        """Returns `(n,)`, by how much a first trial of each candidate would reduce the summed variance of others.

        Cohn 1996, "Neural network exploration using optimal experiment design", eq. 12. Before any result, a
        candidate in the middle of the space reduces it most.

        Args:
            query: `(n, n_knobs)`, the candidates.
            others: `(m, n_knobs)`, the candidates whose variances count.
        """
        kernel, noise = unfitted(self._encoding)
        reduced = np.sum(kernel(query, others) ** 2, axis=1) / (kernel.total + noise)
        return np.asarray(np.round(reduced, 9))  # so that equal candidates do not differ by rounding errors

    def _flat(self, what: Hashable, rows: Rows) -> list[FlatPrior]:
        """Returns the priors with mean 0, their kernels fitted anew when the rows have grown by an eighth."""
        fit = self._fits.get(what)
        if fit is not None and fit.n_rows <= len(rows) < fit.n_rows + max(1, fit.n_rows // 8):
            return fit.priors
        some = subsampled(rows, _MAX_FITTED)
        block = Block(some.points, some.values, np.ones(len(some)), some.noise)
        if len(rows) > 1:
            kinds = (False, True) if self._encoding.counts else (False,)
            priors = [FlatPrior(*fitted(self._encoding, [block], counted=counted)) for counted in kinds]
        else:
            priors = [FlatPrior(*unfitted(self._encoding))]
        self._fits[what] = _Fit(priors, len(rows))
        return priors


def subsampled(rows: Rows, most: int = _MAX_ROWS) -> Rows:
    """Returns at most `most` rows: half of them the best, the others evenly spaced over the ranks of the rest."""
    n = len(rows)
    if n <= most:
        return rows
    order = np.argsort(-rows.values, kind="stable")
    half = most // 2
    rest = order[half:][np.linspace(0, n - half - 1, most - half).astype(int)]
    keep = np.sort(np.concatenate([order[:half], rest]))
    return Rows(rows.points[keep], rows.values[keep], rows.noise[keep])


def rows_of(target: Target, points: Array, values: Array, errors: Array) -> Rows:
    """Returns the rows with a finite value, on the target's scale; errors are mapped to the first order.

    Args:
        target: The scale.
        points: `(n, n_knobs)`.
        values: `(n,)`, higher is better; NaN where nothing was measured.
        errors: `(n,)`, standard errors.
    """
    finite = np.isfinite(values)
    points, values, errors = points[finite], values[finite], errors[finite]
    spread = (target(values + errors) - target(values - errors)) / 2
    return Rows(points, target(values), spread**2)
