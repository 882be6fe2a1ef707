from dataclasses import replace

import numpy as np
import pytest
import torch

from spaces.errors import StageError, StopTrialError
from spaces.recovery.train import TrainStage
from spaces.recovery.training.averaging import Average
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline, stage_key
from spaces.stages.stage import StageContext
from spaces.stages.testing import StageConformance
from spaces.stages.torch_artifact import module_digest, torch_artifact

QUICK = {"epochs": 3, "learning_rate": 0.02, "batch_size": 16}


@pytest.fixture
def context(split, dense):
    return StageContext(None, Cache(), train=split, teacher=dense, accelerator="cpu")


class TestTrainStage(StageConformance):
    @pytest.fixture
    def stage(self):
        stage = TrainStage(threads=1)
        stage.knobs = tuple(replace(k, default=2) if k.name == "epochs" else k for k in stage.knobs)
        return stage

    @pytest.fixture
    def artifact(self, student):
        return student

    @pytest.fixture
    def context(self, split, dense):
        return StageContext(None, Cache(), train=split, teacher=dense, accelerator="cpu")

    @pytest.fixture
    def value_sets(self):
        return [
            {"epochs": 1},
            {"batch_size": 16},
            {"distillation_weight": 0.5},
            {"average_decay": 0.9},
            {"temperature": 2.0, "distillation_weight": 0.5},
        ]


def trained(student, context, **values):
    stage = TrainStage(1)
    return stage.apply(student, {**stage.defaults(), **QUICK, **values}, context)


def accuracy(artifact, split):
    with torch.no_grad():
        answers = artifact.model(torch.from_numpy(split.inputs)).argmax(1).numpy()
    return float((answers == split.labels).mean())


def test_a_random_network_learns(student, context, split):
    made = trained(student, context, epochs=60, learning_rate=0.1)
    assert accuracy(made, split) > 0.9 > accuracy(student, split)


def test_without_a_teacher(student, context, split):
    assert (
        accuracy(trained(student, replace(context, teacher=None), epochs=60, learning_rate=0.1), split) > 0.9
    )


def test_zero_epochs_leave_the_network(student, context):
    assert trained(student, context, epochs=0).digest == student.digest


def test_a_missing_split_is_told(student, context):
    with pytest.raises(StageError, match="epochs is more than 0, but the task has no train split"):
        trained(student, replace(context, train=None))


class Stop:
    """Ends a training after some epochs."""

    def __init__(self, after):
        self.after, self.seen = after, []

    def epoch(self, stage, epoch, n_epochs, module):
        self.seen.append((stage, epoch, module_digest(module)))
        if epoch == self.after:
            raise StopTrialError("enough")


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_an_interrupted_training_is_resumed_bit_by_bit(student, context, decay):
    whole = trained(student, replace(context, cache=Cache()), average_decay=decay)
    with pytest.raises(StopTrialError):
        trained(student, replace(context, watch=Stop(2)), average_decay=decay)
    watch = Stop(99)
    resumed = trained(student, replace(context, watch=watch), average_decay=decay)
    assert [epoch for _, epoch, _ in watch.seen] == [3]
    assert watch.seen[0][0] == "train"
    assert module_digest(resumed.model) == module_digest(whole.model)


def test_the_average_is_another_network_than_the_last_one(student, context):
    plain, averaged = (trained(student, context, average_decay=decay) for decay in (0.0, 0.99))
    assert module_digest(plain.model) != module_digest(averaged.model)


def test_an_average_of_equal_weights_is_these():
    network = torch.nn.Linear(3, 2)
    average = Average(network, 0.99)
    for _ in range(5):
        average.update(network)
    torch.testing.assert_close(average.network.weight, network.weight)


def test_the_average_follows_its_recursion():
    network, decay = torch.nn.Linear(1, 1, bias=False), 0.5
    average, expected = Average(network, decay), network.weight.item()
    for t, value in enumerate((1.0, 3.0, -2.0), 1):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network)
        share = min(decay, (1 + t) / (10 + t))
        expected = share * expected + (1 - share) * value
        assert average.network.weight.item() == pytest.approx(expected)


def test_the_networks_buffers_are_averages_too(split):
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    average = Average(network, 0.9)
    network.train()(torch.from_numpy(split.inputs))
    average.update(network)
    np.testing.assert_array_equal(average.network[0].running_mean, network[0].running_mean)


def test_knobs_of_recovery_that_have_no_place_are_not_offered():
    names = {knob.name for knob in TrainStage.knobs}
    assert {"epochs", "augmentation", "label_smoothing", "average_decay", "schedule"} <= names
    assert not names & {"lora_rank", "cwd_weight", "tune", "experts", "block_weights"}


def test_a_spec_of_another_output_is_kept(student, context):
    made = trained(torch_artifact(student.model, InputSpec(student.input.shape)), context)
    assert made.input == student.input


class OtherDevices:
    digest = "of other profiles"


def test_a_training_is_found_again_for_other_devices_calibration_and_reference(student, split, context):
    values = {"train": {**TrainStage(1).defaults(), **QUICK, "augmentation": "none"}}
    first = Pipeline([TrainStage(1)]).run(student, values, context)
    stage = TrainStage(1)
    stage.apply = None  # any training would fail
    for other in (
        replace(context, latency_ms=OtherDevices()),
        replace(context, calibration=split),
        replace(context, teacher=student),
    ):
        assert Pipeline([stage]).run(student, values, other).digest == first.digest


@pytest.mark.parametrize("values", [{"distillation_weight": 0.5}, {"augmentation": "auto"}])
def test_what_another_reference_would_change_is_trained_anew(student, context, values):
    stage = TrainStage(1)
    whole = {**stage.defaults(), "augmentation": "none", **values}
    keys = {stage_key(stage, student, whole, c) for c in (context, replace(context, teacher=student))}
    assert len(keys) == 2
