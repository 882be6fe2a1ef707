"""How much a candidate is expected to add to a front: constrained expected hypervolume improvement."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.record.nondomination import non_dominated
from search.samplers.acquisition.boxes import Array, Boxes, not_dominated

_MAX_CELLS = 30_000_000  # candidates x boxes of the exact form: about a second
_CHUNK_CELLS = 200_000  # candidates x boxes at a time: what stays in the processor's cache
_SCORE_KEPT = 0.9  # of the uncompressed model's score: below it the study's hypervolume counts nothing
_TIE = 1e-3  # what the whole range of improvements counts for beside the probability of being feasible


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
    the front has too many boxes (more than four axes and a long front), the volume is sampled, with
    the same points for every candidate.

    While nothing feasible is known (an empty front), the probability of being feasible decides, and the improvement
    only between candidates that are about as likely to be.

    Args:
        means: `(n, d)`, predicted objectives.
        stds: `(n, d)`, their standard deviations; 0 means certain.
        front: `(m, d)`, the feasible candidates measured so far; dominated ones do no harm; m may be 0.
        reference: `(d,)`, what is worth nothing; `reference_point` finds one.
        feasible: `(n,)`, the probability that every constraint holds.
        rng: Draws the sampled points.
        n_samples: How many, where the volume is sampled; rounded up to a power of 2.

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
    """Sums over the boxes the product over the axes of how far the candidate is expected to reach into the box."""
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
    """Returns the distinct edges on an axis, and for each box the positions of its lower and upper one."""
    sides = np.concatenate([boxes.low[:, axis], boxes.high[:, axis]])
    edges, at = np.unique(sides, return_inverse=True)
    return edges, at[: len(boxes)], at[len(boxes) :]


def expected_excess(mean: Array, std: Array, threshold: Array) -> Array:
    """Returns E[max(Y - threshold, 0)] of normals Y, broadcast; accurate far below the threshold too.

    Jones, Schonlau, Welch 1998, eq. 15, in the form that does not cancel (Ament et al. 2023, arXiv 2310.20708, eq. 9).

    Args:
        mean: Any shape.
        std: Broadcastable; 0 means certain.
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

    Ament et al. 2023 (arXiv 2310.20708), eq. 8 and 9: far below the threshold `exp` is 0, and all candidates equal.

    Args:
        mean: Any shape.
        std: Broadcastable; at least 1e-9 is taken.
        threshold: Broadcastable.
    """
    std = np.maximum(std, 1e-9)
    z = (mean - threshold) / std
    distance = np.abs(z)
    with np.errstate(divide="ignore"):
        # so far below, the difference in `_tail` is all rounding: its asymptotic form
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
        std: Broadcastable; 0 means certain.
        threshold: Broadcastable.
        strictly: Returns P(Y > threshold), which is another one only for a certain value.
    """
    from scipy.special import ndtr

    gap = mean - threshold
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(std > 0, ndtr(gap / std), gap > 0 if strictly else gap >= 0))


def log_chance_below(mean: Array, std: Array, limit: float) -> Array:
    """Returns the logarithms `(n,)` of P(Y <= limit) of normals Y; a `std` of at least 1e-9 is taken."""
    from scipy.special import log_ndtr

    return np.asarray(log_ndtr((limit - mean) / np.maximum(std, 1e-9)))


def _sampled(
    means: Array, stds: Array, front: Array, reference: Array, rng: np.random.Generator, n_samples: int
) -> Array:
    """Integrates over the last uncertain axis in closed form, and over points on all other axes.

    The improvement is the integral, over what the front leaves, of the probability that the candidate reaches the point.
    """
    d = means.shape[1]
    uncertain = np.flatnonzero((stds > 0).any(axis=0))
    inner = int(uncertain[-1]) if len(uncertain) else d - 1
    outer = [axis for axis in range(d) if axis != inner]
    top = np.maximum(reference, (means + 4 * stds).max(axis=0))
    unit = sobol(len(outer), n_samples, rng)
    points = reference[outer] + unit * (top - reference)[outer]
    beyond = (front[None][:, :, outer] >= points[:, None]).all(axis=2)  # (n_points, m)
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
    """Returns scrambled Sobol points `(>= n, d)` in the unit cube; their number is a power of 2."""
    from scipy.stats import qmc

    power = max(1, int(np.ceil(np.log2(max(n, 2)))))
    points = qmc.Sobol(d, seed=rng).random_base2(power)
    return np.asarray(points, dtype=np.float64)


# -- what an improvement is measured against ---------------------------------------------------------------------


def oriented(values: Array, directions: Sequence[str]) -> Array:
    """Returns `(n, d)` values with every axis to be maximised: those to be minimised are negated."""
    return np.asarray(values * np.array([1.0 if d == "maximize" else -1.0 for d in directions]))


def worth_nothing(baselines: Sequence[float | None], directions: Sequence[str]) -> Array:
    """Returns what the study's hypervolume counts as worth nothing `(d,)`, to be maximised; NaN where it is unknown.

    The uncompressed model's own cost, and 90 % of its score.

    Args:
        baselines: What the uncompressed model has, raw; None where it is unknown.
        directions: "maximize" or "minimize".
    """
    found = [np.nan if b is None or b <= 0 else b for b in baselines]
    shares = np.array([_SCORE_KEPT if d == "maximize" else 1.0 for d in directions])
    return oriented(shares * np.array(found, dtype=np.float64), directions)


def reference_point(values: Array, margin: float = 0.1, floors: Array | None = None) -> Array:
    """Returns a reference point `(d,)`: what is worth nothing.

    It is `floors` as far as they are known and anything at all lies above them. On other axes it lies below the worst value of the front
    by a share of the front's range; where all are equal, by a share of the range of all values, or of the
    value itself. Give it what was measured together with what is predicted (its non-dominated part is what counts), so
    that the ends of the front are worth finding.

    Args:
        values: `(n, d)`, to be maximised; rows with NaN are left out.
        margin: The share.
        floors: `(d,)`, e.g. from `worth_nothing`, NaN where unknown; None if nothing is known.

    Raises:
        ValueError: No row is complete.
    """
    complete = values[np.isfinite(values).all(axis=1)]
    if not len(complete):
        raise ValueError("a reference point needs at least one row without NaN, but `values` has none")
    floors = np.full(values.shape[1], np.nan) if floors is None else floors
    above = (complete > np.where(np.isfinite(floors), floors, -np.inf)).all(axis=1)
    if above.any():
        complete = complete[above]
    front = complete[non_dominated(complete)]
    scale = np.ptp(front, axis=0)
    rounding = 1e-9 * np.ptp(complete, axis=0)  # equal values may have come by different ways
    scale = np.where(scale > rounding, scale, np.ptp(complete, axis=0))
    scale = np.where(scale > 0, scale, np.abs(front[0]))
    below = front.min(axis=0) - margin * np.where(scale > 0, scale, 1.0)
    return np.asarray(np.where(np.isfinite(floors) & above.any(), floors, below))
