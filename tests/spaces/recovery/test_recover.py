import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from spaces.errors import ConfigError, StageError, StopTrialError
from spaces.recovery import knobs
from spaces.recovery.losses.block_weights import BLOCK_WEIGHTS
from spaces.recovery.recover import RecoverStage
from spaces.recovery.training.augmentation import AUGMENTATIONS
from spaces.recovery.training.optimization.optimizers import OPTIMIZERS
from spaces.recovery.training.optimization.schedules import SCHEDULES
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import StageConformance
from spaces.stages.torch_artifact import torch_artifact

FEW = {
    "epochs": (1,),
    "learning_rate": (0.01,),
    "batch_size": (16,),
    "weight_decay": (0.1,),
    "augmentation": ("mixup", "crop", "flip_crop"),
    "label_smoothing": (0.1,),
    "distillation_weight": (0.0, 1.0),
    "temperature": (2.0,),
    "cwd_weight": (0.0,),
    "cwd_temperature": (2.0,),
    "lora_rank": (0, 2),
    "adapters": (2,),
}


@pytest.fixture
def context(split, dense):
    return StageContext(None, Cache(), train=split, teacher=dense, accelerator="cpu")


class TestRecoverStage(StageConformance):
    @pytest.fixture
    def stage(self):
        return RecoverStage(threads=1)

    @pytest.fixture
    def artifact(self, student):
        return student

    @pytest.fixture
    def context(self, split, dense):
        return StageContext(None, Cache(), train=split, teacher=dense, accelerator="cpu")

    @pytest.fixture
    def value_sets(self):
        return [
            {"epochs": 2},
            {"epochs": 1, "cwd_weight": 0.0},
            {"epochs": 1, "lora_rank": 1},
            {"epochs": 1, "lora_rank": 1, "adapters": 2},
            {"epochs": 1, "tune": "bias", "stored_activation_bits": 2},
        ]

    def alternatives(self, knob):
        return FEW.get(knob.name, super().alternatives(knob))


@pytest.fixture
def recover(student, context):
    def recover(context=context, artifact=student, stage=None, **values):
        stage = stage or RecoverStage(threads=1)
        return stage.apply(artifact, {"epochs": 2, "batch_size": 15, **values}, context)

    return recover


class Stop:
    def epoch(self, stage, epoch, n_epochs, module):
        assert stage == "recover"
        raise StopTrialError("enough")


def test_knobs_name_what_there_is():
    allowed = {knob.name: knob.allowed for knob in knobs.KNOBS}
    assert allowed["optimizer"] == tuple(OPTIMIZERS)
    assert allowed["schedule"] == tuple(SCHEDULES)
    assert allowed["augmentation"] == (knobs.AUTO, *AUGMENTATIONS)
    assert allowed["block_weights"] == ("none", *BLOCK_WEIGHTS)


def test_without_epochs_the_network_stays(recover, student):
    result = recover(epochs=0, learning_rate=0.9)
    assert result.digest == student.digest
    assert result.model is student.model
    assert result.notes == {}
    assert dict(result.provenance[-1].values)["learning_rate"] == "auto"


