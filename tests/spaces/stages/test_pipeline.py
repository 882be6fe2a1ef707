import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from spaces.candidate import Candidate
from spaces.errors import ConfigError
from spaces.knob_spec import KnobSpec
from spaces.models.export import ExportStage
from spaces.space_config import read_space
from spaces.stages.artifact import InputSpec, Step
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline, stage_key
from spaces.stages.stage import Stage, StageContext
from spaces.stages.testing import noise_split
from spaces.stages.torch_artifact import torch_artifact


class Scaling(Stage):
    """Scales all weights; `idle` has no effect unless `factor` is 2."""

    name = "scaling"
    consumes = ("torch",)
    produces = "torch"
    knobs = (
        KnobSpec("factor", 1.0, "of the weights", low=0.0, high=9.0),
        KnobSpec("idle", 0, "nothing", low=0, high=9),
    )

    def __init__(self, replace_relu=False):
        self.applied = []
        self.replace_relu = replace_relu

    def apply(self, artifact, values, context):
        self.applied.append(dict(values))
        module = copy.deepcopy(artifact.model)
        with torch.no_grad():
            module[0].weight.mul_(values["factor"])
        if self.replace_relu:
            module[1] = nn.Tanh()
        made = torch_artifact(module, artifact.input)
        return replace(made, notes={"scaling": {"factor": values["factor"]}})

    def canonical(self, artifact, values, context):
        assert artifact.kind == "torch"
        return dict(values) if values["factor"] == 2.0 else {**values, "idle": 0}


class Again(Scaling):
    name = "again"


@pytest.fixture
def start():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    return torch_artifact(module, InputSpec((3, 8, 8)))


@pytest.fixture
def context():
    return StageContext(noise_split((3, 8, 8)), Cache())


def test_torch_stages_are_cached_with_their_notes(start, context):
    stages = [Scaling(), Again(), ExportStage()]
    values = {"scaling": {"factor": 3.0, "idle": 0}, "again": {"factor": 0.5, "idle": 0}}
    first = Pipeline(stages).run(start, values, context)
    second = Pipeline(stages).run(start, values, context)
    assert [len(stage.applied) for stage in stages[:2]] == [1, 1]
    assert first.digest == second.digest
    assert first.notes == second.notes == {"scaling": {"factor": 0.5}}
    assert [step.stage for step in second.provenance] == ["scaling", "again", "export"]


def test_another_process_reads_the_cache_folder(start, tmp_path):
    made = []
    for _ in range(2):
        stage = Scaling()
        context = StageContext(None, Cache(tmp_path))
        made.append(Pipeline([stage]).run(start, {"scaling": {"factor": 3.0, "idle": 0}}, context))
    assert made[0].digest == made[1].digest
    assert stage.applied == []
    assert torch.equal(made[1].model[0].weight, start.model[0].weight * 3.0)


def test_an_artifact_that_cannot_be_serialized_is_built_again(start, context):
    stage = Scaling(replace_relu=True)
    values = {"scaling": {"factor": 3.0, "idle": 0}}
    made = [Pipeline([stage]).run(start, values, context) for _ in range(2)]
    assert made[0].digest == made[1].digest
    assert len(stage.applied) == 2


class Modelled:
    digest = "of the profiles"


@pytest.mark.parametrize("stage", [Scaling(), ExportStage()])
def test_keys_depend_on_everything_that_a_stage_may_use(start, context, stage):
    others = [
        context,
        replace(context, train=noise_split((3, 8, 8), seed=1)),
        replace(context, teacher=start),
        replace(context, accelerator="cpu"),
        replace(context, calibration=None),
        replace(context, latency_ms=Modelled()),
    ]
    keys = {stage_key(stage, start, stage.defaults(), c) for c in others}
    keys.add(stage_key(stage, replace(start, input=InputSpec((3, 9, 9))), stage.defaults(), context))
    assert len(keys) == len(others) + 1


def test_keys_depend_on_a_stages_arguments(start, context):
    keys = {stage_key(Scaling(relu), start, {}, context) for relu in (False, True)}
    assert len(keys) == 2


class Noting(Stage):
    """Changes nothing; adds its input's shape to the notes, and keeps earlier notes as most stages do."""

    name = "noting"
    consumes = ("torch", "onnx")
    produces = "onnx"

    def apply(self, artifact, values, context):
        notes = {**artifact.notes, "noting": {"shape": list(artifact.input.shape)}}
        renamed = replace(artifact.input, name="renamed")
        return replace(artifact, input=renamed, notes=notes, provenance=(Step("noting"),))


def test_an_onnx_stages_notes_and_input_are_stored_with_its_file(start, tmp_path):
    onnx = Pipeline([ExportStage()]).run(start, {}, StageContext(None, Cache()))
    first, second = (
        Pipeline([Noting()]).run(replace(onnx, notes=earlier), {}, StageContext(None, Cache(tmp_path)))
        for earlier in ({"before": 1}, {"before": 2})
    )
    assert first.notes == {"before": 1, "noting": {"shape": [3, 8, 8]}}
    assert second.notes == {"before": 2, "noting": {"shape": [3, 8, 8]}}
    assert second.input == first.input == InputSpec((3, 8, 8), "renamed")
    assert second.onnx_bytes == first.onnx_bytes


def test_every_torch_stage_is_canonical_from_the_start(start, context):
    stages = [Scaling(), Again(), ExportStage()]
    space = read_space({"scaling": {"idle": [0, 1]}, "again": {"idle": [0, 1]}}, stages)
    pipeline = Pipeline(stages)
    assert [stage.name for stage in pipeline.foreseen(start)] == ["scaling", "again", "export"]
    made = pipeline.canonical(start, space, Candidate({"scaling.idle": 1, "again.idle": 1}), context)
    assert made["scaling"] == made["again"] == {"factor": 1.0, "idle": 0}


def test_with_an_onnx_start_only_the_first_stage_is_foreseen(start, context):
    onnx = Pipeline([ExportStage()]).run(start, {}, context)
    stages = [ExportStage()]
    assert Pipeline(stages).foreseen(onnx) == tuple(stages)
    with pytest.raises(ConfigError, match="'scaling' takes torch, but got a onnx model"):
        Pipeline([Scaling()]).run(onnx, {}, context)


def test_stages_that_do_not_fit_raise():
    with pytest.raises(ConfigError, match="'scaling' cannot follow 'export'"):
        Pipeline([ExportStage(), Scaling()])
    with pytest.raises(ConfigError, match="may occur only once"):
        Pipeline([Scaling(), Scaling()])
