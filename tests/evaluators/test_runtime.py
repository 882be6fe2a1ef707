import pickle

import numpy as np
import pytest

from evaluators.runtime import Batches, joined, reference_outputs, run_batches, run_split
from evaluators.testing import RandomSplit, model_from_text, tiny_model
from spaces.errors import EvaluationError
from spaces.stages.artifact import Artifact, InputSpec


def test_outputs_do_not_depend_on_the_batch_size():
    model, split = tiny_model(), RandomSplit(10)
    outputs, labels = run_split(model, split, batch_size=10, threads=1)
    assert outputs.shape == (10, 5)
    assert outputs.dtype == np.float32
    assert labels.dtype == np.int64
    for batch_size in (1, 3, 256):
        again, _ = run_split(model, split, batch_size, threads=1)
        np.testing.assert_allclose(again, outputs, rtol=1e-5)
    np.testing.assert_array_equal(reference_outputs(model, split, 10), outputs)


def test_a_batch_is_padded_to_a_fixed_size_and_its_outputs_cut():
    free, fixed = tiny_model(), tiny_model(batch=4)
    wanted = reference_outputs(free, RandomSplit(10), batch_size=4)
    np.testing.assert_allclose(reference_outputs(fixed, RandomSplit(10)), wanted, rtol=1e-5)


def test_outputs_of_any_rank_become_rows():
    model = model_from_text("g (float[n,3,8,8] input) => (float[n,3,8,8] output) { output = Neg(input) }", {})
    assert reference_outputs(model, RandomSplit(6)).shape == (6, 192)


def test_half_precision_inputs_are_cast():
    model = model_from_text(
        "g (float16[n,3,8,8] input) => (float16[n,3,8,8] output) { output = Neg(input) }", {}
    )
    found = reference_outputs(model, RandomSplit(6))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    "text",
    [
        """q = QuantizeLinear(input, scale, zero)
        x = DequantizeLinear(q, scale, zero)
        w = DequantizeLinear(weight, scale)
        output = MatMul(x, w)""",
        """q = QuantizeLinear(input, scale, zero)
        x = DequantizeLinear(q, scale, zero)
        w = DequantizeLinear<axis = 1>(weight, scales)
        output = MatMul(x, w)""",
        """q = QuantizeLinear(input, scale, zero)
        p = com.microsoft.QGemm(q, scale, zero, weight, scale, weight_zero, , large, zero)
        output = DequantizeLinear(p, large, zero)""",
        """q = QuantizeLinear(input, scale, zero)
        p = QLinearMatMul(q, scale, zero, weight, scale, weight_zero, large, zero)
        output = DequantizeLinear(p, large, zero)""",
        """q = QuantizeLinear(input, scale, zero)
        p = QLinearMatMul(q, scale, zero, weight, scales, weight_zeros, large, zero)
        output = DequantizeLinear(p, large, zero)""",
    ],
)
def test_exact_sums_do_not_saturate(text):
    # Each pair of products is 2 * 255 * 127, which is more than 16 bits hold.
    arrays = {
        "scale": np.float32(1), "zero": np.uint8(0), "weight": np.full((64, 4), 127, np.int8),
        "scales": np.ones(4, np.float32),
        "weight_zero": np.int8(0), "weight_zeros": np.zeros(4, np.int8), "large": np.float32(2**14),
    }  # fmt: skip
    model = model_from_text(f"g (float[n,64] input) => (float[n,4] output) {{ {text} }}", arrays)
    inputs = np.full((8, 64), 255, np.float32)
    runs = run_batches(model, lambda size: [(inputs, np.zeros(8, np.int64))], 8, 1, exact_sums=True)
    np.testing.assert_allclose(joined(list(runs))[0], 64 * 255 * 127, rtol=0.01)


