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
# says 1 where the left half is the brighter one
HALVES = model_from_text(
    """g (float[n,1,8,8] input) => (float[n,2] output) {
        flat = Flatten(input)
        output = MatMul(flat, weight)
    }""",
    {"weight": np.stack([np.zeros(64), np.tile([1] * 4 + [-1] * 4, 8)], axis=1).astype(np.float32)},
)


def halves(n=40, strength=6, transform=None):
    """Grey noise, one half a little brighter: what heavy damage can hide."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, n)
    raw = random.normal(128, 30, (n, 8, 8, 1))
    raw[..., :4, :] += strength * labels[:, None, None, None]
    raw[..., 4:, :] += strength * (1 - labels)[:, None, None, None]
    return ArraySplit(np.clip(raw, 0, 255).astype(np.uint8), labels, transform or Normalise())


def context_of(split, model=HALVES):
    return EvaluationContext(split, Top1(), Reference(model, reference_outputs(model, split)))


def judged(evaluator, context, model=HALVES):
    evaluation = evaluator.evaluate(model, context)
    return {m.name: m.value for m in evaluation.measurements}, evaluation.details["robustness"]


class TestConformance(EvaluatorConformance):
    def make_evaluator(self) -> Evaluator:
        return RobustnessEvaluator(n_images=20, batch_size=7)


def test_drops_are_relative_to_the_models_own_clean_score():
    split = halves()
    found, details = judged(RobustnessEvaluator(), context_of(split))
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
    dense, details = judged(RobustnessEvaluator(), context)
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
    found, told = judged(RobustnessEvaluator(), context, other)
    assert found != dense
    assert told["dense_drops"] == details["dense_drops"]


@pytest.mark.parametrize(
    "transform", [Normalise(mean=(0.5,), std=(0.25,)), Normalise(1.0), Normalise(1 / 16, (2.0,))]
)
def test_degradations_do_not_depend_on_the_normalisation(transform):
    """A network whose answers do not depend on brightness and contrast says the same of the same pixels."""
    found = [judged(RobustnessEvaluator(), context_of(halves(transform=t)))[0] for t in (None, transform)]
    assert found[0] == pytest.approx(found[1], abs=100 / 40)  # rounding may flip one image


def test_names_can_be_chosen_and_end_in_nothing_that_reports_read_otherwise():
    found, _ = judged(RobustnessEvaluator(degradations=["heavy_jpeg"]), context_of(halves()))
    assert set(found) == {f"robustness_drop_{end}" for end in ("heavy_jpeg", "worst", "mean")}
    assert len(set(found.values())) == 1
    assert not any(kind.endswith(("_low", "_high", "_drop")) for kind in SEVEN)


def test_images_are_degraded_once_and_few_of_them(monkeypatch):
    seen, real = [], Degradation.__call__

    def noting(self, image, random):
        seen.append(self.name)
        return real(self, image, random)

    monkeypatch.setattr(Degradation, "__call__", noting)
    evaluator, context = RobustnessEvaluator(n_images=10), context_of(halves())
    assert judged(evaluator, context) == judged(evaluator, context)
    assert len(seen) == 7 * 10
    judged(evaluator, replace(context, seed=1))
    assert len(seen) == 2 * 7 * 10
    judged(pickle.loads(pickle.dumps(evaluator)), context)  # what is kept stays behind
    assert len(seen) == 3 * 7 * 10


def test_the_split_and_the_seed_decide():
    evaluator, context = RobustnessEvaluator(n_images=None), context_of(halves())
    first = judged(evaluator, context)
    assert judged(evaluator, replace(context, seed=3)) != first
    other = halves(n=60)
    assert judged(evaluator, context_of(other))[1]["images"] == 60
    assert judged(evaluator, context) == first


def test_a_range_that_is_assumed_is_said():
    evaluator = RobustnessEvaluator(n_images=8)
    assert judged(evaluator, context_of(halves()))[1]["pixels"] == "stated by the task"
    assert judged(evaluator, tiny_context(), tiny_model())[1]["pixels"].startswith("assumed")


def test_without_a_clean_score_nothing_is_lost():
    split = halves()
    wrong = ArraySplit(split.raw, 1 - reference_outputs(HALVES, split).argmax(1), split.transform)
    found, details = judged(RobustnessEvaluator(), context_of(wrong))
    assert found == {}
    assert details["absent_because"] == "the clean top1 is not above 0"
    because = RobustnessEvaluator().evaluate(HALVES, context_of(wrong)).details["because"]
    assert because["metric.robustness_drop_mean"] == "the clean top1 is not above 0"


def test_the_worst_degradation_is_told_with_the_column():
    evaluation = RobustnessEvaluator().evaluate(HALVES, context_of(halves()))
    found = {m.name: m.value for m in evaluation.measurements}
    told = evaluation.details["because"]["metric.robustness_drop_worst"]
    assert found[f"robustness_drop_{told.removeprefix('under ')}"] == found["robustness_drop_worst"]


def test_what_is_no_image_is_told():
    model = model_from_text("g (float[n,6] input) => (float[n,6] output) { output = Neg(input) }", {})
    context = EvaluationContext(noise_split((6,)), Top1(), Reference(model, np.zeros((32, 6), np.float32)))
    with pytest.raises(ConfigError, match=r"evaluator.robustness degrades images.*\(6,\) are no images"):
        judged(RobustnessEvaluator(), context, model)
    empty = replace(context, split=noise_split((1, 8, 8), 0))
    with pytest.raises(EvaluationError, match="no examples"):
        judged(RobustnessEvaluator(), empty, model)


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
def test_mistakes_are_told(arguments, text):
    with pytest.raises(ConfigError, match=text):
        RobustnessEvaluator(**arguments)
