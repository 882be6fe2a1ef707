"""Bayesian fit of unit costs to few measured networks, with prior means from other boards' cost ratios."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.fit.costs import BESIDES_MACS, Amounts, Array, ReferenceBoard
from evaluators.devices.device import DType

# Prior without a reference board: unit cost in multiply-accumulates, and the standard deviation of its
# logarithm. On a core with 8-bit SIMD, requantizing an output element takes 10 to 30 cycles where a
# multiply-accumulate takes 1 to 2; a weight byte is one load shared by several of them; a kernel's set-up
# takes some thousand cycles. Deliberately wide.
PRIOR_COSTS: Mapping[str, tuple[float, float]] = {
    "activation_byte": (4.0, 0.8),
    "weight_byte": (0.3, 1.0),
    "kernel": (1000.0, 1.5),
    "depthwise": (1.0, 0.4),
}
_ANY_MAC = (1.0, 0.3)
_SCALE_VARIANCE = 100.0  # prior variance of a board's log speed: practically uninformative
_DTYPE_VARIANCE = 1.0  # prior variance of a further dtype's log cost relative to the first dtype's
_ITERATIONS = 60


@dataclass(frozen=True)
class Borrowing:
    """Hyperparameters of the mixture prior that the reference boards give ("borrowing" their cost ratios).

    Attributes:
        spread: Standard deviation of a board's log cost ratios around those of its reference board.
        noise: Standard deviation of measured log latency around the model.
        wide: Prior probability that no reference board applies, so that the wide prior does.
        same_runtime: Prior odds factor of reference boards with the same runtime.
        same_release: Further prior odds factor of those with the same runtime version.
    """

    spread: float = 0.2
    noise: float = 0.05
    wide: float = 0.1
    same_runtime: float = 2.0
    same_release: float = 20.0


@dataclass(frozen=True)
class Candidates:
    """The fit under each mixture component: one per reference board, then two with the wide prior.

    The last two differ in whether the runtime removes dead (constant) channels.

    Attributes:
        log_costs: Mode of the log unit costs (in ms) under each component, `(r, d)`.
        log_evidence: Log marginal likelihood of the measurements under each component, up to a constant,
            `(r,)`.
        removes_dead: Whether dead channels are removed under each component, `(r,)`.
    """

    log_costs: Array
    log_evidence: Array
    removes_dead: NDArray[np.bool_]


def candidates(
    kept: Amounts,
    removed: Amounts,
    latency_ms: Array,
    boards: Sequence[ReferenceBoard],
    borrowing: Borrowing,
) -> Candidates:
    """Fits the unit costs to measured networks under each component of the prior.

    Log latency is normal around the modelled log latency; log costs are normal around the reference's, with a
    free scale. Gauss-Newton finds the mode, Laplace's approximation the evidence (MacKay 2003, "Information
    Theory, Inference, and Learning Algorithms", chapter 27).

    Args:
        kept: Counts of the networks, dead channels included.
        removed: Counts without dead channels; equal columns and numbers of kernels.
        latency_ms: Measured latencies, `(n,)`.
        boards: Reference boards.
        borrowing: Hyperparameters of the prior.
    """
    middle, sd = _wide_prior(kept.columns)
    means = np.array([_means(board, kept.columns) for board in boards] + [middle, middle])
    variances = np.array([np.full(len(middle), borrowing.spread**2)] * len(boards) + [sd**2, sd**2])
    precisions = np.asarray(
        np.linalg.inv(variances[:, :, None] * np.eye(len(middle)) + _free(kept.columns)), np.float64
    )
    removes = np.array([board.removes_dead_channels for board in boards] + [False, True])
    stack = _Stack.of(kept, removed, removes)
    log_costs, evidence = _modes(stack, np.log(latency_ms), means, precisions, borrowing.noise)
    return Candidates(log_costs, evidence, removes)


def weights(
    fits: Candidates,
    boards: Sequence[ReferenceBoard],
    borrowing: Borrowing,
    runtime: str = "",
    release: str = "",
) -> Array:
    """Returns the components' posterior probabilities, `(r,)`; results of one board share its prior."""
    results = Counter((board.name, board.runtime) for board in boards)
    likely = np.array(
        [
            (borrowing.same_runtime if board.runtime == runtime else 1.0)
            * (borrowing.same_release if board.release == release else 1.0)
            / results[board.name, board.runtime]
            for board in boards
        ]
    )
    share = (1 - borrowing.wide) * likely / likely.sum() if len(likely) else likely
    prior = np.append(share, [0.8 * borrowing.wide, 0.2 * borrowing.wide])
    log_posterior = fits.log_evidence + np.log(prior)
    posterior: Array = np.exp(log_posterior - log_posterior.max())
    return np.asarray(posterior / posterior.sum())


def blended(fits: Candidates, share: Array) -> tuple[Array, bool]:
    """Averages the components with the posterior probabilities `share`, `(r,)`.

    Returns:
        Mean log costs, `(d,)`, of the components that agree with the majority on dead channels, and whether
        that majority removes them.
    """
    removes = bool(share @ fits.removes_dead > 0.5)
    agreeing = share * (fits.removes_dead == removes)
    return (agreeing / agreeing.sum()) @ fits.log_costs, removes