def test_operators_without_exact_kernels_run_as_they_are():
    # onnxruntime's option would make the weight unsigned, and has no kernel for that with signed activations.
    arrays = {"scale": np.float32(1), "zero": np.int8(0), "weight": np.eye(4, dtype=np.int8)}
    text = """g (float[n,4] input) => (float[n,4] output) {
        q = QuantizeLinear(input, scale, zero)
        p = QLinearMatMul(q, scale, zero, weight, scale, zero, scale, zero)
        output = DequantizeLinear(p, scale, zero)
    }"""
    inputs = np.arange(8, dtype=np.float32).reshape(2, 4)
    runs = run_batches(
        model_from_text(text, arrays), lambda size: [(inputs, np.zeros(2, np.int64))], 8, 1, exact_sums=True
    )
    np.testing.assert_array_equal(joined(list(runs))[0], inputs)


def test_not_finite_outputs_are_counted():
    text = "g (float[n,3,8,8] input) => (float[n,3,8,8] output) { output = Log(input) }"
    inputs = next(RandomSplit(50, (3, 8, 8)).batches(50))[0]
    bad = int((inputs <= 0).any(axis=(1, 2, 3)).sum())
    with pytest.raises(EvaluationError, match=rf"not finite \(NaN or infinite\) for {bad} of 50 examples"):
        reference_outputs(model_from_text(text, {}), RandomSplit(50))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Artifact.onnx(b"not a model", InputSpec((3, 8, 8))), "cannot load the model"),
        (
            model_from_text("g (float[n,7] input) => (float[n,7] output) { output = Relu(input) }", {}),
            r"cannot run the model on inputs of shape \(6, 3, 8, 8\)",
        ),
        (
            model_from_text(
                "g (int64[n,3,8,8] input) => (int64[n,3,8,8] output) { output = Neg(input) }", {}
            ),
            r"input 'input' takes int64, but the task's examples hold -?0\.\d+, which it cannot represent",
        ),
        (
            model_from_text("g (float[n] a, float[n] b) => (float[n] output) { output = Add(a, b) }", {}),
            "the model has the inputs a, b, but no examples are given for b",
        ),
        (
            model_from_text(
                "g (float[n,3,8,8] input) => (float output) { output = ReduceMax<keepdims=0>(input) }", {}
            ),
            r"yields a tensor of shape \(\) for 6 examples",
        ),
    ],
    ids=["damaged", "shape", "dtype", "inputs", "rows"],
)
def test_models_that_cannot_be_run_raise_the_reason(model, message):
    with pytest.raises(EvaluationError, match=message):
        reference_outputs(model, RandomSplit(6))


def test_an_empty_split_raises():
    with pytest.raises(EvaluationError, match="no examples"):
        reference_outputs(tiny_model(), RandomSplit(0))


class CountingSplit(RandomSplit):
    """Counts how many batches were prepared."""

    prepared = 0

    def batches(self, batch_size, limit=None):
        for batch in super().batches(batch_size, limit):
            CountingSplit.prepared += 1
            yield batch


def test_batches_are_prepared_once_even_if_a_pass_stops_early():
    split, batches = CountingSplit(20), Batches()
    CountingSplit.prepared = 0
    next(batches.of(split, 5))
    assert CountingSplit.prepared == 1
    for _ in range(3):
        found = list(batches.of(split, 5))
        for (inputs, labels), (wanted, theirs) in zip(found, RandomSplit(20).batches(5), strict=True):
            np.testing.assert_array_equal(inputs, wanted)
            np.testing.assert_array_equal(labels, theirs)
    assert CountingSplit.prepared == 4
    np.testing.assert_array_equal(batches.labels(split), np.concatenate([labels for _, labels in found]))
    assert len(list(batches.of(RandomSplit(3), 5))) == 1  # the cache is that of one split
    assert len(list(batches.of(split, 10))) == 2


def test_batches_that_do_not_fit_are_not_kept():
    split, batches = CountingSplit(20), Batches(most_bytes=1000)
    CountingSplit.prepared = 0
    for _ in range(2):
        assert sum(len(labels) for _, labels in batches.of(split, 5)) == 20
    assert CountingSplit.prepared == 8
    list(batches.of(split, 5))
    assert len(pickle.dumps(batches)) < 200