def test_it_trains_towards_labels_and_teacher(recover, student, split):
    hard = recover(epochs=20, batch_size=8, distillation_weight=0.0, cwd_weight=0.0)
    outputs = hard.model(torch.from_numpy(split.inputs))
    assert (outputs.argmax(1).numpy() == split.labels).mean() > 0.8
    curve = recover(epochs=12, distillation_weight=1.0).notes["recover"]["curve"]
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_notes_have_the_curve_and_keep_those_of_other_stages(recover, student):
    result = recover(artifact=replace(student, notes={"prune": {"macs": 7}}))
    assert result.notes["prune"] == {"macs": 7}
    assert result.notes["recover"]["epochs"] == 2
    assert [row["epoch"] for row in result.notes["recover"]["curve"]] == [1, 2]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"cwd_weight": 1.0, "optimizer": "adamw"},
        {"lora_rank": 2},
        {"block_weights": "inverse_sensitivity"},
        {"stored_activation_bits": 4, "tune": "bias"},
    ],
)
def test_a_stopped_and_resumed_training_is_bit_identical(recover, context, tmp_path, values):
    with pytest.raises(StopTrialError):
        recover(replace(context, cache=Cache(tmp_path), watch=Stop()), **values)
    assert len(list(tmp_path.iterdir())) == 1
    resumed = recover(replace(context, cache=Cache(tmp_path)), **values)
    whole = recover(**values)
    assert resumed.digest == whole.digest
    for notes in (resumed.notes["recover"], whole.notes["recover"]):
        assert notes.pop("seconds") > 0  # what differs between runs
    assert resumed.notes == whole.notes
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "values", [{"lora_rank": 3}, {"cwd_weight": 1.0}, {"block_weights": "frozen_prefix"}]
)
def test_the_structure_is_as_before(recover, student, values):
    result = recover(**values)
    assert repr(result.model) == repr(student.model)
    assert list(result.model.state_dict()) == list(student.model.state_dict())
    assert not any(m._forward_hooks for m in result.model.modules())
    assert pickle.loads(pickle.dumps(result.model.state_dict()))  # plain tensors


def test_lora_changes_only_linear_layers(recover, student):
    result = recover(lora_rank=2, learning_rate=0.5).model.state_dict()
    changed = {n for n, value in student.model.state_dict().items() if not torch.equal(value, result[n])}
    assert changed == {"conv3.weight", "linear.weight"}


def test_a_frozen_prefix_stays(recover, student):
    result = recover(block_weights="frozen_prefix").model.state_dict()
    same = {n for n, value in student.model.state_dict().items() if torch.equal(value, result[n])}
    assert same == {"conv1.weight", *(n for n in result if n.startswith("bn1."))}


def test_labels_are_not_needed_by_distillation_alone(recover, context, split):
    unlabelled = replace(context, train=ArraySplit(split.inputs, np.full_like(split.labels, -1)))
    labelled = recover(distillation_weight=1.0)
    assert recover(unlabelled, distillation_weight=1.0).digest == labelled.digest
    with pytest.raises(StageError, match="distillation_weight is less than 1, which needs labels"):
        recover(unlabelled, distillation_weight=0.5)


def test_a_label_that_is_missing_later_on_raises(recover, context, split):
    labels = np.concatenate([np.zeros(300, np.int64), split.labels[:1], [-1]])
    inputs = np.zeros((302, 1, 8, 8), np.float32)
    with pytest.raises(StageError, match="some examples of the train split have none"):
        recover(replace(context, train=ArraySplit(inputs, labels)))


def test_inverse_sensitivity_needs_no_teacher(recover, context):
    alone = replace(context, teacher=None)
    assert recover(alone, distillation_weight=0.0, cwd_weight=0.0, block_weights="inverse_sensitivity")


def test_threads_are_part_of_the_key():
    assert RecoverStage(threads=1).config() != RecoverStage(threads=2).config()
    with pytest.raises(ConfigError, match="positive whole number, not 0"):
        RecoverStage(threads=0)


def test_training_changes_no_structure(student, context):
    stage = RecoverStage()
    assert stage.structure(student, {**stage.defaults(), "epochs": 3}, context) == {}


def test_biases_alone_are_trained(recover, student):
    result = recover(tune="bias", learning_rate=0.1).model
    state = result.state_dict()
    changed = {n for n, value in student.model.state_dict().items() if not torch.equal(value, state[n])}
    statistics = {n for n in state if "running" in n or "batches" in n}
    assert changed - statistics == {"bn1.bias", "bn2.bias", "conv3.bias", "linear.bias"}
    assert all(p.requires_grad for p in result.parameters())


def test_without_biases_there_are_none_to_train(context):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3, bias=False)).eval()
    flat = torch_artifact(net, InputSpec((1, 8, 8)))
    assert "recover.tune=bias needs biases" in problem(context, flat, tune=("all", "bias"))
    assert list(RecoverStage().unsuited(flat, {"tune": ("all", "bias")} | SPACE, context)["tune"]) == ["bias"]


