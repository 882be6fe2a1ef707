"""Low-fidelity evaluations of candidates before their trials."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import search.trials.partial_runs as partial_runs
import search.trials.structures as structures
from evaluators.cost.cost import CostEvaluator
from evaluators.runtime import run_split
from evaluators.task.accuracy import AccuracyEvaluator
from evaluators.testing import tiny_context, tiny_model
from search.record.results import Constraint, Objective
from search.trials.compression_work import CompressionWork
from search.trials.low_fidelity import CompressionLowFidelity
from search.trials.machine_lock import MachineLock
from search.trials.partial_estimates import subset_sizes
from search.trials.partial_runs import PartialRuns, Prefix
from search.trials.trial import CompressionRunner, TrialRequest
from spaces.candidate import Candidate
from spaces.errors import StageError
from spaces.knob_spec import KnobSpec
from spaces.space_config import read_space
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import Stage, StageContext

N = 300


class Shifting(Stage):
    """Adds a number to a bias; `bits` change the file's structure, and a shift of 5 cannot be built."""

    name = "shifting"
    consumes = ("onnx",)
    produces = "onnx"
    knobs = (
        KnobSpec("bits", 8, "weight bits", allowed=(4, 8)),
        KnobSpec("shift", 0.0, "added to the bias", low=-9.0, high=9.0),
    )

    def __init__(self):
        self.n_built = 0

    def apply(self, artifact, values, context):
        self.n_built += 1
        model = tiny_model(values["bits"]).proto()
        for stored in model.graph.initializer:
            if stored.name == "dense_bias":
                bias = numpy_helper.to_array(stored).copy()
                bias[0] += values["shift"]
                stored.CopyFrom(numpy_helper.from_array(bias, stored.name))
        return Artifact.onnx(model, artifact.input)

    def canonical(self, artifact, values, context):
        if values["shift"] == 5.0:
            raise StageError("5 cannot be built")
        return dict(values)

    def structure(self, artifact, values, context):
        return {"bits": values["bits"]}

    def estimates(self, artifact, candidates, context):
        return {"minus_shift": np.array([-abs(c["shift"]) for c in candidates])}


@pytest.fixture
def runner(tmp_path):
    stage = Shifting()
    space = read_space({"shifting": {"bits": [4, 8], "shift": [0.0, 0.1, 5.0, 9.0]}}, [stage])
    start = tiny_model()
    return CompressionRunner(
        space, start, Pipeline([stage]), StageContext(None, Cache()), tiny_context(start, N),
        [AccuracyEvaluator(), CostEvaluator()], MachineLock(tmp_path),
    )  # fmt: skip


OBJECTIVES = (
    Objective("metric.top1", "maximize"),
    Objective("metric.file_bytes", "minimize"),
    Objective("cost.board.weight_bytes", "minimize"),
)
CONSTRAINTS = (
    Constraint("drop", "metric.top1_drop", "max", 1.0),
    Constraint("flash", "cost.board.weight_bytes", "max", 100.0),
)


@pytest.fixture
def low_fidelity(runner):
    work = CompressionWork(runner, runner.context.split)
    return CompressionLowFidelity(
        runner, OBJECTIVES, CONSTRAINTS, lambda name, *args: getattr(work, name)(*args)
    )


def params(bits, shift):
    return {"shifting.bits": bits, "shifting.shift": shift}


def trial(runner, bits, shift):
    result = runner.run(TrialRequest(0, Candidate(params(bits, shift))))
    return {m.column: m.value for m in result.measurements}


def test_known_values_equal_those_of_trials_and_need_one_model_per_structure(low_fidelity, runner):
    candidates = [params(b, s) for b in (4, 8) for s in (0.0, 0.1, 5.0, 9.0)]
    known = low_fidelity.known(candidates)
    assert runner.pipeline.stages[0].n_built == 2
    assert [key == "" for key in known.keys] == [c["shifting.shift"] == 5.0 for c in candidates]
    assert len(set(known.keys)) == 7
    assert np.isnan(known.values[:, 0]).all()
    assert np.isnan(known.excesses["drop"]).all()
    for candidate, values, flash in zip(candidates, known.values, known.excesses["flash"], strict=True):
        if candidate["shifting.shift"] == 5.0:
            assert np.isnan(values).all()
            continue
        measured = trial(runner, candidate["shifting.bits"], candidate["shifting.shift"])
        assert values[1:].tolist() == [measured[o.column] for o in OBJECTIVES[1:]]
        assert flash == measured["cost.board.weight_bytes"] - 100


def test_of_a_large_network_only_some_structures_are_built_ahead(low_fidelity, runner, monkeypatch):
    monkeypatch.setattr(structures, "_NODES", 0)
    monkeypatch.setattr(structures, "_LEAST", 1)
    candidates = [params(b, s) for b in (4, 8) for s in (0.0, 5.0)]
    known = low_fidelity.known(candidates)
    assert runner.pipeline.stages[0].n_built == 1
    assert [key == "" for key in known.keys] == [False, True, False, True]
    assert np.isfinite(known.values[0, 1:]).all()
    assert np.isnan(known.values[2]).all()
    assert np.isnan(known.excesses["flash"][2])
    assert low_fidelity.short(params(8, 0.0), 150).values[1] > 0  # built once it is run
    assert np.isfinite(low_fidelity.known(candidates).values[2, 1:]).all()


