from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import EvaluationContext, Evaluator, Reference
from evaluators.task import class_risk as module
from evaluators.task.class_risk import ClassRiskEvaluator
from evaluators.task.metrics.top1 import Top1
from evaluators.testing import EvaluatorConformance, model_from_text, tiny_context, tiny_model
from search.record.objectives import Measured, read_objectives
from spaces.errors import ConfigError, EvaluationError
from spaces.stages.array_split import ArraySplit

IDENTITY = model_from_text("g (float[n,4] input) => (float[n,4] output) { output = Identity(input) }", {})
DENSE = model_from_text("g (float[n,4] input) => (float[n,4] output) { output = Neg(input) }", {})


class TestConformance(EvaluatorConformance):
    def make_evaluator(self) -> Evaluator:
        return ClassRiskEvaluator(batch_size=8)


def context_of(labels, predicted, dense):
    """Examples for which the candidate predicts `predicted`, and the dense network `dense`."""
    inputs = np.eye(4, dtype=np.float32)[predicted]
    split = ArraySplit(inputs, np.asarray(labels, np.int64))
    return EvaluationContext(split, Top1(), Reference(DENSE, np.eye(4, dtype=np.float32)[dense]))


def evaluated(context, **arguments):
    evaluation = ClassRiskEvaluator(**arguments).evaluate(IDENTITY, context)
    return {m.name: m.value for m in evaluation.measurements}, evaluation.details["class_risk"]


EXAMPLE = context_of(
    labels=[0, 0, 0, 0, 1, 1, 1, 2, 2],
    predicted=[0, 1, 1, 0, 1, 0, 1, 2, 2],
    dense=[0, 0, 1, 0, 2, 1, 1, 1, 0],
)


def test_misses_are_counted_by_class():
    found, details = evaluated(EXAMPLE)
    assert (found["false_negatives_0"], found["false_negatives_1"], found["false_negatives_2"]) == (2, 1, 0)
    assert found["false_negatives_0_rate"] == 50
    assert found["false_negatives_excess"] == 1  # class 0: 2 misses, 1 by the dense network
    assert details["worst_class"] == 0
    assert details["classes"][0] == {
        "class": 0, "examples": 4, "false_negatives": 2, "with_margin": 2, "dense_false_negatives": 1, "excess": 1.0,
    }  # fmt: skip
    assert [row["class"] for row in details["classes"]] == [0, 1, 2]
    assert len(found) == 1 + 3 * 3


def test_the_worst_class_is_reported_as_the_reason_for_the_excess():
    def because(**arguments):
        evaluation = ClassRiskEvaluator(**arguments).evaluate(IDENTITY, EXAMPLE)
        return evaluation.details["because"]["metric.false_negatives_excess"]

    assert because() == "class 0: 2 of 4 missed, 1 by the dense network"
    assert because(classes=[2]) == "class 2: 0 of 2 missed, 2 by the dense network"
    assert (
        because(margin=0.2) == "class 0: 2 of 4 missed or recognised by less than 0.2, 1 by the dense network"
    )


def test_one_class_alone():
    found, details = evaluated(EXAMPLE, classes=[1])
    assert found["false_negatives_excess"] == 0
    assert details["worst_class"] == 1
    assert not any("_0" in name or "_2" in name for name in found)


def test_slack_is_a_share_of_the_dense_misses():
    assert evaluated(EXAMPLE, slack=1.0)[0]["false_negatives_excess"] == 0
    assert evaluated(EXAMPLE, slack=0.5)[0]["false_negatives_excess"] == 0.5
    assert evaluated(EXAMPLE, classes=[2], slack=0.5)[0]["false_negatives_excess"] == -3


