from dataclasses import replace

import numpy as np
import pytest

from evaluators.base import EarlyStoppingThreshold, Evaluator, Reference
from evaluators.metric import SumMetric
from evaluators.runtime import run_batches
from evaluators.task import accuracy
from evaluators.task.accuracy import AccuracyEvaluator, reference_outputs
from evaluators.testing import EvaluatorConformance, RandomSplit, model_from_text, tiny_context, tiny_model
from spaces.errors import ConfigError, EvaluationError, TimeLimitError


class TestConformance(EvaluatorConformance):
    def make_evaluator(self) -> Evaluator:
        return AccuracyEvaluator(batch_size=8)


class Confidence:
    """A metric whose scores are not 0 or 1: minus the distance of the first output from the label."""

    name = "closeness"
    unit = "points"
    scale = 1.0

    def per_example(self, outputs, labels):
        return -np.abs(outputs[:, 0] - labels).astype(float)


def values(evaluation):
    return {m.name: m.value for m in evaluation.measurements}


def test_the_reference_has_no_drop():
    context = tiny_context()
    found = values(AccuracyEvaluator().evaluate(tiny_model(), context))
    assert found["top1_drop"] == 0
    assert found["agreement"] == 100
    assert found["output_sqnr_db"] == 200
    assert found["file_bytes"] == found["packed_bytes"] == len(tiny_model().onnx_bytes)
    assert found["top1_low"] < found["top1"] < found["top1_high"]
    assert found["top1_drop_low"] < 0 < found["top1_drop_high"]


class Distance(Confidence):
    """The same, better when lower, in [0, 100]."""

    name = "distance"
    direction = "minimize"
    bounds = (0.0, 100.0)

    def per_example(self, outputs, labels):
        return np.clip(-super().per_example(outputs, labels), 0, 100)


def test_where_lower_is_better_a_drop_is_a_rise_and_stopping_looks_upwards():
    context = replace(tiny_context(n=200), metric=Distance())
    worse = tiny_model(weight_bits=4)
    found = values(AccuracyEvaluator().evaluate(worse, context))
    base = values(AccuracyEvaluator().evaluate(tiny_model(), context))
    assert found["distance_drop"] == pytest.approx(found["distance"] - base["distance"])
    assert found["distance_drop_low"] < found["distance_drop"] < found["distance_drop_high"]
    reachable = replace(context, threshold=EarlyStoppingThreshold(99.0, "trial 1 reaches it"))
    assert AccuracyEvaluator(batch_size=8).evaluate(worse, reachable).pruned == ""
    strict = replace(context, threshold=EarlyStoppingThreshold(1e-3, "trial 1 reaches it"))
    stopped = AccuracyEvaluator(batch_size=8).evaluate(worse, strict)
    assert "distance is above 0.001 points" in stopped.pruned
    partial = values(stopped)
    assert partial["distance_drop_partial"] == pytest.approx(partial["distance_partial"] - base["distance"])


class Spread(SumMetric):
    """A metric that is no mean: the deviation of the first output."""

    name = "spread"
    unit = "points"

    def statistics(self, outputs, labels):
        first = outputs[:, 0].astype(float)
        return np.stack([np.ones(len(first)), first, first**2], axis=1)

    def of_sums(self, sums):
        n, first, squares = sums.T
        return np.sqrt(squares / n - (first / n) ** 2)


def test_a_pooled_metric_has_intervals_and_never_stops_early():
    context = replace(
        tiny_context(n=200), metric=Spread(), threshold=EarlyStoppingThreshold(1e6, "trial 1 reaches it")
    )
    candidate = tiny_model(weight_bits=4)
    evaluation = AccuracyEvaluator(batch_size=16).evaluate(candidate, context)
    found = values(evaluation)
    ((outputs, _),) = run_batches(candidate, lambda _: context.split.batches(200), 200, 1)
    assert evaluation.pruned == ""
    assert found["spread"] == pytest.approx(float(np.std(outputs[:, 0])), rel=1e-5)
    assert found["spread_low"] < found["spread"] < found["spread_high"]
    assert found["spread_drop_low"] < found["spread_drop"] < found["spread_drop_high"]
    assert found["spread_drop"] == pytest.approx(
        float(np.std(context.reference.outputs[:, 0])) - found["spread"], rel=1e-4
    )


def test_further_metrics_are_reported_beside_the_first():
    context = replace(tiny_context(n=100), others=(Spread(), Confidence()))
    found = values(AccuracyEvaluator().evaluate(tiny_model(weight_bits=8), context))
    assert {"top1", "top1_drop", "spread", "spread_drop", "closeness", "closeness_drop_low"} <= set(found)


@pytest.mark.parametrize(("names", "exact"), [((), True), (("board",), True), (("board", "host"), False)])
def test_sums_are_exact_unless_this_machine_is_a_device(monkeypatch, names, exact):
    context, given = tiny_context(), []
    context = replace(context, devices={name: context.devices[name] for name in names})

    def watched(*arguments):
        given.append(arguments[4])
        return run_batches(*arguments)

    monkeypatch.setattr(accuracy, "run_batches", watched)
    AccuracyEvaluator().evaluate(tiny_model(weight_bits=8), context)
    assert given == [exact] == [context.exact_sums]


