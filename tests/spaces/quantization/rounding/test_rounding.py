"""Methods of rounding, on small networks."""

import weakref
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.quantization.quantize import QuantizeStage
from spaces.quantization.rounding.adaround import AdaRound
from spaces.quantization.rounding.descent import _Rounding
from spaces.quantization.rounding.gptq import _damped, descended, with_feedback
from spaces.quantization.rounding.grids import TorchGrid
from spaces.quantization.rounding.methods import METHODS
from spaces.quantization.rounding.testing import RoundingConformance
from spaces.quantization.rounding.walk import _joined
from spaces.quantization.schemes.scheme import SCHEMES, make_grid
from spaces.stages.cache import Cache


class TestGptq(RoundingConformance):
    method = METHODS["gptq"]


class TestAdaRound(RoundingConformance):
    method = replace(METHODS["adaround"], steps=30)

    @pytest.mark.parametrize("steps", [1, 30])
    def test_is_nowhere_worse_than_feedback(self, walk, steps):
        # the first part reads the same with both
        learned, feedback = (walk.rounded(m) for m in (replace(self.method, steps=steps), METHODS["gptq"]))
        first = next(iter(feedback.errors))
        assert learned.errors[first][1] <= feedback.errors[first][1] * (1 + 1e-6)


class TestBrecq(RoundingConformance):
    method = replace(METHODS["brecq"], steps=30)


def grid_of(rows, bits):
    grid = make_grid(SCHEMES["symmetric"].channel_weights, rows.min(1), rows.max(1), bits, axis=0)
    return TorchGrid.of(grid, 2, "cpu")


class TestFeedback:
    @settings(deadline=None, max_examples=30)
    @given(
        seed=st.integers(0, 2**16), bits=st.integers(2, 8), n_in=st.integers(1, 20), n_out=st.integers(1, 6)
    )
    def test_without_it_is_the_nearest_rounding(self, seed, bits, n_in, n_out):
        rows = np.random.default_rng(seed).standard_normal((n_out, n_in)).astype(np.float32)
        grid = grid_of(rows, bits)
        weight = torch.from_numpy(rows)
        plain = with_feedback(
            weight[None], torch.eye(n_in)[None], replace(grid, scale=grid.scale[None]), feedback=False
        )
        assert torch.equal(plain[0], grid.quantized(weight))

    def test_with_uncorrelated_inputs_is_the_nearest_rounding(self):
        rows = np.random.default_rng(0).standard_normal((4, 12)).astype(np.float32)
        grid = grid_of(rows, 4)
        found = with_feedback(torch.from_numpy(rows)[None], torch.eye(12)[None], grid)
        assert torch.allclose(found[0], grid.quantized(torch.from_numpy(rows)), atol=1e-6)

    def test_lowers_the_error_of_correlated_inputs(self):
        random = np.random.default_rng(0)
        rows = random.standard_normal((8, 150)).astype(np.float32)
        inputs = torch.from_numpy(
            (random.standard_normal((150, 20)) @ random.standard_normal((20, 500))).astype(np.float32)
        )
        grid, weight = grid_of(rows, 3), torch.from_numpy(rows)
        found = with_feedback(weight[None], (inputs @ inputs.T)[None], grid)[0]
        errors = [float((((w - weight) @ inputs) ** 2).sum()) for w in (found, grid.quantized(weight))]
        assert errors[0] < 0.5 * errors[1]
        assert torch.allclose(grid.quantized(found), found, atol=1e-5)

    @settings(deadline=None, max_examples=30)
    @given(
        seed=st.integers(0, 2**16), bits=st.integers(2, 4), scheme=st.sampled_from(["symmetric", "asymmetric"]),
        per_channel=st.booleans(), keeps_scales=st.booleans(),
    )  # fmt: skip
    def test_descent_lowers_the_error_on_the_grid(self, seed, bits, scheme, per_channel, keeps_scales):
        random = np.random.default_rng(seed)
        rows = random.standard_normal((5, 30)).astype(np.float32)
        x = random.standard_normal((30, 8)) @ random.standard_normal((8, 100)) + random.standard_normal(
            (30, 100)
        )
        weight, hessian = torch.from_numpy(rows)[None], torch.from_numpy((x @ x.T).astype(np.float32))[None]
        ends = (rows.min(1), rows.max(1)) if per_channel else (rows.min(), rows.max())
        made = make_grid(SCHEMES[scheme].channel_weights, *ends, bits, axis=0 if per_channel else None)
        grid = TorchGrid.of(made, 2, "cpu")
        limits = None if keeps_scales else (grid.scale / 1.5, grid.scale * 1.5)
        start = with_feedback(weight, hessian, grid)
        found, better = descended(weight, start, hessian, grid, 4, limits)
        if keeps_scales:
            assert torch.equal(better.scale, grid.scale)
        assert torch.allclose(better.quantized(found), found, atol=1e-5)

        def error(values):
            return float((((values - weight) @ _damped(hessian)) * (values - weight)).sum())

        assert error(found) <= error(start) * (1 + 1e-5)
        again, _ = descended(weight, found, hessian, better, 1, None)
        assert error(again) <= error(found) * (1 + 1e-5)