def test_a_prefix_that_freezes_all_biases_is_refused(context):
    def made(width):
        cut = torch.nn.Linear(64, width, bias=False), torch.nn.Linear(width, 3, bias=False)
        layers = torch.nn.Flatten(), torch.nn.Linear(64, 64), *cut
        return torch_artifact(torch.nn.Sequential(*layers).eval(), InputSpec((1, 8, 8)))

    values = {"epochs": 1, "tune": "bias", "block_weights": "frozen_prefix"}
    with pytest.raises(StageError, match=r"recover\.block_weights freezes every parameter"):
        RecoverStage(threads=1).apply(made(4), values, replace(context, teacher=made(6)))


def test_fewer_bits_and_biases_store_less(recover):
    notes = {
        (tune, bits): recover(epochs=1, tune=tune, stored_activation_bits=bits).notes["recover"]
        for tune in ("all", "bias")
        for bits in (2, 4, 8, 32)
    }
    stored = {key: found["activation_bytes"] for key, found in notes.items()}
    for tune in ("all", "bias"):
        assert len({notes[tune, bits]["activation_bytes_exact"] for bits in (2, 4, 8, 32)}) == 1
        assert stored[tune, 32] == notes[tune, 32]["activation_bytes_exact"]
        assert stored[tune, 2] < stored[tune, 4] < stored[tune, 8] < stored[tune, 32] / 2
    assert all(stored["bias", bits] < stored["all", bits] for bits in (2, 4, 8, 32))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_it_converges_with_stored_bits(recover, split, bits):
    """Rounded gradients find what exact ones do, though not on the same way."""
    values = {"epochs": 20, "batch_size": 8, "distillation_weight": 0.0, "cwd_weight": 0.0}
    exact, rounded = recover(**values), recover(**values, stored_activation_bits=bits)
    assert rounded.digest != exact.digest
    outputs = rounded.model(torch.from_numpy(split.inputs))
    assert (outputs.argmax(1).numpy() == split.labels).mean() > 0.8


SPACE = {"epochs": (0, 2), "distillation_weight": (0.0, 0.5)}


def problem(context, artifact, **domains):
    """Returns the message of the error that `check` raises for a space."""
    with pytest.raises((StageError, ConfigError)) as caught:
        RecoverStage().check(artifact, {**SPACE, **domains}, context)
    return str(caught.value)


def test_a_space_that_can_be_built_passes(student, context):
    RecoverStage().check(student, SPACE, context)
    RecoverStage().check(student, {**SPACE, "cwd_weight": (0.0, 1.0), "lora_rank": (0, 4)}, context)
    RecoverStage().check(student, {"epochs": (0,), "lora_rank": (99,)}, replace(context, train=None))
    RecoverStage().check(student, {}, replace(context, train=None, teacher=None))


def test_a_missing_requirement_is_reported_before_the_search(student, context, split):
    unlabelled = replace(context, train=ArraySplit(split.inputs, np.full_like(split.labels, -1)))
    assert "epochs is more than 0" in problem(replace(context, train=None), student)
    assert "needs labels" in problem(unlabelled, student)
    assert "needs labels" in problem(unlabelled, student, distillation_weight=())  # a range
    assert "distillation_weight needs the uncompressed" in problem(replace(context, teacher=None), student)
    alone, no_distillation = replace(context, teacher=None), {"distillation_weight": (0.0,)}
    assert "cwd_weight needs" in problem(alone, student, **no_distillation)
    frozen = {"cwd_weight": (0.0,), "block_weights": ("none", "frozen_prefix")}
    assert "block_weights=none needs no teacher" in problem(alone, student, **no_distillation, **frozen)
    assert "recover.lora_rank=5 needs" in problem(context, student, lora_rank=(2, 5))
    assert "augmentation=signal needs" in problem(context, student, augmentation=("none", "signal"))


