import json
import pickle
from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from evaluators.testing import tiny_context
from search.record.curve import Curve, curve_of
from search.record.results import TrialRecord
from search.trials.curves import MOST_EXAMPLES, CurveWatch, Pruning, Rival, pruning_of
from spaces.candidate import Candidate
from spaces.errors import StopTrialError, TimeLimitError

MEDIAN = optuna.pruners.MedianPruner(n_startup_trials=2)


def curve(*values, macs=100):
    return Curve("top1", values, macs)


def pruning(*rivals, pruner=MEDIAN, like_with_like=False):
    return Pruning(pruner, "study", tuple(Rival("complete", r) for r in rivals), like_with_like)


def stops(rule, *values, macs=100):
    """Whether a training is pruned after the last of its values."""
    race = rule.race(macs)
    return [race.stops(value) for value in values][-1]


def record(number, *values, state="complete"):
    details = {"curve": curve(*values).to_detail()} if values else {}
    return TrialRecord(number, state, "", Candidate({"a.b": number}), details=details)


class Constant(nn.Sequential):
    """A classifier that predicts the same class for every example."""

    def __init__(self, label):
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
        self[1].weight.data.zero_()
        self[1].bias.data = nn.functional.one_hot(torch.tensor(label), 5).float()


@pytest.fixture
def context():
    return tiny_context(n=MOST_EXAMPLES + 50)


def test_a_curve_survives_json():
    kept = json.loads(json.dumps({"curve": curve(1.0, 2.5).to_detail()}))
    assert curve_of(kept) == curve(1.0, 2.5)
    assert curve_of({}) is None


def test_a_training_below_the_median_at_the_same_epoch_is_stopped():
    rule = pruning(curve(10.0, 50.0), curve(20.0, 60.0), curve(30.0, 70.0))
    assert stops(rule, 19.0)
    assert not stops(rule, 20.0)
    assert stops(rule, 25.0, 59.0)
    assert not stops(rule, 25.0, 61.0)


def test_no_training_is_stopped_during_the_pruners_startup_trials():
    assert not stops(pruning(curve(90.0)), 1.0)
    assert not stops(pruning(curve(90.0), None, None), 1.0)


def test_a_smaller_network_is_not_compared_with_larger_ones():
    large, small = (
        [curve(v, macs=200) for v in (80.0, 81.0, 82.0)],
        [curve(v, macs=50) for v in (40.0, 41.0, 42.0)],
    )
    rule = pruning(*large, *small, like_with_like=True)
    assert not stops(rule, 45.0, macs=100)
    assert stops(rule, 30.0, macs=100)
    assert stops(rule, 45.0, macs=200)
    assert rule.race(100).n_rivals == 3
    assert stops(pruning(*large, *small), 45.0, macs=100)


def test_trials_without_a_curve_keep_their_numbers():
    """Hyperband groups trials by number: a trial without training must not shift the others."""
    numbers = []

    class Numbers(optuna.pruners.NopPruner):
        def prune(self, study, trial):
            numbers.append((trial.number, len(study.trials)))
            return False

    assert not stops(pruning(curve(1.0), None, curve(2.0), pruner=Numbers()), 1.0)
    assert numbers[-1] == (3, 4)


@pytest.mark.parametrize(
    "pruner", [optuna.pruners.SuccessiveHalvingPruner(), optuna.pruners.HyperbandPruner(1, 9)]
)
def test_successive_halving_keeps_the_best(pruner):
    rivals = [curve(*np.linspace(v, v + 5, 6)) for v in range(0, 80, 10)]
    rule = pruning(*rivals, pruner=pruner)
    assert not stops(rule, 90.0)
    assert any(stops(rule, *[1.0] * n) for n in range(1, 7))


def test_pruning_is_made_of_the_studys_records():
    made = pruning_of(
        MEDIAN, "study", [record(0, 1.0), record(1, state="failed"), record(2, 3.0, state="pruned")], 2
    )
    assert made.like_with_like
    assert [rival.state for rival in made.rivals] == ["complete", "failed", "pruned"]
    assert made.rivals[1].curve is None
    assert pickle.loads(pickle.dumps(made)).rivals == made.rivals
    assert pruning_of(None, "study", [], 1) is None


def test_the_watch_records_the_metric_on_the_first_examples(context):
    watch = CurveWatch(context, None)
    assert watch.curve is None
    assert watch.estimates() == ()
    for epoch, label in enumerate((0, 1), 1):
        watch.epoch("recover", epoch, 2, Constant(label).eval())
    labels = np.concatenate([y for _, y in context.split.batches(64, MOST_EXAMPLES)])
    assert watch.curve.values == pytest.approx([100 * np.mean(labels == 0), 100 * np.mean(labels == 1)])
    assert watch.curve.macs == 5 * 3 * 8 * 8


def test_the_watch_judges_the_first_of_several_outputs(context):
    class Pair(Constant):
        def forward(self, x):
            return {"logits": super().forward(x), "features": x}

    values = []
    for kind in (Constant, Pair):
        watch = CurveWatch(context, None)
        watch.epoch("recover", 1, 2, kind(0).eval())
        values.append(watch.curve)
    assert values[0] == values[1]


def test_the_watch_stops_a_training_and_returns_its_estimates(context):
    best = [curve(99.0), curve(99.0)]
    watch = CurveWatch(context, pruning(*best))
    with pytest.raises(
        StopTrialError, match=r"after epoch 1 of 3 of recover: MedianPruner stops it in view of 2"
    ):
        watch.epoch("recover", 1, 3, Constant(0).eval())
    values = {m.name: m.value for m in watch.estimates()}
    assert values["top1_partial"] == watch.curve.values[-1]
    assert values["top1_partial_images"] == MOST_EXAMPLES
    share = values["top1_partial"] / 100
    assert values["top1_partial_error"] == pytest.approx(100 * (share * (1 - share) / MOST_EXAMPLES) ** 0.5)
    reference = context.reference.outputs[:MOST_EXAMPLES].argmax(axis=1)
    labels = np.concatenate([y for _, y in context.split.batches(64, MOST_EXAMPLES)])
    assert values["top1_drop_partial"] == pytest.approx(
        100 * np.mean(reference == labels) - values["top1_partial"]
    )


def test_the_last_epoch_is_not_stopped(context):
    CurveWatch(context, pruning(curve(99.0), curve(99.0))).epoch("recover", 1, 1, Constant(0).eval())


def test_epochs_of_several_stages_form_one_curve(context):
    watch = CurveWatch(context, None)
    watch.epoch("sparsify", 1, 1, Constant(0).eval())
    watch.epoch("recover", 1, 1, Constant(0).eval())
    assert len(watch.curve.values) == 2


def test_the_watch_checks_the_time_limit(context):
    def late(where):
        raise TimeLimitError(where)

    with pytest.raises(TimeLimitError, match="after epoch 1 of 2 of recover"):
        CurveWatch(context, None, late).epoch("recover", 1, 2, Constant(0).eval())


def test_outputs_that_are_not_finite_count_as_wrong(context):
    module = Constant(0).eval()
    module[1].bias.data[0] = np.nan
    watch = CurveWatch(replace(context), None)
    watch.epoch("recover", 1, 1, module)
    assert watch.curve.values == (0.0,)