def test_metric_and_drop_are_those_of_the_outputs():
    context = tiny_context(n=200)
    candidate = tiny_model(weight_bits=4)
    outputs = reference_outputs(candidate, context.split)
    labels = next(context.split.batches(200))[1]
    right = outputs.argmax(1) == labels
    wanted = context.reference.outputs.argmax(1) == labels
    found = values(AccuracyEvaluator().evaluate(candidate, context))
    assert found["top1"] == pytest.approx(100 * right.mean())
    assert found["top1_drop"] == pytest.approx(100 * (wanted.mean() - right.mean()))
    assert found["top1_drop_low"] < found["top1_drop"] < found["top1_drop_high"]
    same = outputs.argmax(1) == context.reference.outputs.argmax(1)
    assert found["agreement"] == pytest.approx(100 * same.mean())
    noise = np.sum((outputs - context.reference.outputs) ** 2) / np.sum(context.reference.outputs**2)
    assert found["output_sqnr_db"] == pytest.approx(-10 * np.log10(noise), rel=1e-3)


def test_a_worse_model_has_a_drop_above_zero():
    context = tiny_context(n=100)
    split = replace_labels(context.split, context.reference.outputs.argmax(1))
    weight = np.random.default_rng(3).normal(size=(192, 5)).astype(np.float32)
    other = model_from_text(
        """g (float[n,3,8,8] input) => (float[n,5] output) {
            flat = Flatten(input)
            output = MatMul(flat, weight)
        }""",
        {"weight": weight},
    )
    found = values(AccuracyEvaluator().evaluate(other, replace(context, split=split)))
    assert found["agreement"] == found["top1"] < 90
    assert found["top1_drop"] == pytest.approx(100 - found["top1"])
    assert found["top1_drop_low"] > 0


def replace_labels(split, labels):
    class Labelled(RandomSplit):
        def batches(self, batch_size, limit=None):
            start = 0
            for inputs, _ in super().batches(batch_size, limit):
                yield inputs, labels[start : start + len(inputs)]
                start += len(inputs)

    return Labelled(len(split))


def test_metrics_with_scores_that_are_not_binary():
    context = replace(tiny_context(), metric=Confidence())
    evaluation = AccuracyEvaluator().evaluate(tiny_model(weight_bits=8), context)
    found = values(evaluation)
    assert found["closeness_low"] < found["closeness"] < found["closeness_high"]
    assert {m.unit for m in evaluation.measurements if m.name.startswith("closeness")} == {"points"}


def test_one_example_has_no_interval():
    found = values(AccuracyEvaluator().evaluate(tiny_model(), tiny_context(n=1)))
    assert "top1" in found
    assert "top1_low" not in found


def test_a_single_output_has_no_agreement():
    model = model_from_text(
        "g (float[n,3,8,8] input) => (float[n,1,1,1] output) { output = ReduceMean(input, axes) }",
        {"axes": np.array([1, 2, 3])},
    )
    found = values(AccuracyEvaluator().evaluate(model, replace(tiny_context(model), metric=Confidence())))
    assert "agreement" not in found
    assert found["output_sqnr_db"] == 200


def test_results_do_not_depend_on_the_batch_size():
    context = tiny_context()
    by_size = [values(AccuracyEvaluator(batch_size=b).evaluate(tiny_model(8), context)) for b in (5, 32)]
    assert by_size[0] == pytest.approx(by_size[1], rel=1e-4)


def test_nan_from_a_model_fails_the_trial_and_says_how_many():
    broken = model_from_text(
        """g (float[n,3,8,8] input) => (float[n,192] output) {
            root = Sqrt(input)
            output = Flatten(root)
        }""",
        {},
    )
    with pytest.raises(EvaluationError, match=r"not finite .* for 32 of 32 examples"):
        AccuracyEvaluator().evaluate(broken, tiny_context())


def test_nan_from_a_metric_is_an_error():
    class Broken(Confidence):
        def per_example(self, outputs, labels):
            return np.full(len(outputs), np.nan)

    with pytest.raises(EvaluationError, match="closeness is not finite for 32 of 32"):
        AccuracyEvaluator().evaluate(tiny_model(), replace(tiny_context(), metric=Broken()))


def test_a_reference_of_another_split_is_refused():
    context = tiny_context()
    other = Reference(context.reference.artifact, context.reference.outputs[:5])
    with pytest.raises(EvaluationError, match="outputs of 5 examples, but the split has 32"):
        AccuracyEvaluator().evaluate(tiny_model(), replace(context, reference=other))


