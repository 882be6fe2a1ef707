import pickle

import numpy as np
import pytest

from evaluators.base import EarlyStoppingThreshold, EvaluationContext, Reference
from evaluators.runtime import Batches, answers, reference_outputs, rollout_of
from evaluators.task.accuracy import AccuracyEvaluator
from evaluators.task.data.leaks import copy_notes
from evaluators.task.data_fit import check_fit
from evaluators.task.statistics.scores import statistics_of, value_of
from evaluators.task.tasks.control.environment import play
from evaluators.task.tasks.control.episodic import EpisodicTask
from evaluators.task.tasks.control.jamming import JammingEnvironment
from evaluators.task.tasks.testing import TaskConformance
from search.trials.partial_runs import PartialRuns
from spaces.errors import ConfigError, EvaluationError, InputError
from spaces.stages.artifact import Artifact

SLOTS = 8


class Walk:
    """Moves a point by the action; the reward is minus its distance from 0. Gymnasium's way to return."""

    action_shape = (2,)
    return_bounds = (-1e3, 0.0)

    def __init__(self, fault=None):
        self.fault = fault

    def reset(self, *, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        self.point = self.rng.normal(size=2)
        self.n = 0
        return self.point, {}

    def step(self, action):
        self.n += 1
        self.point += np.clip(action, -1, 1) + 0.1 * self.rng.normal(size=2)  # in place: the task has to copy
        if self.fault and self.n == 3:
            return self.fault(self)
        return self.point, -float(np.abs(self.point).sum()), self.n == 5, False, {}

    def advice(self):
        return -self.point


def jamming(**settings):
    environment = JammingEnvironment(channels=4, width=2, slots=SLOTS, jammer="sweep", noise=0.4)
    return EpisodicTask(
        environment,
        **{"max_steps": SLOTS, "validation": 40, "test": 8, "train": 50, "calibration": 20, **settings},
    )


def linear(weight):
    """A policy of one matrix, `(n_inputs, n_outputs)`, as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    n, k = weight.shape
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        "policy",
        [value("input", TensorProto.FLOAT, ["n", n])],
        [value("output", TensorProto.FLOAT, ["n", k])],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    from spaces.stages.artifact import InputSpec

    return Artifact.onnx(model.SerializeToString(), InputSpec((n,)))


def fleeing(scale=1.0):
    """A policy that takes the channel that the sweep has just left: with power before, and none now."""
    return scale * np.concatenate([-2 * np.eye(4), np.eye(4), 0.5 * np.eye(4)])


def judged(task, weight=None):
    """Returns a policy that the task judges, and the context of its evaluation."""
    artifact = linear(fleeing() if weight is None else weight)
    artifact = artifact.judged_by(check_fit(artifact, task, task.splits()).output)
    split = task.splits().validation
    reference = Reference(artifact, reference_outputs(artifact, split))
    return artifact, EvaluationContext(split, task.metric, reference, agreement=task.agreement)


class TestEpisodic(TaskConformance):
    @pytest.fixture
    def task(self):
        return jamming()

    def outputs(self, task, splits):
        split = splits.validation
        return answers(rollout_of(split), lambda x: x @ fleeing(), None, split.labels)

    def test_metric_prefers_right_outputs(self, task, splits):
        """A policy that flees from the jammer earns more than one that seeks it."""
        split = splits.validation
        found = [
            split.rollout(lambda x, sign=sign: sign * (x @ fleeing()), None, split.labels) for sign in (1, -1)
        ]
        good, bad = (value_of(task.metric, statistics_of(task.metric, o, split.labels)) for o in found)
        assert good > bad


class TestContinuous(TestEpisodic):
    @pytest.fixture
    def task(self):
        return EpisodicTask(Walk(), validation=20, test=10, train=50, calibration=10)

    def outputs(self, task, splits):
        return splits.validation.rollout(lambda x: -x, None, splits.validation.labels)

    def test_metric_prefers_right_outputs(self, task, splits):
        split = splits.validation
        toward, away = (
            split.rollout(lambda x, s=s: s * x, None, split.labels)["return"].mean() for s in (-1, 1)
        )
        assert toward > away


def test_labels_are_the_advice():
    train = EpisodicTask(Walk(), exploration=0, train=30).splits().train
    np.testing.assert_allclose(train.labels, -train.inputs, atol=1e-6)
    assert train.labels.shape == (30, 2)


def test_without_advice_there_is_nothing_to_train_on():
    class Silent(Walk):
        advice = property()  # hasattr is False

    splits = EpisodicTask(Silent(), validation=3, test=3).splits()
    assert len(splits.train) == 0
    assert len(splits.calibration) > 0


def test_the_return_is_that_of_playing_each_episode_alone():
    task = jamming()
    artifact, context = judged(task)
    outputs = context.reference.outputs
    alone = []
    for seed in context.split.labels:
        environment = JammingEnvironment(channels=4, width=2, slots=SLOTS, jammer="sweep", noise=0.4)
        seen, total, done = environment.reset(seed=int(seed)), 0.0, False
        while not done:
            seen, reward, done = environment.step(int((seen @ fleeing().astype(np.float32)).argmax()))
            total += reward
        alone.append(total)
    np.testing.assert_allclose(outputs["return"], alone)
    measured = {m.name: m for m in AccuracyEvaluator(batch_size=7).evaluate(artifact, context).measurements}
    assert measured["return"].value == pytest.approx(np.mean(alone))
    assert measured["return_low"].value < np.mean(alone) < measured["return_high"].value
    assert measured["return_drop"].value == 0
    assert measured["agreement"].value == 100
    assert measured["output_sqnr_db"].value == 200


def test_another_policy_is_compared_on_the_same_episodes():
    task = jamming()
    artifact, context = judged(task)
    other = linear(fleeing() + 0.4 * np.random.default_rng(0).normal(size=(12, 4))).judged_by(
        artifact.input.output
    )
    measured = {m.name: m.value for m in AccuracyEvaluator().evaluate(other, context).measurements}
    played = play(context.split.environment, context.split.labels, _session(other), SLOTS)
    assert measured["return"] == pytest.approx(played.returns.mean())
    drops = context.reference.outputs["return"] - played.returns
    assert measured["return_drop"] == pytest.approx(drops.mean())
    assert measured["return_drop_high"] - measured["return_drop"] == pytest.approx(
        1.96 * drops.std() / len(drops) ** 0.5, rel=0.1
    )
    assert measured["agreement"] == pytest.approx(
        100 * np.mean(played.actions == context.reference.outputs["actions"])
    )


def _session(artifact):
    import onnxruntime

    session = onnxruntime.InferenceSession(artifact.onnx_bytes)
    return lambda x: session.run(None, {"input": x})[0]


def test_partial_runs_play_the_first_episodes():
    artifact, context = judged(jamming())
    runs = PartialRuns(context.split, (3, 20))
    for n in (3, 20):
        found = runs.outputs("policy", n, lambda: artifact)
        np.testing.assert_array_equal(found["return"], context.reference.outputs["return"][:n])
        np.testing.assert_array_equal(found["actions"], context.reference.outputs["actions"][:n])


def test_a_bad_policy_is_stopped_early():
    artifact, context = judged(jamming(validation=300))
    bad = linear(fleeing(-1)).judged_by(artifact.input.output)
    context = EvaluationContext(
        context.split, context.metric, context.reference, threshold=EarlyStoppingThreshold(5, "a test")
    )
    stopped = AccuracyEvaluator(batch_size=50).evaluate(bad, context)
    assert "return is below 5" in stopped.pruned
    (n_images,) = [m.value for m in stopped.measurements if m.name.endswith("_images")]
    assert n_images < 300


def test_episodes_are_not_compared_as_copies():
    splits = jamming().splits()
    assert copy_notes({**vars(splits), "train": splits.validation}) == ()


def test_curves_are_of_episodes():
    import torch

    from search.trials.curves import CurveWatch

    _, context = judged(jamming())
    module = torch.nn.Linear(12, 4, bias=False)
    module.weight.data = torch.from_numpy(fleeing().T.astype(np.float32))
    watch = CurveWatch(context, None)
    watch.epoch("recover", 1, 1, module)
    assert watch.curve.values == (pytest.approx(context.reference.outputs["return"].mean()),)


def test_the_digest_follows_the_environments_settings():
    digests = {jamming().splits().validation.digest, jamming(split_seed=1).splits().validation.digest}
    other = EpisodicTask(
        JammingEnvironment(channels=4, width=2, slots=SLOTS, switching_cost=0.2), validation=40
    )
    digests.add(other.splits().validation.digest)
    assert len(digests) == 3


def test_batches_are_cached_and_the_split_is_small():
    split = jamming().splits().validation
    assert Batches().labels(split) is split.seeds
    assert len(pickle.dumps(split)) < 10_000


def test_outputs_that_are_not_finite_fail():
    task = jamming()
    with pytest.raises(EvaluationError, match="the model's outputs are not finite"):
        task.splits().validation.rollout(lambda x: np.full((len(x), 4), np.nan), None, np.arange(3))


def test_a_policy_with_another_number_of_outputs_raises():
    with pytest.raises(InputError, match=r"yields \(8, 5\) for 8 observations, but there are 4 actions"):
        judged(jamming(), np.zeros((12, 5)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda self: {}["key"], r"Walk, seed \d+, step 3: KeyError: 'key' \(test_episodic.py, line \d+\)"),
        (lambda self: self.point, r"step 3: step must return \(observation, reward, done\), not ndarray"),
        (lambda self: (self.point, 1.0), r"step 3: step must return .* not tuple of 2 parts"),
        (lambda self: (self.point, "much", False), "step 3: the reward must be a number, not 'much'"),
        (lambda self: (self.point, np.nan, False), "step 3: the reward is nan"),
        (lambda self: (np.zeros(3), 1.0, False), r"step 3: the observation has the shape \(3,\), but the one before \(2,\)"),
        (lambda self: (self.point * np.inf, 1.0, False), "step 3: the observation holds values that are not finite"),
        (lambda self: ("here", 1.0, False), "step 3: the observation is no array of numbers"),
    ],
)  # fmt: skip
def test_a_faulty_environment_is_named_with_seed_and_step(fault, message):
    with pytest.raises(InputError, match=message):
        EpisodicTask(Walk(fault), validation=2, test=2).splits()


@pytest.mark.parametrize(
    ("attributes", "settings", "message"),
    [
        (
            {"action_shape": None},
            {},
            "must have either n_actions, the number of its actions, or action_shape",
        ),
        ({"n_actions": 3}, {}, "must have either n_actions"),
        ({"n_actions": 1, "action_shape": None}, {}, "n_actions must be a whole number from 2 on"),
        ({"reset": None}, {}, "has no method reset"),
        ({"return_bounds": (1, 0)}, {}, "return_bounds must be the lowest and the highest return"),
        ({}, {"validation": 0}, r"task\.validation must be at least 1"),
        ({}, {"exploration": 2.0}, r"task\.exploration must lie between 0 and 1"),
        ({}, {"train": -1}, r"task\.train"),
    ],
)
def test_wrong_settings_raise(attributes, settings, message):
    environment = type("Environment", (Walk,), attributes)()
    with pytest.raises(ConfigError, match=message):
        EpisodicTask(environment, **settings)
