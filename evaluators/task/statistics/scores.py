"""What a metric says of a model's outputs: gathered batch by batch, then as a value with its interval, and as a difference."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric, Outputs, PooledMetric, sign_of
from evaluators.task.statistics.bootstrap import bootstrap_interval, resampled_values
from evaluators.task.statistics.groups import group_numbers
from evaluators.task.statistics.intervals import Interval, paired_interval, score_interval
from spaces.errors import EvaluationError
from spaces.stages.inputs import Inputs, joined_inputs, n_rows

Statistics = NDArray[Any]
"""Scores `(n,)` of a metric that averages; what `PooledMetric.statistics` returns of one that does not."""


class Estimate(NamedTuple):
    """A value in the metric's unit, and its interval; None where examples are too few or too alike for one."""

    value: float
    interval: Interval | None


def is_pooled(metric: Metric) -> bool:
    """Whether the metric is no mean over examples."""
    return hasattr(metric, "pooled")


def statistics_of(metric: Metric, outputs: Outputs, labels: Inputs) -> Statistics:
    """Returns a batch's scores, or what a pooled metric has to know of each example.

    Raises:
        EvaluationError: A score is not finite, or there is not one for each example.
    """
    if is_pooled(metric):
        found: Statistics = np.asarray(metric.statistics(outputs, labels))  # type: ignore[attr-defined]
    else:
        scores = metric.per_example(outputs, labels)  # type: ignore[attr-defined]
        found = np.asarray(scores, np.float64)
        bad = int(np.sum(~np.isfinite(found)))
        if bad:
            raise EvaluationError(
                f"the metric {metric.name} is not finite for {bad} of {len(found)} examples"
            )
    if found.ndim == 0 or len(found) != n_rows(labels):
        raise EvaluationError(
            f"the metric {metric.name} gives {found.shape} for {n_rows(labels)} examples; one row each is needed"
        )
    return found


def value_of(metric: Metric, statistics: Statistics) -> float:
    """Returns the metric in its unit. Raises EvaluationError if it is not finite."""
    if is_pooled(metric):
        value = metric.pooled(statistics, np.ones(len(statistics)))  # type: ignore[attr-defined]
    else:
        value = float(np.mean(statistics))
    if not np.isfinite(value):
        raise EvaluationError(
            f"the metric {metric.name} has no value on these {len(statistics)} examples "
            "(it may need examples of every class, or labels that differ)"
        )
    return metric.scale * float(value)


class Gathered:
    """The statistics of several metrics, batch by batch.

    Args:
        metrics: The metrics.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = tuple(metrics)
        self._parts: list[list[Statistics]] = [[] for _ in metrics]
        self._whole: list[tuple[Outputs, Inputs]] = []
        self._keeps = any(_needs_all(metric) for metric in metrics)

    def add(self, outputs: Outputs, labels: Inputs) -> list[Statistics | None]:
        """Adds a batch, and returns its statistics for each metric; None for one that needs all examples at once.

        Raises:
            EvaluationError: A score is not finite.
        """
        if self._keeps:
            self._whole.append((outputs, labels))
        added: list[Statistics | None] = []
        for metric, parts in zip(self._metrics, self._parts, strict=True):
            added.append(None if _needs_all(metric) else statistics_of(metric, outputs, labels))
            if added[-1] is not None:
                parts.append(added[-1])
        return added

    def statistics(self) -> tuple[Statistics, ...]:
        """Returns the statistics of all examples so far, of which there must be one, for each metric."""
        if self._keeps:
            outputs = joined_inputs([o for o, _ in self._whole])
            labels = joined_inputs([y for _, y in self._whole])
        return tuple(
            statistics_of(metric, outputs, labels) if _needs_all(metric) else np.concatenate(parts)
            for metric, parts in zip(self._metrics, self._parts, strict=True)
        )


class Judge:
    """Turns the statistics of a model and of the uncompressed one into estimates.

    Args:
        metric: The metric.
        reference: The uncompressed model's statistics on the same examples, for differences; None without.
        confidence: Confidence of the intervals, in (0, 1).
        n_resamples: Number of resamples of a pooled metric.
        groups: The group of each example, `(n,)`, e.g. its speaker, whose examples are no independent ones; None without. Of a
            single group there are no intervals.
    """

    def __init__(
        self,
        metric: Metric,
        reference: Statistics | None,
        confidence: float,
        n_resamples: int,
        groups: NDArray[Any] | None = None,
    ) -> None:
        self._metric, self._reference = metric, reference
        self._confidence, self._n = confidence, n_resamples
        self._groups = group_numbers(groups)
        self._is_one_group = self._groups is not None and not self._groups.any()
        self._last: tuple[Statistics, NDArray[np.float64]] | None = None

    def value(self, statistics: Statistics) -> Estimate:
        """Returns the metric with its interval."""
        value = value_of(self._metric, statistics)
        if len(statistics) < 2 or self._is_one_group:
            return Estimate(value, None)
        if is_pooled(self._metric):
            return Estimate(value, bootstrap_interval(value, self._values(statistics), self._confidence))
        return Estimate(value, self._scaled(score_interval(statistics, self._confidence, self._groups)))

    def drop(self, statistics: Statistics) -> Estimate:
        """Returns by how much the metric is worse than the uncompressed model's, whichever way it is better.

        The interval is paired: of the differences of scores, or of the metric in the same resamples.
        """
        assert self._reference is not None
        sign = sign_of(self._metric)
        drop = sign * (self._reference_value - value_of(self._metric, statistics))
        if len(statistics) < 2 or self._is_one_group:
            return Estimate(drop, None)
        if not is_pooled(self._metric):
            paired = paired_interval(self._reference, statistics, self._confidence, self._groups)
            interval = self._scaled(paired)
            return Estimate(drop, interval if sign > 0 else Interval(-interval.high, -interval.low))
        differences = sign * (self._reference_values - self._values(statistics))
        return Estimate(drop, bootstrap_interval(drop, differences, self._confidence))

    @cached_property
    def _reference_value(self) -> float:
        assert self._reference is not None
        return value_of(self._metric, self._reference)

    @cached_property
    def _reference_values(self) -> NDArray[np.float64]:
        """The reference's metric in each resample."""
        return self._resample(self._reference)

    def _values(self, statistics: Statistics) -> NDArray[np.float64]:
        """Returns the metric in each resample; those of the last model are kept, which value and drop both need."""
        if self._last is None or self._last[0] is not statistics:
            self._last = statistics, self._resample(statistics)
        return self._last[1]

    def _resample(self, statistics: Statistics | None) -> NDArray[np.float64]:
        assert is_pooled(self._metric)
        assert statistics is not None
        metric: PooledMetric = self._metric  # type: ignore[assignment]
        return metric.scale * resampled_values(metric, statistics, self._n, groups=self._groups)

    def _scaled(self, interval: Interval) -> Interval:
        return Interval(self._metric.scale * interval.low, self._metric.scale * interval.high)


def _needs_all(metric: Metric) -> bool:
    return bool(getattr(metric, "whole", False))
