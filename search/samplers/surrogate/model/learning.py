"""Gaussian-process models of the objectives and constraints of one study."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.gaussian_process import (
    Conditioned,
    FlatPrior,
    Posterior,
    Rows,
    conditioned,
    mixture,
    predicted_in_turn,
)
from search.samplers.surrogate.model.kernel import Block, fitted, unfitted
from search.samplers.surrogate.model.targets import Target

Array = NDArray[np.float64]
_MAX_ROWS = 200  # more are subsampled: the cost of a proposal grows with their square
_MAX_FITTED = 120  # rows that a kernel is fitted to


@dataclass
class _Fit:
    """Priors and the number of rows that they were fitted to."""

    priors: list[FlatPrior]
    n_rows: int


class Learner:
    """Computes posteriors; keeps the fitted kernels from one proposal to the next.

    Args:
        encoding: Computes distances between candidates.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._fits: dict[Hashable, _Fit] = {}
        self._last: dict[Hashable, tuple[tuple[Array, ...], list[Conditioned]]] = {}

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
        marginal likelihoods: few rows do not tell which of them is right. More than 120 rows do, or the two hardly differ:
        then the more probable one is enough.

        Args:
            what: As in `posterior_of`, and so on.
            rows: More than 200 are subsampled.
            query: `(n, n_knobs)`, the candidates.
            pending: `(p, n_knobs)`, candidates of running trials.
        """
        models = self._conditioned(what, subsampled(rows), pending)
        log_likelihoods = [model.log_likelihood for model in models]
        evidence = float(np.logaddexp.reduce(log_likelihoods) - np.log(len(models)))
        if len(models) == 1 or len(rows) > _MAX_FITTED:
            return models[int(np.argmax(log_likelihoods))](query), evidence
        return mixture([model(query) for model in models], log_likelihoods), evidence

    def predicted_in_turn(self, what: Hashable, rows: Rows) -> tuple[Array, Array]:
        """Returns the mean and standard deviation of each row given those before it, `(n,)` both, see `posterior_of`."""
        return predicted_in_turn(self._flat(what, rows)[0], rows)

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

    def _conditioned(self, what: Hashable, rows: Rows, pending: Array) -> list[Conditioned]:
        """Returns the models given the rows; kept, as a proposal asks for several generations of candidates."""
        given = (rows.points, rows.values, rows.noise, pending)
        kept = self._last.get(what)
        if kept is None or not all(map(np.array_equal, kept[0], given)):
            kept = given, [conditioned(prior, rows, pending) for prior in self._flat(what, rows)]
            self._last[what] = kept
        return kept[1]

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
    up, scaled, down = target(values + errors), target(values), target(values - errors)
    # a scale may end above the best value, which an error may reach: then the other side tells its size
    spread = np.where(np.isfinite(up), (up - down) / 2, scaled - down)
    return Rows(points, scaled, spread**2)