@given(st.integers(-48, 48), st.integers(-4, 3))
def test_learned_rounding_decides_between_what_was_found_and_its_neighbour(eighths, integer):
    start = eighths / 8
    grid = TorchGrid(torch.tensor(0.5), torch.tensor(0.0), -4, 3, None)
    rounding = _Rounding(torch.tensor([0.5 * start]), torch.tensor([0.5 * integer]), grid, False)
    ends = []
    for v in (-9.0, 9.0):
        rounding.v = torch.tensor([v])
        ends.append(float(rounding.hard()) / 0.5)
    neighbour = integer - 1 if start < integer else integer + 1
    assert set(ends) == {integer, min(max(neighbour, -4), 3)}


def test_of_a_batch_only_what_is_read_later_is_kept():
    alive = []

    def batches():
        for i in range(4):
            assert sum(reference() is not None for reference in alive) <= 1
            within = torch.zeros(3)
            alive.append(weakref.ref(within))
            yield {"read": torch.full((2,), float(i)), "within": within}

    assert _joined(batches(), ["read"])["read"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


class TestInTheStage:
    @pytest.fixture
    def chosen(self):
        return QuantizeStage().defaults() | {"clipping": "mse", "weight_bits": 3, "calibration_images": 64}

    @pytest.mark.parametrize("method", list(METHODS))
    def test_file_has_the_rounded_weights(self, small, context, noise, run, chosen, method):
        """Learned rounding keeps the outputs closer to the float network's than rounding to nearest."""
        stage = QuantizeStage()
        files = [
            stage.apply(small, chosen | {"rounding": r, "rounding_steps": 100}, context)
            for r in ("nearest", method)
        ]
        inputs = next(iter(noise.batches(64)))[0]
        wanted = run(small, inputs)
        errors = [float(np.square(run(file, inputs) - wanted).mean()) for file in files]
        assert errors[1] < errors[0]

    def test_is_not_rounded_again(self, small, context, chosen, monkeypatch):
        """A stage of another process finds the parts in the cache; a change in the last layer keeps those before it."""
        values = chosen | {"rounding": "adaround", "rounding_steps": 5}
        first = QuantizeStage().apply(small, values, context)
        solved = []
        solve = AdaRound.solve
        monkeypatch.setattr(AdaRound, "solve", lambda self, unit: (solved.append(1), solve(self, unit)))
        assert QuantizeStage().apply(small, values, context).digest == first.digest
        assert solved == []
        bits = dict.fromkeys(("stem.weight", "expand.weight", "depthwise.weight", "project.weight"), 3)
        QuantizeStage().apply(small, values | {"weight_bits": bits | {"classifier.weight": 4}}, context)
        assert len(solved) == 1

    def test_a_network_with_a_loop_is_one_message(self, small, context, chosen, monkeypatch):
        def fail(*arguments, **options):
            raise NotImplementedError("Loop")

        monkeypatch.setattr("spaces.models.onnx.torch_graph.graph.TorchGraph.run", fail)
        with pytest.raises(StageError, match=r"quantize\.rounding.*Loop.*rounding: nearest"):
            QuantizeStage().apply(small, chosen | {"rounding": "gptq"}, replace(context, cache=Cache()))


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 7])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("kind", ["signed", "unsigned"])
def test_weights_use_no_more_integers_than_the_width_has(small, context, bits, granularity, kind):
    values = QuantizeStage().defaults() | {
        "weight_bits": bits,
        "granularity": granularity,
        "weight_type": kind,
    }
    model = onnx.load_model_from_string(QuantizeStage().apply(small, values, context).onnx_bytes)
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    weights = {n: np.asarray(v).astype(int) for n, v in stored.items() if n.endswith("weight_quantized")}
    assert len(weights) == 5
    for integers in weights.values():
        assert len(np.unique(integers)) > 2 ** (min(bits, 5) - 1) / 2
        assert integers.max() - integers.min() < 2**bits


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_narrow_activations_take_no_more_values_than_the_width_has(small, context, noise, bits):
    values = QuantizeStage().defaults() | {"activation_bits": bits, "clipping": "mse"}
    made = QuantizeStage().apply(small, values, context)
    assert "simulated" in made.notes["quantize"]["notes"][0]
    proto = made.proto()
    inputs = {n.input[0] for n in proto.graph.node if n.op_type in ("Conv", "Gemm")}
    for name in inputs:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for output, value in zip(
        names, session.run(None, {"input": next(iter(noise.batches(8)))[0]}), strict=True
    ):
        if output in inputs:
            assert len(np.unique(value)) <= 2**bits


