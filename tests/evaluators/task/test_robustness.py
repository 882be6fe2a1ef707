import pickle
from dataclasses import replace

import numpy as np
import pytest

from evaluators.base import EvaluationContext, Evaluator, Reference
from evaluators.runtime import reference_outputs
from evaluators.task.data.splits import Normalise
from evaluators.task.metrics.top1 import Top1
from evaluators.task.robustness import RobustnessEvaluator
from evaluators.testing import EvaluatorConformance, model_from_text, tiny_context, tiny_model
from spaces.errors import ConfigError, EvaluationError
from spaces.quantization.calibration.degradations import DEGRADATIONS, Degradation
from spaces.quantization.calibration.degraded_split import DegradedSplit
from spaces.stages.array_split import ArraySplit
from spaces.stages.testing import noise_split

SEVEN = tuple(DEGRADATIONS)
# predicts 1 if the left half is the brighter one
HALVES = model_from_text(
    """g (float[n,1,8,8] input) => (float[n,2] output) {
        flat = Flatten(input)
        output = MatMul(flat, weight)
    }""",
    {"weight": np.stack([np.zeros(64), np.tile([1] * 4 + [-1] * 4, 8)], axis=1).astype(np.float32)},
)


def halves(n=40, strength=6, transform=None):
    """Grey noise, one half a little brighter: heavy degradations hide the difference."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, n)
    raw = random.normal(128, 30, (n, 8, 8, 1))
    raw[..., :4, :] += strength * labels[:, None, None, None]
    raw[..., 4:, :] += strength * (1 - labels)[:, None, None, None]
    return ArraySplit(np.clip(raw, 0, 255).astype(np.uint8), labels, transform or Normalise())


def context_of(split, model=HALVES):
    return EvaluationContext(split, Top1(), Reference(model, reference_outputs(model, split)))


def evaluated(evaluator, context, model=HALVES):
    evaluation = evaluator.evaluate(model, context)
    return {m.name: m.value for m in evaluation.measurements}, evaluation.details["robustness"]


class TestConformance(EvaluatorConformance):
    def make_evaluator(self) -> Evaluator:
        return RobustnessEvaluator(n_images=20, batch_size=7)


def test_drops_are_relative_to_the_models_own_clean_score():
    split = halves()
    found, details = evaluated(RobustnessEvaluator(), context_of(split))
    labels = split.labels
    clean = np.mean(reference_outputs(HALVES, split).argmax(1) == labels)
    for kind in SEVEN:
        outputs = reference_outputs(HALVES, DegradedSplit(split, 0, kinds=(kind,)))
        score = np.mean(outputs.argmax(1) == labels)
        assert found[f"robustness_drop_{kind}"] == pytest.approx(100 * (clean - score) / clean)
        assert details["scores"][kind] == pytest.approx(100 * score)
    drops = [found[f"robustness_drop_{kind}"] for kind in SEVEN]
    assert found["robustness_drop_worst"] == max(drops) > 0
    assert found["robustness_drop_mean"] == pytest.approx(np.mean(drops))
    assert details["scores"]["clean"] == pytest.approx(100 * clean)
    assert len(found) == 9


def test_the_dense_networks_drops_are_in_the_details():
    context = context_of(halves())
    dense, details = evaluated(RobustnessEvaluator(), context)
    assert details["dense_drops"] == {
        name.removeprefix("robustness_drop_"): value for name, value in dense.items()
    }
    other = model_from_text(
        """g (float[n,1,8,8] input) => (float[n,2] output) {
            flat = Flatten(input)
            output = MatMul(flat, weight)
        }""",
        {"weight": np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)},
    )
    found, other_details = evaluated(RobustnessEvaluator(), context, other)
    assert found != dense
    assert other_details["dense_drops"] == details["dense_drops"]


@pytest.mark.parametrize(
    "transform", [Normalise(mean=(0.5,), std=(0.25,)), Normalise(1.0), Normalise(1 / 16, (2.0,))]
)
def test_degradations_do_not_depend_on_the_normalisation(transform):
    """A network that is invariant to brightness and contrast gives the same drops for the same pixels."""
    found = [evaluated(RobustnessEvaluator(), context_of(halves(transform=t)))[0] for t in (None, transform)]
    assert found[0] == pytest.approx(found[1], abs=100 / 40)  # rounding may flip one image


def test_degradations_can_be_chosen_and_have_no_reserved_suffix():
    found, _ = evaluated(RobustnessEvaluator(degradations=["heavy_jpeg"]), context_of(halves()))
    assert set(found) == {f"robustness_drop_{end}" for end in ("heavy_jpeg", "worst", "mean")}
    assert len(set(found.values())) == 1
    assert not any(kind.endswith(("_low", "_high", "_drop")) for kind in SEVEN)


def test_images_are_degraded_once_and_few_of_them(monkeypatch):
    calls, real = [], Degradation.__call__

    def recording(self, image, random):
        calls.append(self.name)
        return real(self, image, random)

    monkeypatch.setattr(Degradation, "__call__", recording)
    evaluator, context = RobustnessEvaluator(n_images=10), context_of(halves())
    assert evaluated(evaluator, context) == evaluated(evaluator, context)
    assert len(calls) == 7 * 10
    evaluated(evaluator, replace(context, seed=1))
    assert len(calls) == 2 * 7 * 10
    evaluated(pickle.loads(pickle.dumps(evaluator)), context)  # the caches are not pickled
    assert len(calls) == 3 * 7 * 10


def test_results_depend_on_the_split_and_the_seed():
    evaluator, context = RobustnessEvaluator(n_images=None), context_of(halves())
    first = evaluated(evaluator, context)
    assert evaluated(evaluator, replace(context, seed=3)) != first
    other = halves(n=60)
    assert evaluated(evaluator, context_of(other))[1]["images"] == 60
    assert evaluated(evaluator, context) == first


def test_an_assumed_pixel_range_is_reported():
    evaluator = RobustnessEvaluator(n_images=8)
    assert evaluated(evaluator, context_of(halves()))[1]["pixels"] == "stated by the task"
    assert evaluated(evaluator, tiny_context(), tiny_model())[1]["pixels"].startswith("assumed")


def test_a_clean_score_of_0_leaves_the_columns_absent():
    split = halves()
    wrong = ArraySplit(split.raw, 1 - reference_outputs(HALVES, split).argmax(1), split.transform)
    found, details = evaluated(RobustnessEvaluator(), context_of(wrong))
    assert found == {}
    assert details["absent_because"] == "the clean top1 is not above 0"
    because = RobustnessEvaluator().evaluate(HALVES, context_of(wrong)).details["because"]
    assert because["metric.robustness_drop_mean"] == "the clean top1 is not above 0"


def test_the_worst_degradation_is_reported_as_the_reason():
    evaluation = RobustnessEvaluator().evaluate(HALVES, context_of(halves()))
    found = {m.name: m.value for m in evaluation.measurements}
    reason = evaluation.details["because"]["metric.robustness_drop_worst"]
    assert found[f"robustness_drop_{reason.removeprefix('under ')}"] == found["robustness_drop_worst"]


def test_examples_that_are_not_images_raise():
    model = model_from_text("g (float[n,6] input) => (float[n,6] output) { output = Neg(input) }", {})
    context = EvaluationContext(noise_split((6,)), Top1(), Reference(model, np.zeros((32, 6), np.float32)))
    with pytest.raises(ConfigError, match=r"evaluator.robustness degrades images.*\(6,\) are no images"):
        evaluated(RobustnessEvaluator(), context, model)
    empty = replace(context, split=noise_split((1, 8, 8), 0))
    with pytest.raises(EvaluationError, match="no examples"):
        evaluated(RobustnessEvaluator(), empty, model)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n_images": 0}, "n_images must be at least 1"),
        (
            {"degradations": ["fog"]},
            "Unknown degradation 'fog' in evaluator.robustness.degradations.*low_noise",
        ),
        ({"degradations": []}, "degradations must name at least one"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_invalid_arguments_raise(arguments, text):
    with pytest.raises(ConfigError, match=text):
        RobustnessEvaluator(**arguments)
