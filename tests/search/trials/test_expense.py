"""Costs that are known before a training, and trainings that candidates share."""

from dataclasses import replace

import numpy as np
import pytest

from evaluators.cost.cost import CostEvaluator
from evaluators.task.accuracy import AccuracyEvaluator
from evaluators.testing import tiny_context, tiny_model
from search.record.results import Constraint, TrialRecord
from search.study.verdict import verdict
from search.trials.expense import TrainingExpense
from search.trials.machine_lock import MachineLock
from search.trials.structures import Buildable
from search.trials.trial import CompressionRunner, TrialRequest
from spaces.candidate import Candidate
from spaces.errors import StageError
from spaces.knob_spec import KnobSpec
from spaces.space_config import read_space
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import Stage, StageContext


class Training(Stage):
    """Stands for a training: keeps the structure, and counts how often it is applied."""

    name = "training"
    consumes = ("onnx",)
    produces = "onnx"
    knobs = (
        KnobSpec("epochs", 0, "passes", low=0, high=9),
        KnobSpec("rate", 0, "of learning", low=0, high=9),
    )

    def __init__(self):
        self.trained = []

    def apply(self, artifact, values, context):
        if values["epochs"]:
            self.trained.append(values["epochs"])
        return artifact

    def expensive(self, values):
        return values["epochs"] > 0

    def quickest(self, values):
        return {**values, "epochs": 0}

    def structure(self, artifact, values, context):
        return {}


class Rounding(Stage):
    name = "rounding"
    consumes = ("onnx",)
    produces = "onnx"
    knobs = (KnobSpec("bits", 8, "weight bits", allowed=(4, 8)),)

    def apply(self, artifact, values, context):
        return Artifact.onnx(tiny_model(values["bits"]).proto(), artifact.input)


@pytest.fixture
def training():
    return Training()


def runner(tmp_path, training, *limits):
    stages = [training, Rounding()]
    space = read_space(
        {"training": {"epochs": [0, 1, 2], "rate": [0, 1]}, "rounding": {"bits": [4, 8]}}, stages
    )
    start = tiny_model()
    return CompressionRunner(
        space, start, Pipeline(stages), StageContext(None, Cache()), tiny_context(start, 64),
        [AccuracyEvaluator(), CostEvaluator()], MachineLock(tmp_path), limits,
    )  # fmt: skip


def candidate(epochs, bits, rate=0):
    return Candidate({"training.epochs": epochs, "training.rate": rate, "rounding.bits": bits})


@pytest.fixture
def between(tmp_path, training):
    """A limit of bytes that 4 bits keep and 8 do not."""
    r = runner(tmp_path, training)
    small, large = (r.structure_columns(candidate(1, bits))["metric.file_bytes"] for bits in (4, 8))
    assert small < large
    return Constraint("bytes", "metric.file_bytes", "max", (small + large) / 2)


def test_a_candidate_beyond_a_known_limit_is_not_trained(tmp_path, training, between):
    result = runner(tmp_path, training, between).run(TrialRequest(0, candidate(2, 8)))
    assert training.trained == []
    record = verdict(result, 0, (), [between])
    assert record.state == "infeasible"
    assert record.reason.startswith("bytes: file_bytes is")
    assert "metric.top1" not in record.values()


def test_a_candidate_within_the_limit_is_trained(tmp_path, training, between):
    result = runner(tmp_path, training, between).run(TrialRequest(0, candidate(2, 4)))
    assert training.trained == [2]
    assert verdict(result, 0, (), [between]).state == "complete"


def test_a_limit_that_only_a_run_tells_is_not_checked_before(tmp_path, training):
    drop = Constraint("drop", "metric.top1", "min", 200.0)
    result = runner(tmp_path, training, drop).run(TrialRequest(0, candidate(2, 8)))
    assert training.trained == [2]
    assert "check_costs" not in result.seconds


def test_what_is_not_trained_needs_no_check(tmp_path, training, between):
    result = runner(tmp_path, training, between).run(TrialRequest(0, candidate(0, 8)))
    assert "check_costs" not in result.seconds
    assert "metric.top1" in {m.column for m in result.measurements}


