"""How well other tasks' measurements predict the order of another task's candidates, and what each trial says about that."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_GAPS = np.array([0.1, 0.2, 0.4, 0.7])  # differences of predicted quantiles
_UNFORESEEN = 0.1  # probability that an order has nothing to do with the prediction
_ALONE = (
    0.5,
    0.4,
)  # probability of the predicted order by one other task: at a difference of 0, and what 1 adds
_LEAST_CORRELATION, _ENOUGH = 0.1, 0.25
_SURE = 1.28  # standard deviations: one in ten by chance


@dataclass(frozen=True)
class Calibration:
    """Probabilities that of two candidates the one that is predicted better is better.

    Only the order counts, so that neither units nor the level of a task matter; probabilities are bounded, so that one
    collapsed candidate does not refute what all others agree with.

    Attributes:
        in_order: `(n_gaps,)`, by the difference of the predicted quantiles.
    """

    in_order: Array

    def log_probabilities(self, predicted: Array, values: Array) -> Array:
        """Returns `(n, n)`, the logarithm of the probability that result i is better or worse than j, as it is; 0 for ties.

        Args:
            predicted: `(n,)`, quantiles of the predictions, 0 the best.
            values: `(n,)`, results, higher is better.
        """
        lead, better = _leads(predicted), _order(values)
        chance = self.in_order[np.searchsorted(_GAPS, np.abs(lead))]
        return np.where(better == 0, 0.0, np.log(np.where(better == np.sign(lead), chance, 1 - chance)))

    @classmethod
    def of(cls, predicted: Sequence[Array], values: Sequence[Array]) -> "Calibration":
        """Counts pairs of several tasks' rows, quantiles and values `(n_task,)`; of a single task nothing can be counted."""
        if len(predicted) < 2:
            return cls(_ALONE[0] + _ALONE[1] * np.append(_GAPS, 1.0))
        counts = np.ones((len(_GAPS) + 1, 2))
        for p, v in zip(predicted, values, strict=True):
            lead, better = _leads(p), _order(v)
            for at, sign in enumerate((1, -1)):
                chosen = (lead > 0) & (better == sign)
                counts[:, at] += np.bincount(np.searchsorted(_GAPS, lead[chosen]), minlength=len(counts))
        return cls((1 - _UNFORESEEN) * counts[:, 0] / counts.sum(axis=1) + _UNFORESEEN / 2)


@dataclass(frozen=True)
class Collapses:
    """Probabilities that a candidate collapses, by what is predicted of it.

    Attributes:
        limit: A collapsed candidate is at least this far below the top.
        chances: `(n_gaps,)`, by the quantile of the prediction.
    """

    limit: float
    chances: Array

    def log_ratios(self, predicted: Array, drops: Array) -> Array:
        """Returns `(n,)`, the logarithm of how much more probable it is by the prediction that each trial collapsed, or did not.

        It is compared with the rule of succession over the trials before.

        Args:
            predicted: `(n,)`, quantiles of the predictions, 0 the best.
            drops: `(n,)`, how far below the top the trials are, in their order.
        """
        collapsed = drops >= self.limit
        before: Array = np.cumsum(collapsed) - collapsed.astype(np.float64)
        alone = (before + 1) / (np.arange(len(drops)) + 2)
        chance = (1 - _UNFORESEEN) * self.chances[np.searchsorted(_GAPS, predicted)] + _UNFORESEEN * alone
        return np.asarray(np.where(collapsed, np.log(chance / alone), np.log((1 - chance) / (1 - alone))))

    @classmethod
    def of(cls, limit: float, predicted: Sequence[Array], drops: Sequence[Array]) -> "Collapses":
        """Counts several tasks' rows, quantiles and drops `(n_task,)`."""
        at, collapsed = np.searchsorted(_GAPS, np.concatenate(predicted)), np.concatenate(drops) >= limit
        counts = np.bincount(at, minlength=len(_GAPS) + 1)
        share = (collapsed.sum() + 1) / (len(collapsed) + 2)
        return cls(limit, (np.bincount(at, collapsed, minlength=len(counts)) + share) / (counts + 1))


def normal_log_probabilities(mean: Array, std: Array, values: Array) -> Array:
    """Returns what `Calibration.log_probabilities` does, of results that are predicted as normal, each against those before it.

    Args:
        mean: `(n,)`.
        std: `(n,)`.
        values: `(n,)`, on the same scale.
    """
    from scipy.special import ndtr

    better = _order(values)
    chance = ndtr(better * (mean[:, None] - values) / std[:, None])
    return np.where(better == 0, 0.0, np.log((1 - _UNFORESEEN) * chance + _UNFORESEEN / 2))


def quantiles(values: Array, among: Array) -> Array:
    """Returns `(n,)`, the share of `among`, `(m,)`, that is better (higher) than each value; ties count half."""
    ascending = np.sort(among)
    last = np.searchsorted(ascending, values, side="right")
    equal = last - np.searchsorted(ascending, values, side="left")
    return np.asarray((len(among) - last + 0.5 * equal) / max(len(among), 1))


def predict_each_other(predicted: Sequence[Array], values: Sequence[Array]) -> bool:
    """Returns whether tasks are ranked by what the others predict of them better than by chance; true for a single task.

    It is so if the mean over tasks of Spearman's rank correlation is more than 0.1, and more than 1.28 times its standard
    deviation under independence (each pair of tasks counts twice, as both predict each other); 0.25 is enough where few rows
    leave it uncertain.

    Args:
        predicted: `(n_task,)` for each task.
        values: Likewise.
    """
    if len(predicted) < 2:
        return True
    deviation = np.sqrt(2 * np.sum([1 / max(len(p) - 1, 1) for p in predicted])) / len(predicted)
    mean = float(np.mean([_spearman(p, v) for p, v in zip(predicted, values, strict=True)]))
    return bool(mean > max(_LEAST_CORRELATION, min(_SURE * deviation, _ENOUGH)))


def _spearman(a: Array, b: Array) -> float:
    x, y = (quantiles(v, v) - 0.5 for v in (a, b))
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def _leads(predicted: Array) -> Array:
    """Returns `(n, n)`, by how much i is predicted better than j."""
    return np.asarray(np.subtract.outer(predicted, predicted).T)


def _order(values: Array) -> Array:
    """Returns `(n, n)`, 1 where i is better than j, -1 where it is worse, 0 for ties."""
    return np.asarray(np.sign(np.subtract.outer(values, values)))