def test_values_that_no_training_is_possible_with_are_named(student, context, split):
    space = {
        "epochs": (0, 1),
        "augmentation": ("none", "signal", "flip"),
        "distillation_weight": (0.0, 0.5, 1.0),
        "lora_rank": (0, 2, 99),
        "cwd_weight": (),
    }

    def unsuited(context, **domains):
        found = RecoverStage().unsuited(student, space | domains, context)
        return {knob: list(reasons) for knob, reasons in found.items() if reasons}

    usual = {"augmentation": ["signal"], "lora_rank": [99]}
    assert unsuited(context) == usual
    assert unsuited(replace(context, teacher=None)) == {**usual, "distillation_weight": [0.5, 1.0]}
    unlabelled = replace(context, train=ArraySplit(split.inputs, np.full_like(split.labels, -1)))
    assert unsuited(unlabelled) == {**usual, "distillation_weight": [0.0, 0.5]}
    assert unsuited(replace(context, train=None), epochs=(0,)) == {}
    with pytest.raises(StageError, match="no train split"):
        unsuited(replace(context, train=None))


def test_without_features_the_rest_is_trained(context, split):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    flat = torch_artifact(net, InputSpec((1, 8, 8)))
    stage = RecoverStage(threads=1)
    space = {"epochs": (1,), "cwd_weight": (0.0, 1.0), "cwd_temperature": (1.0, 2.0)}
    assert set(stage.empty_knobs(flat, space, context)) == {"cwd_weight", "cwd_temperature"}
    stage.check(flat, space, context)
    results = [stage.apply(flat, {"epochs": 1, "cwd_weight": weight}, context) for weight in (0.0, 5.0)]
    assert results[0].digest == results[1].digest != flat.digest
    assert results[0].provenance == results[1].provenance
    alone = replace(context, teacher=None)
    assert stage.apply(flat, {"epochs": 1, "distillation_weight": 0.0}, alone).digest != flat.digest


def test_an_unavailable_accelerator_is_reported_before_the_search(student, context, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no GPU" in problem(replace(context, accelerator="cuda"), student)


def test_an_onnx_model_is_refused(context):
    onnx = Artifact("onnx", b"", InputSpec((1, 8, 8)), "digest")
    with pytest.raises(StageError, match="this is an onnx model"):
        RecoverStage().apply(onnx, {"epochs": 1}, context)


def test_a_training_that_diverges_raises(recover, context, split):
    broken = replace(context, train=ArraySplit(np.full_like(split.inputs, np.nan), split.labels))
    with pytest.raises(
        StageError, match=r"recover: the training loss is not finite in epoch 1 .*learning_rate=0\.03"
    ):
        recover(broken, learning_rate=0.03)


@pytest.mark.parametrize(
    ("domains", "empty"),
    [
        ({"epochs": (0,), "temperature": (1.0, 2.0)}, {"temperature"}),
        ({"temperature": (1.0, 2.0)}, {"temperature"}),
        ({"epochs": (0, 1), "temperature": (1.0, 2.0)}, set()),
        ({"epochs": (1,), "temperature": (1.0,), "distillation_weight": (0.0,)}, {"temperature"}),
        ({"epochs": (1,), "label_smoothing": (), "distillation_weight": (1.0,)}, {"label_smoothing"}),
        ({"epochs": (1,), "label_smoothing": (), "distillation_weight": ()}, set()),
        ({"epochs": (1,), "cwd_temperature": ()}, set()),
        ({"epochs": (1,), "cwd_temperature": (), "cwd_weight": (0.0,)}, {"cwd_temperature"}),
        ({"epochs": (1,), "block_weights": ("none",), "lora_rank": (2, 4)}, {"block_weights"}),
        ({"epochs": (1,), "tune": ("all", "bias"), "lora_rank": (2,)}, {"tune"}),
        ({"epochs": (1,), "tune": ("all", "bias"), "stored_activation_bits": (2, 32)}, set()),
    ],
)
def test_knobs_without_effect_are_reported(student, context, domains, empty):
    assert set(RecoverStage().empty_knobs(student, domains, context)) == empty