class Rebuilding(Training):
    """A training stage that makes another network, so that drafts are made."""

    rebuilds = True

    def canonical(self, artifact, values, context):
        if values["rate"] == 1:
            raise StageError("a rate of 1 builds no network")
        return dict(values)


def test_a_draft_that_is_far_within_the_limits_is_enough(tmp_path):
    training = Rebuilding()
    far = Constraint("bytes", "metric.file_bytes", "max", 1e6)
    r = runner(tmp_path, training, far)
    made = []
    r.pipeline.stages[1].apply, real = (
        lambda a, v, c: made.append(c.draft) or real(a, v, c),
        r.pipeline.stages[1].apply,
    )
    for number, epochs in enumerate((1, 1)):
        assert r.run(TrialRequest(number, candidate(epochs, 8))).outcome == "measured"
    assert made == [
        True,
        False,
    ]  # one draft for a structure, and the file, which the second trial finds in the cache


def test_a_draft_near_a_limit_is_followed_by_the_file(tmp_path, between):
    training = Rebuilding()
    result = runner(tmp_path, training, between).run(TrialRequest(0, candidate(2, 8)))
    assert training.trained == []
    assert {m.column for m in result.measurements} >= {"metric.file_bytes"}


def test_a_sampler_is_told_what_can_be_built(tmp_path):
    r = runner(tmp_path, Rebuilding())
    params = [
        dict(candidate(1, 8)),
        dict(candidate(1, 8, rate=1)),
        dict(candidate(1, 4)),
        dict(candidate(1, 8)),
    ]
    known = Buildable(r, 2).known(params)
    assert known.keys[1] == ""
    assert known.keys[0] == known.keys[3] != known.keys[2]
    assert np.isnan(known.values).all()
    assert known.values.shape == (4, 2)


def record(number, of, **seconds):
    return TrialRecord(number, "complete", "", of, (), {}, seconds, sum(seconds.values()), None)


def test_candidates_with_the_same_training_share_its_cost(tmp_path, training):
    expense = TrainingExpense(runner(tmp_path, training))
    expense.add(record(0, candidate(2, 8), training=10.0, rounding=1.0, accuracy=3.0))
    params = [dict(candidate(e, b)) for e, b in ((2, 8), (2, 4), (1, 8), (0, 8))]
    keys = expense.keys(params)
    assert keys[0] == keys[1] in expense.trained
    assert keys[2] not in expense.trained
    assert keys[3] == ""
    assert expense.trained[keys[0]][1] == 10.0
    assert expense.rest_s == 4.0


def test_a_training_that_was_cached_keeps_its_first_time(tmp_path, training):
    expense = TrainingExpense(runner(tmp_path, training))
    expense.add(record(0, candidate(2, 8), training=10.0, rounding=1.0))
    expense.add(record(1, candidate(2, 4), training=0.1, rounding=2.0))
    assert [seconds for _, seconds in expense.trained.values()] == [10.0]
    assert expense.rest_s == 1.5


def test_a_trial_that_was_refused_before_its_training_tells_nothing(tmp_path, training):
    expense = TrainingExpense(runner(tmp_path, training))
    expense.add(record(0, candidate(2, 8), check_costs=1.0))
    assert expense.trained == {}


def test_what_another_study_trained_is_done_and_keeps_its_time(tmp_path, training):
    first, other_limits = runner(tmp_path, training), runner(tmp_path, training)
    other_limits.stage_context = replace(first.stage_context, calibration=None)
    TrainingExpense(first).add(record(0, candidate(2, 8), training=10.0, rounding=1.0))
    second = TrainingExpense(other_limits)
    assert second.trained == {}
    key, other = second.keys([dict(candidate(2, 4)), dict(candidate(1, 4))])
    assert list(second.trained) == [key] != [other]
    second.add(record(0, candidate(2, 4), training=0.1, rounding=2.0))
    assert second.trained[key][1] == 10.0


def test_what_was_trained_with_another_seed_is_not_done(tmp_path, training):
    first, second = runner(tmp_path, training), runner(tmp_path, training)
    second.stage_context = replace(first.stage_context, seed=1)
    TrainingExpense(first).add(record(0, candidate(2, 8), training=10.0))
    expense = TrainingExpense(second)
    expense.keys([dict(candidate(2, 8))])
    assert expense.trained == {}
