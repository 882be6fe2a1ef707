"""Learns objectives and constraints from the rows at hand."""

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
_MAX_ROWS = 200  # more are thinned out: the cost of a proposal grows with their square
_MAX_FITTED = 120  # rows that a kernel is fitted to
_TRUST = 0.97  # probability, before any row, that other tasks resemble this one
_FORGOTTEN = 0.05  # below this probability they are not asked any more


@dataclass
class _Fit:
    """A prior and what it was fitted to."""

    prior: FlatPrior
    n_rows: int


class Learner:
    """Keeps what is worth keeping between proposals: fitted kernels.

    Args:
        encoding: Knows the candidates.
        prior: What other tasks say of the first objective, on the scale of its target; None if nothing.
    """

    def __init__(self, encoding: Encoding, prior: Prior | None = None) -> None:
        self._encoding, self._prior = encoding, prior
        self._fits: dict[Hashable, _Fit] = {}

    def posterior_of(self, what: Hashable, rows: Rows, ahead: Array, pending: Array) -> Posterior:
        """Returns what is believed of candidates.

        Args:
            what: Names the objective or constraint.
            rows: Its measured values, on the scale of its target.
            ahead: `(n, n_knobs)`, the candidates.
            pending: `(p, n_knobs)`, those being measured.
        """
        rows = subsampled(rows)
        return posterior(self._flat(what, rows), rows, ahead, pending)[0]

    def informed(self, rows: Rows, ahead: Array, pending: Array) -> Posterior | None:
        """Returns what is believed with the other tasks' knowledge; None if the rows speak against it.

        Args:
            rows: Of the first objective, on the scale of the knowledge.
            ahead: `(n, n_knobs)`, the candidates.
            pending: `(p, n_knobs)`, those being measured.
        """
        if self._prior is None:
            return None
        rows = subsampled(rows)
        knowing, evidence = posterior(self._prior, rows, ahead, pending)
        if not len(rows):
            return knowing
        flat, against = posterior(self._flat("informed", rows), rows, ahead, pending)
        log_weights = evidence + np.log(_TRUST), against + np.log(1 - _TRUST)
        if log_weights[0] - np.logaddexp(*log_weights) < np.log(_FORGOTTEN):
            return None
        return mixture([knowing, flat], log_weights)

    def tells(self, ahead: Array, others: Array) -> Array:
        """Returns `(n,)` by how much a first trial of each candidate would reduce the variances of others, summed.

        Cohn 1996, "Neural network exploration using optimal experiment design", eq. 12: with nothing to choose by, it is the candidate
        in the middle.

        Args:
            ahead: `(n, n_knobs)`, the candidates.
            others: `(m, n_knobs)`.
        """
        kernel, noise = unfitted(self._encoding)
        reduced = np.sum(kernel(ahead, others) ** 2, axis=1) / (kernel.total + noise)
        return np.asarray(np.round(reduced, 9))  # equal ones are not to be told apart by rounding

    def _flat(self, what: Hashable, rows: Rows) -> FlatPrior:
        """Returns the prior without knowledge, fitted anew when the rows have grown by an eighth."""
        known = self._fits.get(what)
        if known is not None and known.n_rows <= len(rows) < known.n_rows + max(1, known.n_rows // 8):
            return known.prior
        some = subsampled(rows, _MAX_FITTED)
        block = Block(some.points, some.values, np.ones(len(some)), some.noise)
        kernel, noise = fitted(self._encoding, [block]) if len(rows) > 1 else unfitted(self._encoding)
        self._fits[what] = _Fit(FlatPrior(kernel, noise), len(rows))
        return self._fits[what].prior


def subsampled(rows: Rows, most: int = _MAX_ROWS) -> Rows:
    """Returns at most `most` rows: the best half, and every so manieth of the rest."""
    n = len(rows)
    if n <= most:
        return rows
    order = np.argsort(-rows.values, kind="stable")
    half = most // 2
    rest = order[half:][np.linspace(0, n - half - 1, most - half).astype(int)]
    keep = np.sort(np.concatenate([order[:half], rest]))
    return Rows(rows.points[keep], rows.values[keep], rows.noise[keep])


def rows_of(target: Target, points: Array, values: Array, errors: Array) -> Rows:
    """Returns the rows with a finite value, their values and errors mapped to the target's scale."""
    there = np.isfinite(values)
    points, values, errors = points[there], values[there], errors[there]
    spread = (target(values + errors) - target(values - errors)) / 2
    return Rows(points, target(values), spread**2)