def reference_board(
    kept: Amounts,
    removed: Amounts,
    latency_ms: Array,
    name: str,
    runtime: str,
    release: str,
    noise: float = 0.03,
) -> ReferenceBoard:
    """Fits the relative unit costs of one measured board to its own networks alone, with the wide prior."""
    fits = candidates(kept, removed, latency_ms, (), Borrowing(noise=noise))
    # Networks without a dead channel give both the same evidence; then dead channels count as kept.
    removes = bool(fits.log_evidence[1] > fits.log_evidence[0] + 1.0)
    costs = fits.log_costs[int(removes)]
    names = [*(kind for _, kind in kept.columns), *BESIDES_MACS]
    centred = {key: float(cost - costs.mean()) for key, cost in zip(names, costs, strict=True)}
    return ReferenceBoard(name, runtime, release, centred, removes)


def _wide_prior(columns: Sequence[tuple[DType, str]]) -> tuple[Array, Array]:
    """Returns mean and standard deviation of the log costs without a reference board, `(d,)` each."""
    pairs = [PRIOR_COSTS.get(name, _ANY_MAC) for name in (*(kind for _, kind in columns), *BESIDES_MACS)]
    unit_costs, sd = np.array(pairs).T
    return np.log(unit_costs), sd


def _means(board: ReferenceBoard, columns: Sequence[tuple[DType, str]]) -> Array:
    """Returns the board's log costs, `(d,)`; classes that it lacks cost as much as pointwise ones."""
    costs = board.log_costs
    usual = costs.get("pointwise", costs.get("conv", 0.0))
    macs = [costs.get(kind, usual) for _, kind in columns]
    return np.array([*macs, *(costs.get(name, usual + _log_prior_cost(name)) for name in BESIDES_MACS)])


def _log_prior_cost(name: str) -> float:
    return float(np.log(PRIOR_COSTS[name][0]))


def _free(columns: Sequence[tuple[DType, str]]) -> Array:
    """Returns the prior covariance, `(d, d)`, of the board's speed and of further dtypes' speeds."""
    d = len(columns) + len(BESIDES_MACS)
    free = np.full((d, d), _SCALE_VARIANCE)
    for dtype in sorted({dtype for dtype, _ in columns})[1:]:
        member = np.array([float(own == dtype) for own, _ in columns] + [0.0] * len(BESIDES_MACS))
        free += _DTYPE_VARIANCE * np.outer(member, member)
    return free


@dataclass(frozen=True)
class _Stack:
    """Counts of the networks, repeated for every component, `(r, n, ...)`."""

    macs: Array
    activation_bytes: Array
    weight_bytes: Array
    kernels: Array

    @classmethod
    def of(cls, kept: Amounts, removed: Amounts, removes: NDArray[np.bool_]) -> "_Stack":
        which = removes.astype(int)
        fields = ("macs", "activation_bytes", "weight_bytes", "kernels")
        return cls(*(np.stack([getattr(kept, f), getattr(removed, f)])[which] for f in fields))

    def times(self, log_costs: Array) -> tuple[Array, Array]:
        """Returns latencies in ms `(r, n)`, and the share of each cost in them `(r, n, d)`."""
        costs = np.exp(log_costs)[:, None, :]
        activations = self.activation_bytes * costs[..., -3:-2]
        stored = self.weight_bytes * costs[..., -2:-1]
        by_weights = stored > activations
        parts = np.concatenate(
            [
                self.macs * costs[..., :-3],
                np.where(by_weights, 0.0, activations).sum(axis=-1, keepdims=True),
                np.where(by_weights, stored, 0.0).sum(axis=-1, keepdims=True),
                (self.kernels * costs[..., -1])[..., None],
            ],
            axis=-1,
        )
        total = parts.sum(axis=-1)
        return total, parts / total[..., None]


def _modes(
    stack: _Stack, target: Array, means: Array, precisions: Array, noise: float
) -> tuple[Array, Array]:
    """Returns modes `(r, d)` and log evidences `(r,)` of all components, by damped Gauss-Newton."""
    point = means + np.mean(target - np.log(stack.times(means)[0]), axis=1)[:, None]
    damping = np.full(len(means), 1e-3)
    loss, gradient, hessian = _loss(stack, target, means, precisions, noise, point)
    for _ in range(_ITERATIONS):
        damped = hessian * (1 + damping[:, None, None] * np.eye(means.shape[1]))
        step = np.clip(np.linalg.solve(damped, gradient[..., None])[..., 0], -2, 2)
        tried = _loss(stack, target, means, precisions, noise, point - step)
        better = tried[0] <= loss + 1e-10
        small = better & (loss - tried[0] < 1e-7)
        point = np.where(better[:, None], point - step, point)
        gradient = np.where(better[:, None], tried[1], gradient)
        hessian = np.where(better[:, None, None], tried[2], hessian)
        loss = np.where(better, tried[0], loss)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e9)
        if small.all():
            break
    log_det = [np.linalg.slogdet(matrix)[1] for matrix in (precisions, hessian)]
    return point, -0.5 * loss + 0.5 * (log_det[0] - log_det[1]) - len(target) * np.log(noise)


def _loss(
    stack: _Stack, target: Array, means: Array, precisions: Array, noise: float, point: Array
) -> tuple[Array, Array, Array]:
    """Returns twice the negative log posterior `(r,)`, and half its gradient `(r, d)` and Hessian `(r, d, d)`."""
    total, shares = stack.times(point)
    misfit, away = np.log(total) - target, point - means
    pulled = np.einsum("rij,rj->ri", precisions, away)
    loss = (misfit**2).sum(axis=1) / noise**2 + (away * pulled).sum(axis=1)
    gradient = np.einsum("rni,rn->ri", shares, misfit) / noise**2 + pulled
    hessian = np.einsum("rni,rnj->rij", shares, shares) / noise**2 + precisions
    return loss, gradient, hessian
