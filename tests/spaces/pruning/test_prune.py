"""The prune stage as a whole."""

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from spaces.errors import ConfigError, StageError
from spaces.models.export import ExportStage
from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.models.zoo.mobilenet_v2 import MobileNetV2
from spaces.pruning.criteria.registry import BUILT_IN
from spaces.pruning.cutting.prune_knobs import DEFAULTS
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.groups.find import channel_groups
from spaces.pruning.iterative import IterativePruneStage
from spaces.pruning.prune import PruneStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import StageConformance, noise_split
from spaces.stages.torch_artifact import torch_artifact
from spaces.stages.torch_file import packed, unpacked

SHAPE = (3, 8, 8)
SPEC = InputSpec(SHAPE)
STREAMS = ("conv1.weight", "layer?.?.conv2.weight")


def resnet(depth=14, seed=0):
    module = CifarResNet(depth)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                spread = (1 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.2
                tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else spread * noise)
                if name.endswith(("bn1.weight", "bn2.weight")):
                    tensor.add_(1.0)
    return torch_artifact(module, SPEC)


@pytest.fixture(scope="module")
def dense():
    return resnet()


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    return ArraySplit(
        rng.standard_normal((24, *SHAPE)).astype(np.float32), rng.integers(0, 10, 24).astype(np.int64)
    )


@pytest.fixture
def context(split):
    return StageContext(split, Cache(), train=split)


@pytest.fixture
def stage():
    return PruneStage(min_channels=1, n_examples=16, threads=1)


@pytest.fixture
def prune(stage, dense, context):
    def prune(artifact=dense, context=context, stage=stage, **values):
        return stage.apply(artifact, values, context)

    return prune


def macs(artifact):
    return total(layer_counts(artifact.model, artifact.input.shape).values()).macs


def share(artifact, dense):
    return macs(artifact) / macs(dense)


class TestConformance(StageConformance):
    @pytest.fixture
    def stage(self):
        return PruneStage(min_channels=1, n_examples=16, threads=1)

    @pytest.fixture
    def artifact(self, dense):
        return dense

    @pytest.fixture
    def context(self, split):
        return StageContext(split, Cache(), train=split)

    @pytest.fixture
    def value_sets(self):
        return [
            {"ratio": 0.4, "protect": ("conv1*",)},
            {"keep": 0.6, "criterion": "random", "mask_tuning": True},
            {"ratio": {"layer1.0.conv1.weight": 0.5, "layer3.0.conv1.weight": 0.25}, "drop_blocks": 1},
        ]

    def alternatives(self, knob):
        few = {
            "ratio": (0.3, 0.01),
            "keep": (0.7,),
            "budget_of": ("weight_bytes",),
            "round_to": (4,),
            "drop_blocks": (2, 1000),
            "criterion": ("bn_gamma", "fpgm"),
            "protect": (("layer1*",),),
        }
        return few.get(knob.name, super().alternatives(knob))


class TestConformanceWithoutBatchNorm(StageConformance):
    @pytest.fixture
    def stage(self):
        return PruneStage(min_channels=1, n_examples=16, threads=1)

    @pytest.fixture
    def artifact(self):
        return plain()

    @pytest.fixture
    def value_sets(self):
        return [{"ratio": 0.5}, {"keep": 0.9, "criterion": "magnitude_l1"}, {"ratio": 0.25, "drop_blocks": 1}]

    def alternatives(self, knob):
        few = {
            "ratio": (0.3,),
            "keep": (0.7,),
            "budget_of": ("weight_bytes",),
            "round_to": (4,),
            "drop_blocks": (1,),
            "criterion": ("random",),
        }
        return few.get(knob.name, super().alternatives(knob))


