"""Examples of one group tell less than as many independent ones: intervals keep their coverage, and whole groups are resampled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.task.metrics.classes.auc import AUC
from evaluators.task.metrics.top1 import Top1
from evaluators.task.statistics.bootstrap import resampled_values
from evaluators.task.statistics.groups import effective_size, group_numbers
from evaluators.task.statistics.intervals import paired_interval, score_interval
from evaluators.task.statistics.scores import Judge


def people(rng, n_groups, size, spread):
    """Right answers of people of whom each has a share of right answers of its own, 0.8 on average (beta-binomial)."""
    shares = rng.beta(0.8 * spread, 0.2 * spread, n_groups)
    return (rng.random((n_groups, size)) < shares[:, None]).astype(float).reshape(-1)


def test_groups_of_equal_scores_count_once_each():
    scores = np.repeat(
        np.tile([0.0, 1.0], 500), 20
    )  # 1,000 groups, so that t and normal quantiles hardly differ
    assert effective_size(scores, np.repeat(np.arange(1000), 20)) == pytest.approx(1000, rel=0.01)


def test_independent_examples_count_fully_but_for_the_number_of_groups():
    rng = np.random.default_rng(0)
    scores, groups = (rng.random(20_000) < 0.8).astype(float), np.repeat(np.arange(2000), 10)
    assert effective_size(scores, groups) == pytest.approx(20_000, rel=0.1)
    few = np.repeat(np.arange(5), 4000)
    assert effective_size(np.ones(20_000), few) == pytest.approx(
        20_000 * (1.959964 / 2.776445) ** 2, rel=1e-5
    )


@given(st.lists(st.booleans(), min_size=8, max_size=60), st.integers(2, 6), st.integers(0, 9))
def test_groups_never_make_an_interval_narrower(right, n_groups, seed):
    scores = np.array(right, float)
    other = np.random.default_rng(seed).permutation(scores)
    groups = np.arange(len(scores)) % n_groups
    assert 0 < effective_size(scores, groups) <= len(scores)
    for grouped, plain in (
        (score_interval(scores, 0.9, groups), score_interval(scores, 0.9)),
        (paired_interval(scores, other, 0.9, groups), paired_interval(scores, other, 0.9)),
    ):
        assert grouped.high - grouped.low >= plain.high - plain.low - 1e-9


def test_groups_of_one_example_each_are_no_groups():
    assert group_numbers(np.array(["b", "a", "c"])) is None
    assert group_numbers(None) is None
    assert group_numbers(np.array(["b", "a", "b"])).tolist() == [1, 0, 1]


def test_the_interval_keeps_its_coverage_where_people_differ():
    """1,000 samples of 12 people with 40 examples each: 95 % intervals for independent examples cover in two of three cases."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(12), 40)
    covered = {"groups": 0, "independent": 0}
    for _ in range(1000):
        scores = people(rng, 12, 40, 4.0)
        for name, given_groups in (("groups", groups), ("independent", None)):
            low, high = score_interval(scores, 0.95, given_groups)
            covered[name] += low <= 0.8 <= high
    assert covered["independent"] < 600
    # nominal 950; the standard deviation of the count is 7, and clusters of a skewed distribution cost some points
    assert covered["groups"] > 910


def test_a_paired_difference_that_one_person_makes_is_no_difference():
    """A model that is better for one of six people only, with 100 examples each."""
    groups = np.repeat(np.arange(6), 100)
    first = np.ones(600)
    second = first.copy()
    second[:30] = 0.0
    assert paired_interval(first, second).low > 0.02
    assert paired_interval(first, second, groups=groups).low < 0


def test_pooled_metrics_resample_whole_groups():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 60)
    groups = np.repeat(np.arange(12), 10)
    scores = (
        labels + rng.normal(0, 1.5, 120) + 2.0 * rng.normal(size=12)[groups]
    )  # a person's scores lie higher
    statistics = AUC().statistics(np.column_stack([-scores, scores]).astype(np.float32), labels)
    apart, together = (resampled_values(AUC(), statistics, 300, groups=g) for g in (None, groups))
    once = np.repeat(np.eye(12)[3], 10)[None]  # a resample of one group alone is that group's value
    assert np.isclose(AUC().pooled_each(statistics, once)[0], AUC().pooled(statistics[30:40], np.ones(10)))
    assert np.nanstd(together) != pytest.approx(np.nanstd(apart), rel=0.01)
    judge = Judge(AUC(), statistics, 0.95, 300, groups)
    assert judge.value(statistics).interval.high <= 100


def test_a_judge_has_no_interval_of_one_group_and_the_same_as_without_of_single_examples():
    scores = np.tile([0.0, 1.0, 1.0], 20)
    alone = Judge(Top1(), scores, 0.95, 10, np.zeros(60))
    assert alone.value(scores).interval is None
    assert alone.drop(scores).interval is None
    single, plain = Judge(Top1(), scores, 0.95, 10, np.arange(60)), Judge(Top1(), scores, 0.95, 10)
    assert single.value(scores) == plain.value(scores)
