"""Constrained expected hypervolume improvement, and the reference point of the hypervolume."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.record.nondomination import non_dominated
from search.samplers.acquisition.boxes import Array, Boxes, not_dominated

_MAX_CELLS = 30_000_000  # candidates x boxes of the exact form: about a second
_CHUNK_CELLS = 200_000  # candidates x boxes at a time: what stays in the processor's cache
_SCORE_KEPT = 0.9  # reference point of a score, as a share of the uncompressed model's
_TIE = 1e-3  # weight of the largest improvement beside the probability of being feasible, while nothing is feasible


def constrained_improvement(
    means: Array,
    stds: Array,
    front: Array,
    reference: Array,
    feasible: Array,
    rng: np.random.Generator,
    n_samples: int = 1024,
) -> Array:
    """Returns the expected hypervolume improvement of each candidate times its probability of being feasible.

    Objectives are taken as independent normals, all to be maximised. The expectation is exact: over a box, the gained volume is
    a product of one length per axis, and so is its expectation (Emmerich, Deutz, Klinkenberg 2011, "Hypervolume-based
    expected improvement"; Yang et al. 2019, arXiv 1904.12672). With one objective it is plain expected improvement. Only where
    the region above the front has too many boxes (more than four axes and a long front), the volume is
    sampled, with the same points for every candidate.

    While there is no feasible result (an empty front), candidates are ordered by the probability of being
    feasible, and by improvement only where that is about equal.

    Args:
        means: `(n, d)`, predicted objectives.
        stds: `(n, d)`, their standard deviations; 0 means that the value is known.
        front: `(m, d)`, feasible results so far, dominated ones may be among them; m may be 0.
        reference: `(d,)`, reference point of the hypervolume, see `reference_point`.
        feasible: `(n,)`, the probability that every constraint holds.
        rng: Draws the points where the volume is sampled.
        n_samples: Number of these points; rounded up to a power of 2.

    Returns:
        `(n,)`, at least 0. In units of volume, or of probability while the front is empty.
    """
    gains = expected_improvement(means, stds, front, reference, rng, n_samples)
    if len(front):
        return gains * feasible
    largest = float(gains.max(initial=0.0))
    return feasible * (1.0 + (_TIE / largest if largest > 0 else 0.0) * gains)


def expected_improvement(
    means: Array, stds: Array, front: Array, reference: Array, rng: np.random.Generator, n_samples: int = 1024
) -> Array:
    """Returns the expected hypervolume improvement `(n,)`, constraints aside; see `constrained_improvement`."""
    boxes = not_dominated(front, reference, _MAX_CELLS // max(len(means), 1))
    if boxes is not None:
        return _over_boxes(means, stds, boxes)
    return _sampled(means, stds, front, reference, rng, n_samples)


def _over_boxes(means: Array, stds: Array, boxes: Boxes) -> Array:
    """Returns `(n,)`: over boxes the sum, over axes the product, of the expected length gained in the box."""
    edges, low, high = zip(*(_edges(boxes, axis) for axis in range(means.shape[1])), strict=True)
    gains = np.zeros(len(means))
    step = max(1, _CHUNK_CELLS // len(boxes))
    for start in range(0, len(means), step):
        rows = slice(start, start + step)
        product: Array | None = None
        for axis, at in enumerate(edges):
            above = expected_excess(means[rows, axis, None], stds[rows, axis, None], at)
            reach = above.take(low[axis], axis=1)
            reach -= above.take(high[axis], axis=1)
            product = reach if product is None else np.multiply(product, reach, out=product)
        assert product is not None  # there is at least one axis
        gains[rows] = product.sum(axis=1)
    return np.maximum(gains, 0.0)


def _edges(boxes: Boxes, axis: int) -> tuple[Array, NDArray[np.intp], NDArray[np.intp]]:
    """Returns the distinct edges on an axis, and `(n_boxes,)` positions of the lower and upper ones."""
    sides = np.concatenate([boxes.low[:, axis], boxes.high[:, axis]])
    edges, at = np.unique(sides, return_inverse=True)
    return edges, at[: len(boxes)], at[len(boxes) :]


def expected_excess(mean: Array, std: Array, threshold: Array) -> Array:
    """Returns E[max(Y - threshold, 0)] of normals Y, broadcast; accurate far below the threshold too.

    Jones, Schonlau, Welch 1998, eq. 15, in a form without cancellation (Ament et al. 2023, arXiv 2310.20708,
    eq. 9).

    Args:
        mean: Any shape.
        std: Broadcastable; 0 means that Y is known.
        threshold: Broadcastable; may be infinite.
    """
    certain = np.maximum(mean - threshold, 0.0)
    if not np.any(std):
        return np.asarray(certain)
    safe = np.where(std > 0, std, 1.0)
    distance = np.minimum(np.abs(mean - threshold) / safe, 40.0)  # beyond it the density is 0 anyway
    tail = np.exp(-0.5 * distance**2) * _tail(distance)
    return np.asarray(certain + np.where(std > 0, std, 0.0) * np.maximum(tail, 0.0))


def log_expected_excess(mean: Array, std: Array, threshold: Array) -> Array:
    """Returns the logarithm of `expected_excess`, accurate where that itself would be 0.

    Ament et al. 2023 (arXiv 2310.20708), eq. 8 and 9: far below the threshold `exp` underflows, and all
    candidates would tie.

    Args:
        mean: Any shape.
        std: Broadcastable; values below 1e-9 count as 1e-9.
        threshold: Broadcastable.
    """
    std = np.maximum(std, 1e-9)
    z = (mean - threshold) / std
    distance = np.abs(z)
    with np.errstate(divide="ignore", over="ignore"):  # of the asymptotic form, where it is not used
        # beyond 1e5 the difference in `_tail` is only rounding error: use its asymptotic form
        tail = np.where(distance < 1e5, _tail(distance), 1 / np.sqrt(2 * np.pi) / distance**2)
        density = -0.5 * z**2
        above = np.log(np.maximum(z, 0.0) + np.exp(density) * tail)
        below = density + np.log(np.maximum(tail, 1e-300))
    return np.asarray(np.log(std) + np.where(z > 0, above, below))


def _tail(distance: Array) -> Array:
    """Returns E[max(Z - distance, 0)] of a standard normal Z, divided by `exp(-distance**2 / 2)`; distance >= 0."""
    from scipy.special import erfcx

    return np.asarray(1 / np.sqrt(2 * np.pi) - 0.5 * distance * erfcx(distance / np.sqrt(2)))


def chance_above(mean: Array, std: Array, threshold: Array, strictly: bool = False) -> Array:
    """Returns P(Y >= threshold) of normals Y, broadcast.

    Args:
        mean: Any shape.
        std: Broadcastable; 0 means that Y is known.
        threshold: Broadcastable.
        strictly: Returns P(Y > threshold), which differs only where Y is known.
    """
    from scipy.special import ndtr

    gap = mean - threshold
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(std > 0, ndtr(gap / std), gap > 0 if strictly else gap >= 0))


def log_chance_below(mean: Array, std: Array, limit: float) -> Array:
    """Returns the logarithms `(n,)` of P(Y <= limit) of normals Y; a `std` below 1e-9 counts as 1e-9."""
    from scipy.special import log_ndtr

    return np.asarray(log_ndtr((limit - mean) / np.maximum(std, 1e-9)))


def _sampled(
    means: Array, stds: Array, front: Array, reference: Array, rng: np.random.Generator, n_samples: int
) -> Array:
    """Returns the improvement `(n,)`, in closed form over one axis and by quasi-Monte Carlo over the others.

    The improvement is the integral, over the region that the front does not dominate, of the probability that
    the candidate dominates the point. The closed form is along the last axis on which any `std` is not 0.
    """
    d = means.shape[1]
    uncertain = np.flatnonzero((stds > 0).any(axis=0))
    inner = int(uncertain[-1]) if len(uncertain) else d - 1
    outer = [axis for axis in range(d) if axis != inner]
    top = np.maximum(reference, (means + 4 * stds).max(axis=0))
    unit = sobol(len(outer), n_samples, rng)
    points = reference[outer] + unit * (top - reference)[outer]
    # (n_points, m), where a front's point is above a sampled one on all outer axes
    beyond = (front[None][:, :, outer] >= points[:, None]).all(axis=2)
    floor = np.where(beyond, front[:, inner], -np.inf).max(axis=1, initial=-np.inf)
    floor = np.maximum(floor, reference[inner])
    total = np.zeros(len(means))
    step = max(1, _CHUNK_CELLS // len(points))
    for start in range(0, len(means), step):
        rows = slice(start, start + step)
        value = expected_excess(means[rows, inner, None], stds[rows, inner, None], floor)
        for at, axis in enumerate(outer):
            value *= chance_above(means[rows, axis, None], stds[rows, axis, None], points[:, at])
        total[rows] = value.mean(axis=1)
    return np.asarray(total * np.prod((top - reference)[outer]))


def sobol(d: int, n: int, rng: np.random.Generator) -> Array:
    """Returns scrambled Sobol points in the unit cube, `(n, d)` with n rounded up to a power of 2."""
    from scipy.stats import qmc

    power = max(1, int(np.ceil(np.log2(max(n, 2)))))
    points = qmc.Sobol(d, seed=rng).random_base2(power)
    return np.asarray(points, dtype=np.float64)


# -- the reference point -----------------------------------------------------------------------------------------


def oriented(values: Array, directions: Sequence[str]) -> Array:
    """Returns `(n, d)` values with every axis to be maximised: those to be minimised are negated."""
    return np.asarray(values * np.array([1.0 if d == "maximize" else -1.0 for d in directions]))


def baseline_reference(baselines: Sequence[float | None], directions: Sequence[str]) -> Array:
    """Returns the reference point of the study's hypervolume `(d,)`, to be maximised; NaN where it is unknown.

    It is the uncompressed model's cost, and 90 % of its score.

    Args:
        baselines: The uncompressed model's values, not negated; None where unknown.
        directions: "maximize" or "minimize" per objective.
    """
    values = [np.nan if b is None or b <= 0 else b for b in baselines]
    shares = np.array([_SCORE_KEPT if d == "maximize" else 1.0 for d in directions])
    return oriented(shares * np.array(values, dtype=np.float64), directions)


def reference_point(values: Array, margin: float = 0.1, known_reference: Array | None = None) -> Array:
    """Returns a reference point of the hypervolume `(d,)`.

    Coordinates in `known_reference` are used if any row lies above all of them. Other coordinates lie below
    the worst value of the front by a share of the front's range; where the front has a single value, by a
    share of the range of all values, or of the value itself. `values` should contain predictions as well as
    results, so that the ends of the front have volume.

    Args:
        values: `(n, d)`, to be maximised; rows with NaN are left out.
        margin: The share.
        known_reference: `(d,)`, e.g. from `baseline_reference`, NaN where unknown; None if no coordinate is
            known.

    Raises:
        ValueError: No row is complete.
    """
    complete = values[np.isfinite(values).all(axis=1)]
    if not len(complete):
        raise ValueError("a reference point needs at least one row without NaN, but `values` has none")
    known_reference = np.full(values.shape[1], np.nan) if known_reference is None else known_reference
    above = (complete > np.where(np.isfinite(known_reference), known_reference, -np.inf)).all(axis=1)
    if above.any():
        complete = complete[above]
    front = complete[non_dominated(complete)]
    scale = np.ptp(front, axis=0)
    rounding = 1e-9 * np.ptp(complete, axis=0)  # equal values may differ by rounding errors
    scale = np.where(scale > rounding, scale, np.ptp(complete, axis=0))
    scale = np.where(scale > 0, scale, np.abs(front[0]))
    below = front.min(axis=0) - margin * np.where(scale > 0, scale, 1.0)
    return np.asarray(np.where(np.isfinite(known_reference) & above.any(), known_reference, below))