def plain():
    """Two convolutions, a block, two linear layers; no BatchNorm."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), block, nn.Flatten(), nn.Linear(72, 8), nn.ReLU()]
    return torch_artifact(nn.Sequential(*layers, nn.Linear(8, 4)), SPEC)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("budget_of", ["macs", "weight_bytes"])
def test_a_budget_is_met(prune, dense, keep, budget_of):
    result = prune(keep=keep, budget_of=budget_of)
    before, after = (total(layer_counts(a.model, SHAPE).values()) for a in (dense, result))
    achieved = getattr(after, budget_of) / getattr(before, budget_of)
    assert keep - 0.01 < achieved <= keep
    notes = result.notes["prune"]
    assert notes["macs_after"] == after.macs
    assert (notes["parameters_before"], notes["weight_bytes_after"]) == (
        before.parameters,
        after.weight_bytes,
    )


def test_notes_tell_what_was_done(prune, dense):
    result = prune(keep=0.5, drop_blocks=1, protect=("layer1.0.conv1.weight",), mask_tuning=True)
    notes = result.notes["prune"]
    assert json.loads(json.dumps(notes)) == notes
    modules = dict(result.model.named_modules())
    for layer, (before, after) in notes["widths"].items():
        part = modules[layer.removesuffix(".weight")]
        assert after == getattr(part, "out_channels", getattr(part, "out_features", None))
        old = dense.model.get_submodule(layer.removesuffix(".weight"))
        assert before == getattr(old, "out_channels", getattr(old, "out_features", None))
    assert [type(modules[block]) for block in notes["blocks"]] == [nn.Identity]
    assert not any(layer.startswith(notes["blocks"][0]) for layer in notes["widths"])
    assert "linear.weight: the network's outputs consist of its channels" in notes["left_alone"]
    assert "layer1.0.conv1.weight: protected" in notes["left_alone"]
    assert all(after <= before for before, after in notes["mask_tuning"].values())
    assert notes["widths"]["layer1.0.conv1.weight"] == [16, 16]


def test_notes_of_other_stages_stay(prune, dense):
    result = prune(replace(dense, notes={"sparsify": {"a": 1}}), ratio=0.5)
    assert set(result.notes) == {"sparsify", "prune"}


@pytest.mark.parametrize(
    "values", [{}, {"criterion": "taylor", "mask_tuning": True}, {"ratio": 0.005}, {"ratio": {}}]
)
def test_nothing_to_cut_changes_nothing(prune, dense, values):
    result = prune(**values)
    assert result.model is dense.model
    assert result.digest == dense.digest
    assert "prune" not in result.notes


def test_the_dense_network_stays_as_it_is(prune, dense):
    before = {name: value.clone() for name, value in dense.model.state_dict().items()}
    for criterion in BUILT_IN:
        prune(keep=0.5, criterion=criterion, drop_blocks=1, mask_tuning=True)
    assert all(torch.equal(value, before[name]) for name, value in dense.model.state_dict().items())
    assert not dense.model.training
    assert all(p.grad is None and p.requires_grad for p in dense.model.parameters())


def test_every_criterion_meets_the_budget_in_its_own_way(prune, dense):
    results = {criterion: prune(keep=0.5, criterion=criterion) for criterion in BUILT_IN}
    assert [name for name, result in results.items() if not 0.48 <= share(result, dense) <= 0.5] == []
    assert len({result.digest for result in results.values()}) == len(BUILT_IN)


def test_ratios_per_layer_are_those_of_the_coupled_layers_smallest(prune):
    ratio = {"conv1.weight": 0.5, "layer1.0.conv1.weight": 0.5}
    widths = prune(ratio=ratio).notes["prune"]["widths"]
    assert widths["layer1.0.conv1.weight"] == [16, 8]
    assert widths["conv1.weight"] == [16, 16]  # the others of its stream lose nothing
    everything = dict.fromkeys(widths, 0.5)
    widths = prune(ratio=everything | {"layer1.0.conv2.weight": 0.25}).notes["prune"]["widths"]
    assert widths["conv1.weight"] == [16, 12]
    assert widths["layer2.0.conv2.weight"] == [32, 12 + 8]
    assert widths["linear.weight"] == [10, 10]


def test_channels_are_rounded(prune):
    result = prune(keep=0.5, round_to=4)
    assert all(after % 4 == 0 for _, after in list(result.notes["prune"]["widths"].values())[:-1])


def test_no_layer_gets_smaller_than_it_may(dense, context):
    def narrowest(min_channels):
        stage = PruneStage(min_channels=min_channels, n_examples=16, threads=1)
        widths = stage.apply(dense, {"keep": 0.15}, context).notes["prune"]["widths"]
        return min(after for _, after in widths.values())

    assert narrowest(1) < 6
    assert narrowest(6) == 6


def test_protected_layers_stay_whole(prune):
    widths = prune(keep=0.6, protect=STREAMS).notes["prune"]["widths"]
    assert all(
        before == after
        for layer, (before, after) in widths.items()
        if "conv2" in layer or layer == "conv1.weight"
    )
    assert widths["layer1.0.conv1.weight"][1] < 16


def test_blocks_go_and_the_budget_counts_from_the_whole_network(prune, dense):
    result = prune(keep=0.5, drop_blocks=2)
    assert len(result.notes["prune"]["blocks"]) == 2
    assert 0.48 <= share(result, dense) <= 0.5
    only = prune(drop_blocks=2)
    assert only.notes["prune"]["blocks"] == result.notes["prune"]["blocks"]
    assert share(only, dense) < 1
    assert "left_alone" not in only.notes["prune"]


def test_blocks_that_are_enough_leave_the_channels_alone(prune):
    widths = prune(keep=0.95, drop_blocks=3).notes["prune"]["widths"]
    assert all(before == after for before, after in widths.values())


def test_blocks_with_a_protected_layer_stay(prune):
    assert all(
        not b.startswith("layer3")
        for b in prune(drop_blocks=3, protect=("layer3*",)).notes["prune"]["blocks"]
    )
    with pytest.raises(StageError, match=r"prune\.drop_blocks=4: CifarResNet has 3 blocks that could go"):
        prune(drop_blocks=4, protect=("layer3*",))


def test_the_measure_of_blocks(dense, context):
    def changes(measure):
        cache = Cache()
        stage = PruneStage(n_examples=16, block_measure=measure, threads=1)
        stage.apply(dense, {"drop_blocks": 1}, replace(context, cache=cache))
        return next(v for k, (v, _) in cache._memory._values.items() if k.startswith("prune-blocks"))[
            "changes"
        ]

    assert not np.allclose(changes("output_change"), changes("cosine"))


def test_statistics_are_re_estimated_after_the_cut(prune):
    off, on = (prune(keep=0.5, reestimate_batch_norm=flag).model.state_dict() for flag in (False, True))
    changed = [name for name in off if not torch.equal(off[name], on[name])]
    assert changed
    assert all(name.endswith(("running_mean", "running_var")) for name in changed)


def test_a_cut_network_can_be_stored_and_cut_again(prune, dense):
    result = prune(keep=0.4, drop_blocks=1, criterion="fpgm")
    assert unpacked(packed(result, dense), dense).digest == result.digest
    again = prune(result, keep=0.5)
    assert 0.48 <= share(again, result) <= 0.5


def test_a_cut_network_can_be_exported(prune, context):
    result = prune(resnet(depth=8), keep=0.4)
    exported = ExportStage().apply(result, {}, context)
    x = context.train.inputs[:4]
    session = onnxruntime.InferenceSession(exported.onnx_bytes, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = result.model(torch.from_numpy(x)).numpy()
    off = np.abs(session.run(None, {exported.input.name: x})[0] - wanted).max()
    assert off < 1e-4 * max(1, np.abs(wanted).max())


def test_data_driven_criteria_fall_back_on_the_calibration_split(prune, context):
    without = replace(context, train=None)
    assert (
        prune(keep=0.5, criterion="condition").digest
        == prune(context=without, keep=0.5, criterion="condition").digest
    )


def test_the_seed_decides_what_is_random(prune, context):
    first, again, other = (
        prune(context=replace(context, seed=s, cache=Cache()), keep=0.5, criterion="random").digest
        for s in (1, 1, 2)
    )
    assert first == again != other


def test_scores_are_found_once(prune, context, monkeypatch):
    calls = []
    from spaces.pruning.criteria.fpgm import Fpgm

    scores = Fpgm.scores
    monkeypatch.setattr(Fpgm, "scores", lambda *a: calls.append(1) or scores(*a))
    for keep in (0.5, 0.6, 0.7):
        prune(keep=keep, criterion="fpgm")
    assert len(calls) == 1


class Latency:
    """What takes time are weights, and a little besides."""

    digest = "a model"

    def __init__(self):
        self.calls = 0

    def __call__(self, artifact, device):
        if device != "board":
            raise StageError(f"Unknown device {device!r}. Known: board.")
        self.calls += 1
        return len(artifact.onnx_bytes) + 300


class FakeExport:
    """As many bytes as there are weights: a real export takes seconds."""

    def apply(self, artifact, values, context):
        return Artifact.onnx(bytes(sum(p.numel() for p in artifact.model.parameters())), artifact.input)


def test_a_latency_is_met_on_the_device(dense, context, monkeypatch):
    monkeypatch.setattr("spaces.pruning.budgets.latency.ExportStage", FakeExport)
    latency = Latency()
    stage = PruneStage(device="board", min_channels=1, n_examples=16, threads=1)
    context = replace(context, latency_ms=latency)
    result = stage.apply(dense, {"keep": 0.8, "budget_of": "latency_ms"}, context)
    assert latency.calls <= 7
    before, after = (sum(p.numel() for p in a.model.parameters()) + 300 for a in (dense, result))
    assert abs(after / before - 0.8) <= 0.02
    notes = result.notes["prune"]
    assert (notes["latency_ms_before"], notes["latency_ms_after"]) == (before, pytest.approx(after))
    with_blocks = stage.apply(dense, {"keep": 0.6, "budget_of": "latency_ms", "drop_blocks": 1}, context)
    assert abs((sum(p.numel() for p in with_blocks.model.parameters()) + 300) / before - 0.6) <= 0.02


@pytest.mark.parametrize(
    ("device", "model", "message"),
    [
        (None, Latency(), r"needs a device: set stage\.prune\.device"),
        ("board", None, "nothing models the latency on board"),
        ("boat", Latency(), "Unknown device 'boat'"),
    ],
)
def test_latency_without_a_device(dense, context, monkeypatch, device, model, message):
    monkeypatch.setattr("spaces.pruning.budgets.latency.ExportStage", FakeExport)
    stage, context = PruneStage(device=device, threads=1), replace(context, latency_ms=model)
    for call in (
        lambda: stage.apply(dense, {"keep": 0.6, "budget_of": "latency_ms"}, context),
        lambda: stage.check(dense, {"keep": (0.6,), "budget_of": ("macs", "latency_ms")}, context),
    ):
        with pytest.raises(StageError, match=message):
            call()
    stage.check(dense, {"keep": (1.0,), "budget_of": ("latency_ms",)}, context)


BAD = [
    ({"ratio": 0.98}, r"prune\.ratio=0\.98 would empty conv1\.weight, which has 16 channels"),
    (
        {"keep": 0.01},
        r"prune\.keep=0\.01 cannot be met: at least 0\.040 of the dense network's macs is left",
    ),
    ({"keep": 0.5, "protect": ("*",)}, r"prune\.keep=0\.5 cannot be met"),
    ({"keep": 0.5, "round_to": 64}, r"prune\.keep=0\.5 cannot be met.*round_to=64"),
    (
        {"protect": ("layer9*",), "ratio": 0.5},
        r"Unknown layer pattern 'layer9\*' in prune\.protect.*Known: conv1\.weight",
    ),
    (
        {"drop_blocks": 5},
        r"prune\.drop_blocks=5: CifarResNet has 4 blocks that could go \(layer1\.0, layer1\.1",
    ),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_what_cannot_work_is_refused_before_the_search(dense, context, values, message):
    stage = PruneStage(min_channels=4, n_examples=16, threads=1)
    with pytest.raises(StageError, match=message):
        stage.canonical(dense, stage.defaults() | values, context)
    domains = {
        knob: (DEFAULTS[knob], value) if knob != "protect" else (value,) for knob, value in values.items()
    }
    with pytest.raises(StageError, match=message):
        stage.check(dense, domains, context)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"ratio": {"conv9.weight": 0.5}},
            r"Unknown layer 'conv9\.weight' in prune\.ratio\. Did you mean 'conv1\.weight'",
        ),
        ({"ratio": 1.5}, r"prune\.ratio must lie between 0\.0 and 0\.99"),
        ({"keep": {"conv1.weight": 0.5}}, r"prune\.keep takes one value"),
        ({"criterion": "magic"}, r"prune\.criterion must be one of"),
        ({"cut": 1}, r"Unknown knob 'cut' in prune"),
    ],
)
def test_values_that_make_no_sense(stage, dense, context, values, message):
    with pytest.raises(StageError, match=message):
        stage.canonical(dense, stage.defaults() | values, context)


def test_a_criterion_that_needs_labels(prune, stage, dense, context, split):
    unlabelled = ArraySplit(split.inputs, np.full(24, -1, np.int64))
    for poor in (replace(context, train=unlabelled), replace(context, train=None)):
        with pytest.raises(
            StageError, match=r"prune\.criterion=taylor needs labels.*disturbed_taylor.* do without"
        ):
            prune(context=poor, keep=0.5, criterion="taylor")
        with pytest.raises(StageError, match=r"prune\.criterion=taylor needs labels"):
            stage.check(dense, {"keep": (0.5,), "criterion": ("fpgm", "taylor")}, poor)
        stage.check(dense, {"keep": (0.5,), "criterion": ("fpgm", "disturbed_taylor")}, poor)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"keep": 0.5, "criterion": "condition"}, "criterion=condition"),
        ({"keep": 0.5, "mask_tuning": True}, "mask_tuning"),
        ({"drop_blocks": 1}, "drop_blocks"),
        ({"keep": 0.5}, "reestimate_batch_norm"),
    ],
)
def test_without_examples(stage, dense, values, what):
    context = StageContext(None, Cache())
    with pytest.raises(StageError, match=rf"prune\.{what} needs examples"):
        stage.apply(dense, values, context)
    with pytest.raises(StageError, match=rf"prune\.{what} needs examples"):
        stage.check(dense, {knob: (value,) for knob, value in values.items()}, context)
    stage.apply(dense, {"keep": 0.5, "reestimate_batch_norm": False}, context)


def test_a_criterion_that_does_not_suit_the_network(stage, context):
    network = torch_artifact(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)), SPEC
    )
    with pytest.raises(StageError, match=r"none behind 0\.weight"):
        stage.check(network, {"keep": (0.5,), "criterion": ("bn_gamma", "fpgm")}, context)
    stage.check(network, {"keep": (0.5,), "criterion": ("fpgm",)}, context)


def plain_network():
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
    return torch_artifact(nn.Sequential(*layers), SPEC)


@pytest.mark.parametrize("kind", [PruneStage, IterativePruneStage])
def test_criteria_that_do_not_suit_the_network_are_named(kind, dense, context):
    stage, criteria = kind(threads=1), tuple(BUILT_IN)
    space = {"keep": (0.2, 0.5, 1.0), "criterion": criteria}
    found = stage.unsuited(plain_network(), space, context)
    assert list(found["criterion"]) == ["bn_gamma"]
    assert "none behind 0.weight" in found["criterion"]["bn_gamma"]
    assert not any(stage.unsuited(dense, space, context).values())
    unlabelled = replace(context, train=None)
    assert list(stage.unsuited(dense, space, unlabelled)["criterion"]) == ["taylor"]
    assert not any(
        stage.unsuited(plain_network(), {"criterion": criteria}, context).values()
    )  # nothing is cut


def test_budgets_and_blocks_out_of_reach_are_named(dense, context):
    stage = PruneStage(min_channels=4, threads=1)
    space = {"keep": (0.01, 0.3, 1.0), "round_to": (1, 64), "drop_blocks": (0, 2, 5)}
    found = stage.unsuited(dense, space, context)
    assert {knob: list(reasons) for knob, reasons in found.items() if reasons} == {
        "keep": [0.01],
        "round_to": [64],
        "drop_blocks": [5],
    }
    assert "at least" in found["keep"][0.01]


def test_what_cannot_be_cut_at_all_is_an_error(stage, context):
    network = torch_artifact(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), SPEC)
    with pytest.raises(StageError, match="no channels of Sequential can be cut"):
        stage.unsuited(network, {"keep": (0.5,), "criterion": ("bn_gamma", "fpgm")}, context)


@pytest.mark.parametrize("kind", [PruneStage, IterativePruneStage])
def test_a_budget_between_two_cuts_takes_the_one_below_and_says_so(kind, context):
    network, stage = plain_network(), kind(min_channels=1, n_examples=8, threads=1)
    values = {"keep": 0.5, "round_to": 4}
    stage.check(network, {knob: (value,) for knob, value in values.items()}, context)
    made = stage.apply(network, values, context)
    left = share(made, network)
    assert left < 0.48
    assert made.notes[stage.name]["missed"] == (
        "prune.keep=0.5 cannot be met within 0.02: the nearest cut below leaves "
        f"{left:.3f} of the dense network's macs"
    )


def test_a_budget_that_is_met_is_no_news(prune):
    assert "missed" not in prune(keep=0.5).notes["prune"]


def test_a_network_without_anything_to_cut(stage, context):
    network = torch_artifact(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), SPEC)
    for domains in ({"ratio": (0.0, 0.5)}, {"ratio": ()}, {"keep": (0.5,)}):
        with pytest.raises(
            StageError, match=r"no channels of Sequential can be cut: 1\.weight: the network's outputs"
        ):
            stage.check(network, domains, context)
    stage.check(network, {"ratio": (0.0,)}, context)
    assert stage.apply(network, {}, context).digest == network.digest


def test_a_network_of_which_nothing_can_be_cut(stage, context):
    network = torch_artifact(nn.Sequential(nn.Conv2d(3, 4, 1)), SPEC)
    message = (
        "prune: no channels of Sequential can be cut: 0.weight: the network's outputs consist of its channels"
    )
    with pytest.raises(StageError, match=message):
        stage.check(network, {"keep": (0.5,)}, context)


def test_a_range_is_not_judged_by_its_bounds(stage, dense, context):
    stage.check(dense, {"ratio": (), "keep": (), "round_to": (), "protect": ()}, context)


def test_a_file_is_refused(stage, context):
    exported = Artifact.onnx(b"a model", SPEC)
    with pytest.raises(StageError, match="prune takes a torch network, not an onnx model"):
        stage.canonical(exported, stage.defaults() | {"keep": 0.5}, context)


@pytest.mark.parametrize(
    ("values", "equal"),
    [
        ({"ratio": 0.5, "budget_of": "weight_bytes"}, {"ratio": 0.5}),
        ({"ratio": 0.5, "keep": 0.9}, {"ratio": 0.5}),  # less than that is left anyway
        ({"ratio": 0.5, "round_to": 2}, {"ratio": 0.5}),
        ({"ratio": 0.5, "protect": ("linear.weight",)}, {"ratio": 0.5}),
        ({"drop_blocks": 1, "criterion": "fpgm", "round_to": 8}, {"drop_blocks": 1}),
        ({"drop_blocks": 1, "protect": ("conv1*",)}, {"drop_blocks": 1}),
        ({"ratio": 0.005, "criterion": "fpgm", "reestimate_batch_norm": False}, {}),
        ({"keep": 0.5, "protect": ("layer1*", "layer1.0*")}, {"keep": 0.5, "protect": ("layer1*",)}),
    ],
)
def test_settings_without_effect(stage, dense, context, values, equal):
    first, second = (stage.canonical(dense, stage.defaults() | v, context) for v in (values, equal))
    assert first == second


def test_equal_ratios_of_all_layers_are_one_ratio(stage, dense, context):
    layers = [layer for group in channel_groups(dense.model, SHAPE) for layer in group.layers]
    ratio = stage.canonical(dense, stage.defaults() | {"ratio": dict.fromkeys(layers, 0.5)}, context)["ratio"]
    assert ratio == 0.5


def test_structure_is_what_decides_shapes(stage, dense, context):
    def structure(**values):
        return stage.structure(dense, stage.canonical(dense, stage.defaults() | values, context), context)

    same = structure(ratio=0.5)
    assert structure(ratio=0.5, criterion="random", mask_tuning=True, reestimate_batch_norm=False) == same
    assert structure(ratio=0.501) == same
    assert structure(ratio=0.6) != same
    assert structure(keep=0.5, criterion="fpgm") != structure(keep=0.5)
    assert structure(keep=0.5, mask_tuning=True) == structure(keep=0.5)
    assert structure() != same


def test_facts_of_one_structure_are_shared(stage, dense, context):
    facts = stage.facts_of(dense)
    assert stage.facts_of(resnet(seed=1)) is facts
    assert stage.facts_of(resnet(depth=8)) is not facts
    for n in range(2, 20):
        stage.facts_of(torch_artifact(nn.Sequential(nn.Conv2d(3, n, 1)), SPEC))
        assert stage.facts_of(dense) is facts  # in use
    for n in range(2, 20):
        stage.facts_of(torch_artifact(nn.Sequential(nn.Conv2d(3, n, 1)), SPEC))
    assert stage.facts_of(dense) is not facts


def test_constructor_arguments_are_checked():
    for name in ("min_channels", "n_examples", "threads"):
        with pytest.raises(
            ConfigError, match=rf"stage\.prune\.{name} must be a positive whole number, not 0"
        ):
            PruneStage(**{name: 0})
    with pytest.raises(
        ConfigError, match=r"Unknown measure 'cosin' in stage\.prune\.block_measure\. Did you mean 'cosine'"
    ):
        PruneStage(block_measure="cosin")
    assert PruneStage(device="x").config()["device"] == "x"


def test_mobilenet_is_cut_by_half(context):
    torch.manual_seed(0)
    network = torch_artifact(MobileNetV2(0.25, 10), InputSpec((3, 32, 32)))
    noise = noise_split((3, 32, 32), 4)
    stage = PruneStage(n_examples=4, threads=1)
    result = stage.apply(network, {"keep": 0.5, "round_to": 4}, StageContext(noise, Cache()))
    assert 0.48 <= share(result, network) <= 0.52
    for part in result.model.modules():
        if isinstance(part, nn.Conv2d) and part.groups > 1:
            assert part.groups == part.in_channels == part.out_channels


class Adding(nn.Module):
    """Two convolutions, one after the other or added up."""

    def __init__(self, adds):
        super().__init__()
        self.adds = adds
        self.first, self.second, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        x = self.first(x) + self.second(x) if self.adds else self.second(self.first(x))
        return self.head(x.mean((2, 3)))


def test_networks_that_differ_in_an_argument_do_not_share_facts(stage):
    groups = [stage.facts_of(torch_artifact(Adding(adds), SPEC)).groups for adds in (False, True)]
    assert [len(found) for found in groups] == [2, 1]


def test_residuals_stay_whole_where_enough_of_the_others_is_left(prune, dense):
    spared, deeper, cut = (
        prune(keep=0.6).notes["prune"],
        prune(keep=0.15).notes["prune"],
        prune(keep=0.6, residuals="cut").notes["prune"],
    )
    streams = [name for name in spared["widths"] if name in ("conv1", "layer1.0.conv2", "layer3.1.conv2")]
    streams = streams or [n for n in spared["widths"] if n.endswith(("conv2", "conv2.weight"))]
    assert streams
    assert all(spared["widths"][name][0] == spared["widths"][name][1] for name in streams)
    assert any("prune.residuals" in line for line in spared["left_alone"])
    for notes in (deeper, cut):
        assert any(notes["widths"][name][0] > notes["widths"][name][1] for name in streams)
        assert not any("prune.residuals" in line for line in notes["left_alone"])


def test_residuals_without_effect(prune, dense, context):
    stage = PruneStage(threads=1)
    assert prune(ratio=0.5, residuals="cut").digest == prune(ratio=0.5).digest
    plain = torch_artifact(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)), SPEC
    )
    chosen = stage.canonical(plain, {"keep": 0.5, "residuals": "cut"}, context)
    assert chosen["residuals"] == "whole"
    empty = stage.empty_knobs(plain, {"keep": (0.5,), "residuals": ("whole", "cut")}, context)
    assert "residuals" in empty


def test_weights_of_attention_that_a_cut_rescales_are_not_tuned():
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.qkv, self.proj, self.head = (
                nn.Linear(5, 16),
                *(nn.Linear(16, n) for n in (48, 16, 3)),
            )

        def forward(self, x):
            b, n, c = (x := self.stem(x)).shape
            parts = self.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
            y = nn.functional.scaled_dot_product_attention(*parts)
            return self.head((x + self.proj(y.transpose(1, 2).reshape(b, n, c))).mean(1))

    noise, stage = noise_split((6, 5), 8), PruneStage(min_channels=1, n_examples=8, threads=1)
    context = StageContext(noise, Cache(), train=noise)
    dense = torch_artifact(Attentive(), InputSpec((6, 5)))
    values = {**DEFAULTS, "ratio": 0.5, "criterion": "magnitude_l2", "mask_tuning": True}
    assert set(stage.apply(dense, values, context).notes["prune"]["mask_tuning"]) == {"head.weight"}