def test_no_candidates_give_empty_results(low_fidelity):
    assert low_fidelity.known([]).values.shape == (0, 3)
    assert not low_fidelity.statistics([])


def test_statistics_come_from_the_stage_and_are_nan_where_a_candidate_cannot_be_built(low_fidelity):
    found = low_fidelity.statistics([params(8, 9.0), params(8, 5.0), params(4, 0.1)])
    np.testing.assert_array_equal(found["minus_shift"], [-9.0, np.nan, -0.1])
    assert low_fidelity.statistics([params(4, 0.1)])["minus_shift"].tolist() == [-0.1]
    assert low_fidelity.seconds["statistics"] > 0


@pytest.mark.parametrize("shift", [0.0, 0.1, 9.0])
def test_a_low_fidelity_evaluation_agrees_with_the_trial(low_fidelity, runner, shift):
    result = low_fidelity.short(params(4, shift), 150)
    measured = trial(runner, 4, shift)
    assert result.n_examples == 150
    assert result.values[1:].tolist() == [measured[o.column] for o in OBJECTIVES[1:]]
    assert result.errors[1:].tolist() == [0, 0]
    assert abs(result.values[0] - measured["metric.top1"]) < 4 * result.errors[0]
    estimate, error = result.excesses["drop"]
    assert abs(estimate - (measured["metric.top1_drop"] - 1)) < 4 * error
    assert result.excesses["flash"] == (measured["cost.board.weight_bytes"] - 100, 0)


def test_a_candidate_that_cannot_be_built_has_no_result(low_fidelity):
    assert low_fidelity.short(params(8, 5.0), 64) is None


def test_results_are_cached_and_numbers_of_examples_rounded_up(low_fidelity, runner):
    first = low_fidelity.short(params(8, 9.0), 1)
    assert first.n_examples == low_fidelity.sizes[0]
    spent = low_fidelity.seconds["low_fidelity"]
    again = low_fidelity.short(params(8, 9.0), low_fidelity.sizes[0])
    assert again.values.tolist() == first.values.tolist()
    assert low_fidelity.seconds["low_fidelity"] == spent
    assert low_fidelity.short(params(8, 9.0), 10_000).n_examples == 150


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1, (1,)),
        (16, (8,)),
        (64, (8, 32)),
        (300, (9, 36, 144, 150)),
        (2_047, (63, 252, 1008, 1023)),
        (10_000, (64, 256, 1024, 4096, 5000)),
    ],
)
def test_sizes_end_with_half_of_the_split(n, sizes):
    assert subset_sizes(n) == sizes


# -- runs on the first examples ------------------------------------------------------------------------------


@pytest.fixture
def split():
    return tiny_context(tiny_model(), N).split


@pytest.mark.parametrize("fixed", [None, 7])
@pytest.mark.parametrize("sizes", [(10, 70, 100), (64, 100)])
def test_a_run_on_more_examples_continues_the_run_on_fewer(split, sizes, fixed):
    artifact = tiny_model()
    if fixed is not None:
        proto = artifact.proto()
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = fixed
        del proto.graph.output[:]
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(tiny_output(), onnx.TensorProto.FLOAT, None)
        )
        artifact = Artifact.onnx(proto, artifact.input)
    wanted, _ = run_split(artifact, Prefix(split, 100), 256, 1)
    built = []
    runs = PartialRuns(split, sizes)
    for size in sizes:
        found = runs.outputs("a", size, lambda: built.append(1) or artifact)
        np.testing.assert_allclose(found, wanted[:size], rtol=1e-5, atol=1e-6)
    assert len(built) == 1


def tiny_output():
    return tiny_model().proto().graph.output[0].name


def test_an_unloaded_model_is_built_again_but_only_run_on_further_examples(split):
    artifact = tiny_model()
    built = []
    runs = PartialRuns(split, (64, 128))
    for key in "abcdef":
        runs.outputs(key, 64, lambda: artifact)
    found = runs.outputs("a", 128, lambda: built.append(1) or artifact)
    assert built
    wanted, _ = run_split(artifact, Prefix(split, 128), 256, 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert runs.outputs("a", 64, lambda: pytest.fail("the outputs are cached")) is not None


def test_outputs_beyond_the_limit_are_evicted(split, monkeypatch):
    monkeypatch.setattr(partial_runs, "MOST_OUTPUT_BYTES", 1)
    artifact, built = tiny_model(), []
    runs = PartialRuns(split, (64, 128))
    for key in ("a", "b", "a"):
        runs.outputs(key, 64, lambda: built.append(1) or artifact)
    assert len(built) == 3


def test_a_prefix_is_a_split(split):
    prefix = Prefix(split, 70)
    assert len(prefix) == 70
    assert prefix.digest != split.digest
    assert [len(x) for x, _ in prefix.batches(64)] == [64, 6]
    assert [len(x) for x, _ in prefix.batches(64, 65)] == [64, 1]