def test_ends_keep_8_bits(small, context):
    values = QuantizeStage().defaults() | {
        "activation_bits": 3,
        "weight_bits": 2,
        "ends_8_bit": True,
        "clipping": "mse",
    }
    model = onnx.load_model_from_string(QuantizeStage().apply(small, values, context).onnx_bytes)
    stored = {
        i.name: np.asarray(onnx.numpy_helper.to_array(i)).astype(int)
        for i in model.graph.initializer
        if i.name.endswith("_quantized")
    }
    widths = {name: len(np.unique(integers)) for name, integers in stored.items()}
    assert min(widths["stem.weight_quantized"], widths["classifier.weight_quantized"]) > 16
    assert max(n for name, n in widths.items() if "stem" not in name and "classifier" not in name) <= 4
    clips = [n for n in model.graph.node if n.op_type == "Clip"]
    assert all(n.input[0] != "input" for n in clips)
    assert clips


def test_packed_bytes_are_those_of_the_width(small, context):
    """INT4 holds weights of 3 bits; what a packed file would store of them is less."""
    from spaces.quantization.formats.stored import stored_weights

    values = QuantizeStage().defaults() | {"weight_bits": 3}
    proto = QuantizeStage().apply(small, values, context).proto()
    stored = stored_weights(proto)
    assert stored["stem.weight_quantized"].packed_bytes == -(-8 * 3 * 9 * 3 // 8)


def test_a_method_of_ones_own(small, context):
    """It is a value of the knob, and rounds."""
    mine = replace(METHODS["gptq"])
    stage = QuantizeStage(roundings=[type("Mine", (type(mine),), {"name": "mine"})()])
    assert next(k for k in stage.knobs if k.name == "rounding").allowed == (
        "nearest",
        "gptq",
        "adaround",
        "brecq",
        "mine",
    )
    values = stage.defaults() | {"weight_bits": 3}
    wanted = stage.apply(small, values | {"rounding": "gptq"}, context).proto().graph
    found = stage.apply(small, values | {"rounding": "mine"}, context).proto().graph
    assert found == wanted
    with pytest.raises(
        StageError, match=r"rounding must be one of \['nearest', 'gptq', 'adaround', 'brecq'\], not 'mine'"
    ):
        QuantizeStage().canonical(small, values | {"rounding": "mine"}, context)