def test_layers_are_explained_and_an_error_is_reported_instead_of_raised(monkeypatch):
    found = AccuracyEvaluator(sqnr_images=4).explain(tiny_model(8), tiny_context())
    assert [layer["layer"] for layer in found["layers"]] == ["kernel", "dense_weight"]

    def broken(*_):
        raise RuntimeError("no idea")

    monkeypatch.setattr(accuracy, "layer_sqnr", broken)
    found = AccuracyEvaluator().explain(tiny_model(8), tiny_context())
    assert found == {"layers": [], "layers_absent_because": "RuntimeError: no idea"}
    assert AccuracyEvaluator(sqnr_images=0).explain(tiny_model(8), tiny_context()) == {}


def test_a_time_limit_is_raised(monkeypatch):
    def late(*_):
        raise TimeLimitError("too late")

    monkeypatch.setattr(accuracy, "layer_sqnr", late)
    with pytest.raises(TimeLimitError):
        AccuracyEvaluator().explain(tiny_model(8), tiny_context())


def test_the_float_model_is_not_run_again_where_its_outputs_are_known(monkeypatch):
    context = tiny_context()
    runs = []
    monkeypatch.setattr(accuracy, "run_batches", lambda *a: runs.append(a) or run_batches(*a))
    wanted = values(AccuracyEvaluator(batch_size=8).evaluate(tiny_model(), context))
    assert len(runs) == 1  # in other batches its outputs may differ in the last digit
    assert values(AccuracyEvaluator().evaluate(tiny_model(), context)) == pytest.approx(wanted)
    assert len(runs) == 1


def labelled_by_the_float_model(n):
    """A context in which the float model is always right."""
    context = tiny_context(n=n)
    return replace(context, split=replace_labels(context.split, context.reference.outputs.argmax(1)))


def unlike_model():
    weight = np.random.default_rng(3).normal(size=(192, 5)).astype(np.float32)
    return model_from_text(
        """g (float[n,3,8,8] input) => (float[n,5] output) {
            flat = Flatten(input)
            output = MatMul(flat, weight)
        }""",
        {"weight": weight},
    )


def test_a_model_that_is_clearly_below_the_threshold_is_stopped():
    context = replace(
        labelled_by_the_float_model(400), threshold=EarlyStoppingThreshold(91.25, "trial 12 is as good")
    )
    evaluation = AccuracyEvaluator(batch_size=8).evaluate(unlike_model(), context)
    found = values(evaluation)
    assert set(found) == {
        "top1_partial", "top1_drop_partial", "top1_partial_error", "top1_partial_images", "file_bytes",
        "packed_bytes",
    }  # fmt: skip
    assert found["top1_partial_images"] < 100
    full = values(AccuracyEvaluator(stop_early=False).evaluate(unlike_model(), context))
    assert abs(found["top1_partial"] - full["top1"]) < 4 * found["top1_partial_error"]
    assert found["top1_drop_partial"] == pytest.approx(100 - found["top1_partial"])
    wanted = (
        f"top1 is below 91.25 % with 99.9 % confidence after {found['top1_partial_images']:.0f} of 400 images"
    )
    assert evaluation.pruned == f"{wanted}; trial 12 is as good"


def test_a_model_that_reaches_the_threshold_is_evaluated_on_the_whole_split():
    context = labelled_by_the_float_model(200)
    alone = AccuracyEvaluator(batch_size=8).evaluate(tiny_model(8), context)
    least = values(alone)["top1"]
    with_threshold = replace(context, threshold=EarlyStoppingThreshold(least, "trial 1 reaches it"))
    assert AccuracyEvaluator(batch_size=8).evaluate(tiny_model(8), with_threshold) == alone
    assert alone.pruned == ""


def test_scores_without_known_bounds_are_never_stopped():
    context = replace(
        tiny_context(n=200), metric=Confidence(), threshold=EarlyStoppingThreshold(1e6, "no trial")
    )
    evaluation = AccuracyEvaluator(batch_size=8).evaluate(unlike_model(), context)
    assert evaluation.pruned == ""

    class Bounded(Confidence):
        bounds = (-50.0, 50.0)

    evaluation = AccuracyEvaluator(batch_size=8).evaluate(unlike_model(), replace(context, metric=Bounded()))
    assert evaluation.pruned.startswith("closeness is below 1e+06 points for certain after 8 of 200")


def test_outputs_that_are_not_finite_fail_a_trial_that_might_stop():
    broken = model_from_text(
        """g (float[n,3,8,8] input) => (float[n,192] output) {
            root = Sqrt(input)
            output = Flatten(root)
        }""",
        {},
    )
    with pytest.raises(EvaluationError, match="for 100 of 100 examples"):
        AccuracyEvaluator(batch_size=8).evaluate(
            broken, replace(tiny_context(n=100), threshold=EarlyStoppingThreshold(99.0, "no trial"))
        )


@pytest.mark.parametrize(
    "arguments",
    [{"batch_size": 0}, {"threads": 0}, {"confidence": 1.0}, {"sqnr_images": -1}, {"stop_confidence": 0}],
)
def test_arguments_out_of_range_raise(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        AccuracyEvaluator(**arguments)
