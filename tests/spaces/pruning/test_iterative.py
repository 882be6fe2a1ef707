"""Cutting in rounds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spaces.errors import StageError, StopTrialError
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.groups.cut import widths
from spaces.pruning.iterative import IterativePruneStage
from spaces.pruning.prune import PruneStage
from spaces.recovery.recover import RecoverStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import StageConformance
from spaces.stages.torch_artifact import torch_artifact

SHAPE = (3, 6, 6)
TRAIN = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01}


class Residual(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(n, m, 3, padding=1), nn.BatchNorm2d(m), nn.Conv2d(m, n, 1)

    def forward(self, x):
        return torch.relu(x + self.b(torch.relu(self.norm(self.a(x)))))


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    blocks = [Residual(12, 16) for _ in range(4)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3)]
    return torch_artifact(nn.Sequential(nn.Conv2d(3, 12, 3), *blocks, *head), InputSpec(SHAPE))


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, *SHAPE)).astype(np.float32)
    return ArraySplit(x, rng.integers(0, 3, 24).astype(np.int64))


@pytest.fixture
def context(split, dense):
    return StageContext(split, Cache(), train=split, teacher=dense, accelerator="cpu")


@pytest.fixture
def stage():
    return IterativePruneStage(min_channels=1, n_examples=16, threads=1)


def macs(artifact):
    return total(layer_counts(artifact.model, SHAPE).values()).macs


@pytest.mark.slow
class TestConformance(StageConformance):
    @pytest.fixture
    def stage(self):
        return IterativePruneStage(min_channels=1, n_examples=16, threads=1)

    @pytest.fixture
    def artifact(self, dense):
        return dense

    @pytest.fixture
    def context(self, split, dense):
        return StageContext(split, Cache(), train=split, teacher=dense, accelerator="cpu")

    @pytest.fixture
    def value_sets(self):
        trained = {**TRAIN, "keep": 0.6, "rounds": 2, "cwd_weight": 1.0}
        adapters = {**TRAIN, "lora_rank": 1, "adapters": 2}
        return [trained, {"ratio": 0.4, "drop_blocks": 1}, {**trained, "residuals": "cut"}, adapters]

    def alternatives(self, knob):
        few = {
            "ratio": (0.3,),
            "keep": (0.7,),
            "criterion": ("random",),
            "budget_of": ("weight_bytes",),
            "round_to": (4,),
            "protect": (("0.weight",),),
            "drop_blocks": (2,),
            "rounds": (2,),
            "epochs": (1,),
            "optimizer": ("adam",),
            "learning_rate": (0.02,),
            "schedule": ("cosine",),
            "batch_size": (16,),
            "weight_decay": (0.1,),
            "augmentation": ("mixup",),
            "label_smoothing": (0.1,),
            "distillation_weight": (0.0,),
            "temperature": (2.0,),
            "cwd_weight": (2.0,),
            "cwd_temperature": (3.0,),
            "block_weights": ("inverse_sensitivity",),
            "lora_rank": (1,),
            "adapters": (3,),
            "average_decay": (0.5,),
        }
        return few.get(knob.name, super().alternatives(knob))


@pytest.mark.parametrize(
    "values",
    [
        {"keep": 0.5},
        {"ratio": 0.5, "criterion": "taylor", **TRAIN},
        {"keep": 0.4, "drop_blocks": 1, "mask_tuning": True, **TRAIN},
        {"keep": 0.5, "criterion": "random", **TRAIN},
        TRAIN,
        {},
    ],
)
def test_one_round_is_prune_and_then_recover(stage, dense, context, values):
    ours = {knob.name for knob in PruneStage.knobs}
    prune = {k: v for k, v in values.items() if k in ours}
    recover = {k: v for k, v in values.items() if k not in ours}
    first = PruneStage(min_channels=1, n_examples=16, threads=1).apply(dense, prune, context)
    wanted = RecoverStage(threads=1).apply(first, recover, context)
    assert stage.apply(dense, values, context).digest == wanted.digest


@pytest.mark.parametrize("of", ["macs", "weight_bytes"])
@pytest.mark.parametrize("rounds", [2, 3])
def test_the_last_round_meets_the_budget_and_the_others_are_on_the_way(stage, dense, context, of, rounds):
    result = stage.apply(dense, {"keep": 0.4, "budget_of": of, "rounds": rounds, **TRAIN}, context)
    notes = result.notes["prune_recover"]
    before, after = (getattr(total(layer_counts(a.model, SHAPE).values()), of) for a in (dense, result))
    assert abs(after / before - 0.4) <= 0.02
    shares = [told[f"{of}_after"] / before for told in notes["rounds"]]
    assert shares == pytest.approx([0.4 ** (r / rounds) for r in range(1, rounds + 1)], abs=0.03)
    assert (notes[f"{of}_before"], notes[f"{of}_after"]) == (before, after)


def test_ratios_come_to_the_same_widths_in_any_number_of_rounds(stage, dense, context):
    ratio = {"0.weight": 0.3, "1.a.weight": 0.6, "2.a.weight": 0.35, "3.a.weight": 0.5}
    found = [
        widths(stage.apply(dense, {"ratio": ratio, "rounds": rounds}, context).model)
        for rounds in (1, 2, 3, 5)
    ]
    assert found.count(found[0]) == len(found)
    assert found[0]["1.a.weight"] == 6


def test_rounding_holds_in_every_round(stage, dense, context):
    result = stage.apply(dense, {"ratio": 0.5, "round_to": 4, "rounds": 3}, context)
    assert set(widths(result.model).values()) == {8, 3}


def test_blocks_go_one_after_the_other(stage, dense, context):
    result = stage.apply(dense, {"drop_blocks": 3, "rounds": 3, **TRAIN}, context)
    notes = result.notes["prune_recover"]
    assert [len(told["blocks"]) for told in notes["rounds"]] == [1, 1, 1]
    assert len(set(notes["blocks"])) == 3
    assert sum(isinstance(part, nn.Identity) for part in result.model.modules()) == 3


def test_rounds_make_a_difference(stage, dense, context):
    one, two = (stage.apply(dense, {"keep": 0.4, "rounds": n, **TRAIN}, context) for n in (1, 2))
    assert one.digest != two.digest


def test_every_round_draws_anew(stage, dense, context):
    values = {"keep": 0.4, "criterion": "random", "rounds": 2, **TRAIN}
    assert stage.apply(dense, values, context).digest == stage.apply(dense, values, context).digest
    other = replace(context, seed=1)
    assert stage.apply(dense, values, other).digest != stage.apply(dense, values, context).digest


def test_notes_can_be_written_down(stage, dense, context):
    artifact = replace(dense, notes={"sparsify": 1, "recover": {"epochs": 9}})
    result = stage.apply(artifact, {"keep": 0.5, "rounds": 2, **TRAIN}, context)
    assert json.loads(json.dumps(result.notes)) == result.notes
    assert result.notes["sparsify"] == 1
    notes = result.notes["prune_recover"]
    assert notes["epochs"] == 2
    assert [len(told["curve"]) for told in notes["rounds"]] == [1, 1]
    assert notes["widths"]["0.weight"][0] == 12
    nothing = stage.apply(artifact, {}, context)
    assert nothing.notes == artifact.notes
    assert nothing.digest == dense.digest


class Recorder:
    def __init__(self, until=99):
        self.seen, self.until = [], until

    def epoch(self, stage, epoch, n_epochs, module):
        self.seen.append((stage, epoch, n_epochs, total(layer_counts(module, SHAPE).values()).macs))
        if epoch == self.until:
            raise StopTrialError("enough")


def test_a_watch_sees_one_training(stage, dense, context):
    watch = Recorder()
    values = {"keep": 0.4, "rounds": 2, **TRAIN, "epochs": 2}
    result = stage.apply(dense, values, replace(context, watch=watch))
    assert [seen[:3] for seen in watch.seen] == [("prune_recover", epoch, 4) for epoch in (1, 2, 3, 4)]
    assert watch.seen[1][3] > watch.seen[2][3] == macs(result)
    assert result.digest == stage.apply(dense, values, context).digest
    with pytest.raises(StopTrialError):
        stage.apply(dense, values, replace(context, watch=Recorder(until=3)))


def test_a_latency_is_met_in_the_last_round(dense, context, monkeypatch):
    from spaces.stages.artifact import Artifact

    class Export:
        def apply(self, artifact, values, context):
            return Artifact.onnx(bytes(macs(artifact) // 100 + 300), artifact.input)

    class Latency:
        digest = "a model"

        def __call__(self, artifact, device):
            return len(artifact.onnx_bytes)

    monkeypatch.setattr("spaces.pruning.budgets.latency.ExportStage", Export)
    stage = IterativePruneStage(device="board", min_channels=1, n_examples=16, threads=1)
    values = {"keep": 0.5, "budget_of": "latency_ms", "rounds": 2}
    result = stage.apply(dense, values, replace(context, latency_ms=Latency()))
    achieved = (macs(result) // 100 + 300) / (macs(dense) // 100 + 300)
    assert abs(achieved - 0.5) <= 0.02


def test_one_round_is_enough_where_nothing_is_cut(stage, dense, context):
    chosen = stage.canonical(dense, stage.defaults() | {"rounds": 5, **TRAIN}, context)
    assert (chosen["rounds"], chosen["epochs"]) == (1, 1)


def test_structure(stage, dense, context):
    def structure(**values):
        return stage.structure(dense, stage.canonical(dense, stage.defaults() | values, context), context)

    assert structure(ratio=0.5, rounds=3, **TRAIN) == structure(ratio=0.5)
    assert structure(keep=0.5, **TRAIN) == structure(keep=0.5)
    assert structure(keep=0.5, rounds=2, **TRAIN) != structure(keep=0.5, rounds=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rounds": 0, "keep": 0.5}, r"prune_recover\.rounds must lie between 1 and 100"),
        ({"rounds": 1.5, "keep": 0.5}, r"prune_recover\.rounds must be a whole number"),
        ({"keep": 0.001}, r"prune\.keep must lie between"),
    ],
)
def test_values_that_make_no_sense(stage, dense, context, values, message):
    with pytest.raises(StageError, match=message):
        stage.canonical(dense, stage.defaults() | values, context)


def test_both_are_checked(stage, dense, context):
    with pytest.raises(StageError, match=r"prune\.ratio=0\.99 would empty 0\.weight"):
        stage.check(dense, {"ratio": (0.0, 0.99)}, context)
    with pytest.raises(StageError, match=r"epochs is more than 0, but the task has no train split"):
        stage.check(dense, {"epochs": (0, 1)}, replace(context, train=None))
    stage.check(dense, {"ratio": (0.5,), "epochs": (0, 1), "rounds": (1, 2)}, context)