@pytest.mark.parametrize("margin", [0.0, 0.5, 0.7, 0.9, 0.995])
def test_examples_recognised_by_no_more_than_the_margin_count_as_misses(margin):
    shares = np.array([[0.2, 0.8], [0.06, 0.94], [0.003, 0.997], [0.001, 0.999], [0.6, 0.4]])
    inputs = np.pad(np.log(shares), ((0, 0), (0, 2)), constant_values=-99).astype(np.float32)
    labels = np.array([1, 1, 1, 1, 1])
    dense = np.eye(4, dtype=np.float32)[[1, 1, 1, 1, 0]]
    context = EvaluationContext(ArraySplit(inputs, labels), Top1(), Reference(DENSE, dense))
    found, details = evaluated(context, margin=margin)
    # leads of 0.6, 0.88, 0.994 and 0.998, one miss; the dense network misses one, too
    assert found["false_negatives_excess"] == sum(lead <= margin for lead in (0.6, 0.88, 0.994, 0.998))
    assert found["false_negatives_1"] == 1
    assert details["classes"][0]["with_margin"] == 1 + found["false_negatives_excess"]


def test_a_margin_does_not_help_a_wrong_answer_that_is_certain():
    assert evaluated(EXAMPLE, margin=0.1)[1]["classes"][0]["with_margin"] == 2


def test_the_bound_is_clopper_and_pearsons():
    found, _ = evaluated(EXAMPLE)
    # no miss in 2: 1 - 0.05^(1/2); 2 in 4: the root of P(X <= 2 | 4, p) = 0.05
    assert found["false_negatives_2_rate_high"] == pytest.approx(100 * (1 - 0.05**0.5))
    p = found["false_negatives_0_rate_high"] / 100
    assert (1 - p) ** 4 + 4 * p * (1 - p) ** 3 + 6 * p**2 * (1 - p) ** 2 == pytest.approx(0.05)
    wider, _ = evaluated(EXAMPLE, confidence=0.99)
    assert wider["false_negatives_0_rate_high"] > found["false_negatives_0_rate_high"]


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=40), st.floats(0, 2))
def test_no_excess_means_no_class_is_missed_more_often(rows, slack):
    labels, predicted, dense = (np.array(column) for column in zip(*rows, strict=True))
    found, details = evaluated(context_of(labels, predicted, dense), slack=slack)
    each = {
        c: int(np.sum((labels == c) & (predicted != c)))
        - (1 + slack) * int(np.sum((labels == c) & (dense != c)))
        for c in np.unique(labels).tolist()
    }
    # the excess is rounded to nine digits
    assert found["false_negatives_excess"] == pytest.approx(max(each.values()), abs=1e-9)
    assert each[details["worst_class"]] == pytest.approx(max(each.values()), abs=1e-9)
    missed = sum(value for name, value in found.items() if name.rpartition("_")[2].isdigit())
    assert missed == np.sum(labels != predicted)


def test_the_dense_network_has_no_excess():
    context = tiny_context()
    found = ClassRiskEvaluator().evaluate(context.reference.artifact, context).measurements
    assert found[0].name == "false_negatives_excess"
    assert found[0].value == 0


def test_many_classes_have_one_column(monkeypatch):
    monkeypatch.setattr(module, "MOST_CLASSES", 2)
    found, details = evaluated(EXAMPLE)
    assert found == {"false_negatives_excess": 1}
    assert [row["class"] for row in details["classes"]] == [0, 1]
    assert len(evaluated(EXAMPLE, classes=[0, 1])[0]) == 7


def test_examples_without_a_label_are_not_counted():
    context = context_of([0, -1, 1], [1, 1, 1], [0, 0, 0])
    assert evaluated(context)[0]["false_negatives_0"] == 1
    with pytest.raises(EvaluationError, match="the split has no labels"):
        evaluated(context_of([-1], [0], [0]))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"classes": []}, "classes must be null or list"),
        ({"classes": [-1]}, r"classes must be null or list.*\[-1\]"),
        ({"classes": [True]}, "classes must be null or list"),
        ({"classes": ["one"]}, "classes must be null or list"),
        ({"slack": -0.1}, "slack must not be negative, but is -0.1"),
        ({"margin": 1.0}, "margin must be at least 0 and below 1, but is 1.0"),
        ({"margin": -0.5}, "margin must be at least 0 and below 1, but is -0.5"),
        ({"confidence": 1.0}, "confidence must lie between 0 and 1"),
        ({"batch_size": 0}, "must be at least 1"),
    ],
)
def test_invalid_arguments_raise(arguments, text):
    with pytest.raises(ConfigError, match=f"evaluator.class_risk.*{text}"):
        ClassRiskEvaluator(**arguments)


