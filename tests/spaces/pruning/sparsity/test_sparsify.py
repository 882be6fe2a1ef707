from dataclasses import replace

import numpy as np
import pytest
import torch

from spaces.errors import ConfigError, StageError, StopTrialError
from spaces.pruning.criteria.testing import SmallNetwork
from spaces.pruning.groups.find import channel_groups
from spaces.pruning.groups.slices import channel_values
from spaces.pruning.sparsity import sparsify_knobs
from spaces.pruning.sparsity.sparsify import SparsifyStage
from spaces.pruning.sparsity.sparsifying import METHODS
from spaces.pruning.sparsity.strength_schedules import STRENGTH_SCHEDULES
from spaces.pruning.sparsity.testing import SHAPE
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import StageConformance
from spaces.stages.torch_artifact import torch_artifact

FEW = {
    "strength": (1.0,),
    "level": (0.3,),
    "epochs": (1,),
    "learning_rate": (0.1,),
    "batch_size": (16,),
    "augmentation": ("mixup", "crop"),
}


@pytest.fixture(scope="module")
def split():
    """Four classes, each a pattern and noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 4
    patterns = rng.standard_normal((4, *SHAPE))
    inputs = patterns[labels] + 0.3 * rng.standard_normal((96, *SHAPE))
    return ArraySplit(inputs.astype(np.float32), labels.astype(np.int64))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallNetwork()


@pytest.fixture(scope="module")
def dense():
    return torch_artifact(network(), InputSpec(SHAPE))


@pytest.fixture
def context(split):
    return StageContext(None, Cache(), train=split, accelerator="cpu")


def apply(artifact, context, **values):
    stage = SparsifyStage(threads=1)
    return stage.apply(artifact, stage.defaults() | {"epochs": 2, "batch_size": 32} | values, context)


class TestSparsifyStage(StageConformance):
    @pytest.fixture
    def stage(self):
        return SparsifyStage(threads=1)

    @pytest.fixture
    def artifact(self, dense):
        return dense

    @pytest.fixture
    def context(self, split):
        return StageContext(None, Cache(), train=split, accelerator="cpu")

    @pytest.fixture
    def value_sets(self):
        return [{"method": name, "epochs": 2} for name in METHODS]

    def alternatives(self, knob):
        return FEW.get(knob.name, super().alternatives(knob))


def test_the_knobs_name_what_there_is():
    assert ("none", *METHODS) == sparsify_knobs.METHODS
    assert {name for name, method in METHODS.items() if method.has_level} == set(sparsify_knobs.WITH_LEVEL)
    assert tuple(STRENGTH_SCHEDULES) == sparsify_knobs.SCHEDULES


@pytest.mark.parametrize("values", [{"method": "none"}, {"method": "bn_gamma", "epochs": 0}])
def test_nothing_to_train_leaves_the_network_alone(dense, context, values):
    found = apply(dense, replace(context, train=None), **values)
    assert found.model is dense.model
    assert found.digest == dense.digest
    assert found.notes == dense.notes


@pytest.mark.parametrize("method", ["group_envelope", "bottleneck"])
def test_what_is_cut_at_the_level_is_zero(dense, context, method):
    found = apply(dense, context, method=method, level=0.5, strength=0.1)
    notes = found.notes["sparsify"]
    state, n_zero, n = found.model.state_dict(), 0, 0
    for group in channel_groups(found.model, SHAPE):
        made = [p for p in group.slices if p.role != "in" and "running" not in p.name]
        off = torch.stack([channel_values(state[p.name], p).abs().amax(1) == 0 for p in made])
        assert torch.equal(off.any(0), off.all(0))
        n_zero, n = n_zero + int(off.all(0).sum()), n + group.n_channels
    assert notes["zero_share"] == pytest.approx(n_zero / n)
    assert 0 < n_zero < n
    assert 0.4 < notes["kept_macs_share"] <= 0.5
    assert len(notes["curve"]) == 2


def test_strength_widens_the_histogram_of_scales(dense, context):
    def small(strength):
        found = apply(dense, context, method="bn_gamma", strength=strength, epochs=16, learning_rate=0.05)
        gammas = torch.cat([found.model.bn1.weight, found.model.bn2.weight]).abs()
        share = float((gammas < 0.01).double().mean())
        assert found.notes["sparsify"]["zero_share"] == pytest.approx(share * 11 / 19)
        return share

    assert small(0.5) > small(1e-6)


def test_structure_and_other_notes_stay(dense, context):
    before = replace(dense, notes={"other": 1})
    found = apply(before, context, method="bottleneck")
    shapes = {name: value.shape for name, value in dense.model.state_dict().items()}
    assert {name: value.shape for name, value in found.model.state_dict().items()} == shapes
    assert repr(found.model) == repr(dense.model)
    assert found.notes["other"] == 1
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in found.model.modules())
    assert SparsifyStage().structure(dense, {"method": "bottleneck"}, context) == {}


class Interrupting:
    def __init__(self, after):
        self.after, self.epochs = after, []

    def epoch(self, stage, epoch, n_epochs, module):
        self.epochs.append((stage, epoch, n_epochs))
        if epoch == self.after:
            raise StopTrialError("enough")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_training_goes_on_to_the_same_bits(dense, split, method, after):
    values = {"method": method, "epochs": 4, "strength": 0.1}
    context = StageContext(None, Cache(), train=split, accelerator="cpu")
    with pytest.raises(StopTrialError):
        apply(dense, replace(context, watch=Interrupting(after)), **values)
    rest = Interrupting(None)
    resumed = apply(dense, replace(context, watch=rest), **values)
    straight = apply(dense, replace(context, cache=Cache()), **values)
    assert [epoch for _, epoch, _ in rest.epochs] == list(range(after + 1, 5))
    assert resumed.digest == straight.digest
    assert resumed.notes == straight.notes


def test_knobs_that_are_empty(dense, context):
    stage = SparsifyStage()

    def empty(**domains):
        return stage.empty_knobs(dense, domains, context)

    assert empty(strength=(), level=()).keys() == {"strength", "level"}  # the method's default is none
    assert empty(method=("bn_gamma", "bottleneck"), level=()) == {}
    assert "keeps to no budget" in empty(method=("bn_gamma", "none"), level=())["level"]
    assert empty(method=("bn_gamma",), epochs=(0,), level=()).keys() == {"method", "level"}


METHOD = {"method": ("none", "bn_gamma", "group_envelope", "bottleneck")}


def test_a_space_that_makes_sense_passes(dense, context):
    SparsifyStage().check(dense, METHOD | {"level": (), "strength": ()} | {"level": (0.3, 0.5)}, context)
    SparsifyStage().check(dense, {"level": (0.01,)}, replace(context, train=None))  # nothing is trained


def test_what_is_missing_is_found_before_the_search(dense, context, split):
    stage = SparsifyStage()
    with pytest.raises(StageError, match="no train split"):
        stage.check(dense, METHOD, replace(context, train=None))
    unlabelled = ArraySplit(split.inputs, np.full(len(split), -1))
    with pytest.raises(StageError, match=r"sparsify.method needs labels"):
        stage.check(dense, METHOD, replace(context, train=unlabelled))
    with pytest.raises(StageError, match=r"sparsify.level=0.01 cannot be met"):
        stage.check(dense, METHOD | {"level": (0.01, 0.5)}, context)
    with pytest.raises(StageError, match="augmentation=signal"):
        stage.check(dense, METHOD | {"augmentation": ("signal",)}, context)
    with pytest.raises(ConfigError, match="tpu"):
        stage.check(dense, METHOD, replace(context, accelerator="tpu"))


def test_l1_on_batch_norm_needs_batch_norm(context):
    plain = torch_artifact(
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 16, 4)
        ),
        InputSpec(SHAPE),
    )
    with pytest.raises(StageError, match=r"bn_gamma needs a BatchNorm .* none follows 0.weight"):
        SparsifyStage().check(plain, {"method": ("bn_gamma",)}, context)
    SparsifyStage().check(plain, {"method": ("bottleneck",)}, context)
    found = SparsifyStage().unsuited(
        plain, {"method": ("none", "bn_gamma", "bottleneck"), "augmentation": ("none", "signal")}, context
    )
    assert {knob: list(reasons) for knob, reasons in found.items()} == {
        "method": ["bn_gamma"],
        "augmentation": ["signal"],
    }
    assert SparsifyStage().unsuited(plain, {"epochs": (0,), "method": ("bn_gamma",)}, context) == {}


def test_only_torch_networks(context):
    onnx = Artifact("onnx", b"", InputSpec(SHAPE), "0")
    with pytest.raises(StageError, match="sparsify trains torch networks, but got an onnx model"):
        apply(onnx, context, method="bn_gamma")


@pytest.mark.parametrize("threads", [0, 1.5, True])
def test_threads_are_a_positive_whole_number(threads):
    with pytest.raises(ConfigError, match=r"stage.sparsify.threads must be a positive whole number"):
        SparsifyStage(threads=threads)
