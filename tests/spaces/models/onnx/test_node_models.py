"""Clean-up keeps what the node models of ONNX's own backend tests compute: every operator, in the form that the standard gives it."""

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.backend.test.case.node import collect_testcases

from spaces.models.onnx.clean_up import clean_up

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LEAST_MODELS = 1300  # that onnxruntime runs: 1,364 with onnx 1.23 and onnxruntime 1.31
PARTS = 16


@cache
def cases():
    """Returns the node models with their first inputs."""
    onnxruntime.set_default_logger_severity(4)
    return [(case.name, case.model, case.data_sets[0][0]) for case in collect_testcases(None)]


def plain(value):
    """Returns a value as onnxruntime takes it."""
    readers = {
        onnx.SequenceProto: onnx.numpy_helper.to_list,
        onnx.OptionalProto: onnx.numpy_helper.to_optional,
        onnx.TensorProto: onnx.numpy_helper.to_array,
    }
    return readers.get(type(value), lambda same: same)(value)


def run(model, feeds):
    """Returns the outputs of a model in plain onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})


def same(one, other):
    """Whether two outputs have equal types, shapes and, but for rounding, values."""
    if isinstance(one, list) or one is None:
        return type(one) is type(other) and len(one or ()) == len(other or ()) and all(
            same(a, b) for a, b in zip(one or (), other or (), strict=True)
        )  # fmt: skip
    one, other = np.asarray(one), np.asarray(other)
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    inexact = one.dtype.kind in "fc"
    return np.allclose(one, other, 1e-3, 1e-5, equal_nan=True) if inexact else bool((one == other).all())


def outcome(model, inputs):
    """Returns None if onnxruntime does not run the model, else whether it computes the same after clean-up."""
    feeds = {i.name: plain(value) for i, value in zip(model.graph.input, inputs, strict=False)}
    try:
        expected = run(model, feeds)
    except Exception:  # onnxruntime lacks the operator, or this form of it
        return None
    cleaned = onnx.ModelProto()
    cleaned.CopyFrom(model)
    clean_up(cleaned)
    return same(expected, run(cleaned, feeds))


@pytest.mark.parametrize("part", range(PARTS))
def test_outputs_stay_equal(part):
    found = {name: outcome(model, inputs) for name, model, inputs in cases()[part::PARTS]}
    assert [name for name, equal in found.items() if equal is False] == []
    assert sum(equal is not None for equal in found.values()) > LEAST_MODELS / PARTS * 0.8