def test_a_class_that_does_not_occur_raises():
    with pytest.raises(
        ConfigError, match=r"no example of the split is of class 3; classes that occur: 0, 1, 2"
    ):
        evaluated(EXAMPLE, classes=[0, 3])


def test_a_model_without_an_output_for_each_class_raises():
    context = replace(EXAMPLE, split=ArraySplit(EXAMPLE.split.inputs, EXAMPLE.split.labels + 2))
    with pytest.raises(EvaluationError, match="the model has 4, labels go up to 4"):
        evaluated(context)


def test_constraints_can_use_the_columns():
    columns = [f"metric.{name}" for name in evaluated(EXAMPLE)[0]]
    section = {
        "minimize": ["false_negatives_1"],
        "constraints": {
            "all": {"measure": "false_negatives_excess", "max": 0},
            "one": {"measure": "false_negatives_1", "max": 3},
            "sure": {"measure": "false_negatives_1_rate", "max": 5.0, "margin": "error"},
        },
    }
    _, constraints = read_objectives(section, Measured("top1", [], columns))
    assert [(c.column, c.bound) for c in constraints] == [
        ("metric.false_negatives_excess", 0),
        ("metric.false_negatives_1", 3),
        ("metric.false_negatives_1_rate_high", 5),
    ]


def test_a_quantized_model_is_run(monkeypatch):
    context = tiny_context(n=64)
    outputs = ClassRiskEvaluator().evaluate(tiny_model(weight_bits=4), context)
    again = ClassRiskEvaluator(batch_size=5, threads=1).evaluate(tiny_model(weight_bits=4), context)
    assert outputs == again


@pytest.mark.parametrize(("dense", "slack", "allowed"), [(100, 0.15, 115), (50, 0.14, 57), (10, 0.1, 11)])
def test_as_many_misses_as_the_slack_allows_are_no_excess(dense, slack, allowed):
    n = 200
    labels = np.zeros(n, int)
    predicted, by_dense = np.arange(n) < allowed, np.arange(n) < dense
    context = context_of(labels, predicted.astype(int), by_dense.astype(int))
    assert evaluated(context, slack=slack)[0]["false_negatives_excess"] == 0


def with_groups(groups, n_missed=20):
    """100 examples of class 0, of which the first are missed, in groups."""
    predicted = [1] * n_missed + [0] * (100 - n_missed)
    return replace(context_of([0] * 100, predicted, [0] * 100), groups=np.asarray(groups))


def test_bounds_allow_for_groups():
    alone = evaluated(with_groups(np.arange(100)))[0]["false_negatives_0_rate_high"]
    mixed = evaluated(with_groups(np.tile(np.arange(20), 5)))[0]["false_negatives_0_rate_high"]
    alike = evaluated(with_groups(np.repeat(np.arange(20), 5)))[0]["false_negatives_0_rate_high"]
    assert (
        alone
        == evaluated(replace(with_groups(np.arange(100)), groups=None))[0]["false_negatives_0_rate_high"]
    )
    assert (
        20 < alone < mixed < alike
    )  # 20 groups are alike within themselves: of each all are missed, or none
    assert alike > 35  # as if 20 examples had 4 misses, or fewer
    one = evaluated(with_groups(np.zeros(100)))[0]
    assert (one["false_negatives_0_rate"], round(one["false_negatives_0_rate_high"])) == (20, 98)


@given(groups=st.lists(st.integers(0, 6), min_size=100, max_size=100), n_missed=st.integers(0, 100))
def test_bounds_with_groups_are_never_below_those_of_independent_examples(groups, n_missed):
    context = with_groups(groups, n_missed)
    of_groups = evaluated(context)[0]["false_negatives_0_rate_high"]
    assert (
        evaluated(replace(context, groups=None))[0]["false_negatives_0_rate_high"] - 1e-9 <= of_groups <= 100
    )
