"""Costs of operations from fewer measured networks than there are costs, by borrowing the ratios of other boards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.fit.costs import BESIDES_MACS, Amounts, Array, ReferenceBoard
from evaluators.devices.device import DType

# What one is worth in multiply-accumulates, and the standard deviation of its logarithm: before any measurement. On
# a core with 8-bit SIMD, requantizing an output element takes 10 to 30 cycles where a multiply-accumulate takes 1 to 2;
# a weight byte is one load shared by several of them; a kernel's set-up is some thousand cycles. Wide on purpose.
BEFORE_MEASUREMENTS: Mapping[str, tuple[float, float]] = {
    "activation_byte": (4.0, 0.8),
    "weight_byte": (0.3, 1.0),
    "kernel": (1000.0, 1.5),
    "depthwise": (1.0, 0.4),
}
_ANY_MAC = (1.0, 0.3)
_SCALE_VARIANCE = 100.0  # a board's speed is not known beforehand at all
_DTYPE_VARIANCE = 1.0  # what 8 bits cost says little about what float costs
_ITERATIONS = 60


@dataclass(frozen=True)
class Borrowing:
    """How much is borrowed from other boards.

    Attributes:
        spread: Standard deviation of a board's log cost ratios around those of the board that it is most like.
        noise: Standard deviation of log latency around the model.
        wide: Prior probability of being like no board known.
        same_runtime: How many times likelier a board is to be like one that runs the same runtime.
        same_release: The same for the same version of it, on top.
    """

    spread: float = 0.2
    noise: float = 0.05
    wide: float = 0.1
    same_runtime: float = 2.0
    same_release: float = 20.0


@dataclass(frozen=True)
class Candidates:
    """Each board's ratios brought to the measured networks; the last two are those of no board in particular.

    Attributes:
        log_costs: Most probable costs if the board is like the reference, `(r, d)`.
        log_evidence: How well the reference explains the measurements, `(r,)`.
        removes_dead: Whether the reference takes constant channels out, `(r,)`.
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
    """Fits every reference's ratios to measured networks.

    Log latency is a normal around the model's, log costs are a normal around the reference's, with the scale left
    free. Gauss-Newton finds the mode, Laplace's approximation the evidence (MacKay 2003, "Information Theory, Inference,
    and Learning Algorithms", chapter 27).

    Args:
        kept: What the networks hold, constant channels included.
        removed: The same without them; equal columns and numbers of kernels.
        latency_ms: Measured, `(n,)`.
        boards: References.
        borrowing: How much they count.
    """
    middle, sd = _before(kept.columns)
    means = np.array([_means(board, kept.columns) for board in boards] + [middle, middle])
    variances = np.array([np.full(len(middle), borrowing.spread**2)] * len(boards) + [sd**2, sd**2])
    precisions = np.asarray(
        np.linalg.inv(variances[:, :, None] * np.eye(len(middle)) + _free(kept.columns)), np.float64
    )
    removes = np.array([board.removes_dead_channels for board in boards] + [False, True])
    stack = _Stack.of(kept, removed, removes)
    found, evidence = _modes(stack, np.log(latency_ms), means, precisions, borrowing.noise)
    return Candidates(found, evidence, removes)


def weights(
    found: Candidates,
    boards: Sequence[ReferenceBoard],
    borrowing: Borrowing,
    runtime: str = "",
    release: str = "",
) -> Array:
    """Posterior probability of each candidate, `(r,)`; boards with several results share one board's weight."""
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
    log_posterior = found.log_evidence + np.log(prior)
    posterior: Array = np.exp(log_posterior - log_posterior.max())
    return np.asarray(posterior / posterior.sum())


def blended(found: Candidates, share: Array) -> tuple[Array, bool]:
    """One set of log costs, `(d,)`, and whether constant channels are taken out: what most of `share` says."""
    removes = bool(share @ found.removes_dead > 0.5)
    agreeing = share * (found.removes_dead == removes)
    return (agreeing / agreeing.sum()) @ found.log_costs, removes


def reference_board(
    kept: Amounts,
    removed: Amounts,
    latency_ms: Array,
    name: str,
    runtime: str,
    release: str,
    noise: float = 0.03,
) -> ReferenceBoard:
    """Costs of one measured board from its own networks alone, for others to borrow."""
    found = candidates(kept, removed, latency_ms, (), Borrowing(noise=noise))
    # Networks without a constant channel cannot tell; then the simpler answer is taken.
    removes = bool(found.log_evidence[1] > found.log_evidence[0] + 1.0)
    costs = found.log_costs[int(removes)]
    names = [*(kind for _, kind in kept.columns), *BESIDES_MACS]
    centred = {key: float(cost - costs.mean()) for key, cost in zip(names, costs, strict=True)}
    return ReferenceBoard(name, runtime, release, centred, removes)


def _before(columns: Sequence[tuple[DType, str]]) -> tuple[Array, Array]:
    pairs = [
        BEFORE_MEASUREMENTS.get(name, _ANY_MAC) for name in (*(kind for _, kind in columns), *BESIDES_MACS)
    ]
    worth, sd = np.array(pairs).T
    return np.log(worth), sd


def _means(board: ReferenceBoard, columns: Sequence[tuple[DType, str]]) -> Array:
    """The board's log costs; a kernel class that it did not run costs what its pointwise convolutions do."""
    costs = board.log_costs
    usual = costs.get("pointwise", costs.get("conv", 0.0))
    macs = [costs.get(kind, usual) for _, kind in columns]
    return np.array([*macs, *(costs.get(name, usual + _worth(name)) for name in BESIDES_MACS)])


def _worth(name: str) -> float:
    return float(np.log(BEFORE_MEASUREMENTS[name][0]))


def _free(columns: Sequence[tuple[DType, str]]) -> Array:
    """Covariance of what is not known beforehand: the board's speed, and each dtype's besides the first's."""
    d = len(columns) + len(BESIDES_MACS)
    free = np.full((d, d), _SCALE_VARIANCE)
    for dtype in sorted({dtype for dtype, _ in columns})[1:]:
        member = np.array([float(own == dtype) for own, _ in columns] + [0.0] * len(BESIDES_MACS))
        free += _DTYPE_VARIANCE * np.outer(member, member)
    return free


@dataclass(frozen=True)
class _Stack:
    """Amounts of the networks once for every candidate, `(r, n, ...)`."""

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
        """Latencies `(r, n)`, and the share of each cost in them `(r, n, d)`."""
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
    """Most probable log costs `(r, d)` and log evidence `(r,)`, by damped Gauss-Newton on all candidates at once."""
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
    total, shares = stack.times(point)
    misfit, away = np.log(total) - target, point - means
    pulled = np.einsum("rij,rj->ri", precisions, away)
    loss = (misfit**2).sum(axis=1) / noise**2 + (away * pulled).sum(axis=1)
    gradient = np.einsum("rni,rn->ri", shares, misfit) / noise**2 + pulled
    hessian = np.einsum("rni,rnj->rij", shares, shares) / noise**2 + precisions
    return loss, gradient, hessian
