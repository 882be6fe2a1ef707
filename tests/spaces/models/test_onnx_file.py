from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.onnx.opset import run
from spaces.models.onnx.ort_session import ort_session
from spaces.models.onnx_file import OnnxModel
from spaces.models.testing import ModelSourceConformance

DATA = Path(__file__).parents[3].parent / "shared/data/mlperf_tiny"


def network(
    batch="n", opset=21, size=4, reshape=None, n_inputs=1, n_outputs=1, kind=TensorProto.FLOAT, width=6
):
    """Conv, BatchNormalization, Relu, Reshape, MatMul; a convolution over `width` positions."""
    rng = np.random.default_rng(0)
    arrays = {
        "conv.weight": rng.standard_normal((5, size if size > 0 else 4, 3)),
        **{f"bn.{i}": rng.uniform(0.5, 2, 5) for i in range(4)},
        "fc.weight": rng.standard_normal((30, 3)),
    }
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    tensors = [numpy_helper.from_array(a.astype(dtype), n) for n, a in arrays.items()]
    tensors.append(numpy_helper.from_array(np.array(reshape or [-1, 30]), "shape"))
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["a"], pads=[1, 1]),
        helper.make_node("BatchNormalization", ["a", *(f"bn.{i}" for i in range(4))], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Reshape", ["c", "shape"], ["d"]),
        helper.make_node("MatMul", ["d", "fc.weight"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, [batch, size, width])]
    inputs += [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1]) for i in range(1, n_inputs)]
    outputs = [helper.make_tensor_value_info(n, kind, None) for n in ("y", "d")[:n_outputs]]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def save(folder, **arguments):
    onnx.save(network(**arguments), folder / "net.onnx")
    return str(folder / "net.onnx")


def load(path, *arguments):
    return OnnxModel(str(path), *arguments).load(LoadContext(None, Path()))


class TestDynamicBatch(ModelSourceConformance):
    @pytest.fixture
    def source(self, tmp_path):
        return OnnxModel(save(tmp_path))


class TestFixedBatchOfOne(ModelSourceConformance):
    @pytest.fixture
    def source(self, tmp_path):
        return OnnxModel(save(tmp_path, batch=1, reshape=[1, 30], opset=15))

    def test_export_agrees_with_the_network(self, source, context):
        super().test_export_agrees_with_the_network(source, context)
        assert source.load(context).proto().graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("name", ["ad01_fp32", "kws_ref_model_float32", "pretrainedResnet", "vww_96_float"])
class TestMlperfTiny(ModelSourceConformance):
    @pytest.fixture
    def source(self, name):
        if not (DATA / f"{name}.onnx").is_file():
            pytest.skip("the MLPerf Tiny networks are absent")
        return OnnxModel(str(DATA / f"{name}.onnx"))


def test_the_input_spec_is_that_of_the_file(tmp_path):
    artifact = load(save(tmp_path))
    assert (artifact.kind, artifact.input.shape, artifact.input.name) == ("onnx", (4, 6), "x")


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_fixed_batch_axis_is_made_dynamic(tmp_path, batch):
    path = save(tmp_path, batch=batch, reshape=[batch, 30])
    artifact = load(path)
    x = np.random.default_rng(1).standard_normal((10, 4, 6)).astype(np.float32)
    wanted = np.concatenate([run(onnx.load(path), artifact.input, part) for part in np.split(x, 10 // batch)])
    np.testing.assert_allclose(run(artifact.proto(), artifact.input, x), wanted, rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_axis_of_outputs_with_the_steps_first_is_made_dynamic(tmp_path):
    proto = network(batch=1)
    del proto.graph.node[3:], proto.graph.output[:]
    proto.graph.node.append(helper.make_node("Transpose", ["c"], ["y"], perm=[2, 0, 1]))
    proto.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, 1, 5]))
    onnx.save(proto, tmp_path / "net.onnx")
    artifact = load(tmp_path / "net.onnx")
    assert run(artifact.proto(), artifact.input, artifact.input.noise(3)).shape == (6, 3, 5)
    axes = artifact.proto().graph.output[0].type.tensor_type.shape.dim
    assert [axis.dim_value for axis in axes] == [6, 0, 5]


def test_sizes_below_0_are_open(tmp_path):
    path = save(tmp_path, batch=-1, size=-1, width=-1)
    artifact = load(path, [4, 6])
    assert artifact.input.shape == (4, 6)
    assert run(artifact.proto(), artifact.input, artifact.input.noise(3)).shape == (3, 3)
    with pytest.raises(InputError, match=r"is open \[0, 0\]"):
        load(path)


def test_a_batch_size_that_is_built_into_the_graph_raises(tmp_path):
    # The axes of a batch of 2 are mixed: [2, 5, 6] is reshaped to [4, 15], which fits no other batch size.
    proto = network(batch=2, reshape=[4, 15])
    fc = next(i for i in proto.graph.initializer if i.name == "fc.weight")
    fc.CopyFrom(numpy_helper.from_array(np.ones((15, 3), np.float32), "fc.weight"))
    onnx.save(proto, tmp_path / "net.onnx")
    with pytest.raises(InputError, match="the batch size 2 is built into the graph"):
        load(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            [2, "n", 4],
            r"must be that of the examples, but has an open size in x, 2 in state\. Where it is another one",
        ),
        ([], r"input 'state' is a single number without an axis of examples; make it a constant"),
    ],
)
def test_inputs_whose_first_axis_is_not_the_examples_raise(tmp_path, axes, message):
    proto = network()
    proto.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, axes))
    if axes:  # its first axis is read, and so cannot be opened
        (output,) = proto.graph.output
        proto.graph.node.extend(
            [
                helper.make_node("ReduceMean", ["state"], ["mean"], keepdims=0),
                helper.make_node("Shape", ["state"], ["axes"], end=1),
                helper.make_node("Cast", ["axes"], ["layers"], to=TensorProto.FLOAT),
                helper.make_node("Mul", ["y", "layers"], ["scaled"]),
                helper.make_node("Add", ["scaled", "mean"], ["z"]),
            ]
        )
        output.name = "z"
    onnx.save(proto, tmp_path / "net.onnx")
    shapes = {"x": [4, 6]} if not axes else {"x": [4, 6], "state": [3, 4]}
    with pytest.raises(InputError, match=message):
        load(tmp_path / "net.onnx", shapes)


def test_dynamic_axes_without_an_input_shape_raise(tmp_path):
    path = save(tmp_path, width="width")
    with pytest.raises(InputError, match=r"is open \[4, 0\].*model.input_shape="):
        load(path)
    artifact = load(path, [4, 6])
    assert artifact.input.shape == (4, 6)
    assert artifact.proto().graph.input[0].type.tensor_type.shape.dim[2].dim_value == 6
    with pytest.raises(InputError, match=r"shape \[4, 0\] .*but model.input_shape is \[3, 6\]"):
        load(path, [3, 6])


def test_several_inputs_are_taken_by_name(tmp_path):
    path = save(tmp_path, n_inputs=2, width="width", n_outputs=2)
    with pytest.raises(
        InputError, match=r"inputs x, x1; give a shape for each by name, e\.g\. .*\{x: \[4, 6\]\}"
    ):
        load(path, [4, 6])
    with pytest.raises(ConfigError, match=r"'z' in model\.input_shape"):
        load(path, {"z": [4, 6]})
    spec = load(path, {"x": [4, 6]}).input
    assert [(t.name, t.shape, t.dtype) for t in spec.tensors] == [
        ("x", (4, 6), "float32"),
        ("x1", (), "float32"),
    ]


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_the_element_type_of_the_input_is_kept_but_for_half_precision(tmp_path, kind):
    wanted = "float64" if kind == TensorProto.DOUBLE else "float32"
    assert load(save(tmp_path, kind=kind)).input.dtype == wanted


def test_inputs_that_are_no_numbers_raise(tmp_path):
    text = helper.make_tensor_value_info("x", TensorProto.STRING, ["n", 3])
    node = helper.make_node("Identity", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.STRING, ["n", 3])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [text], [output])), tmp_path / "text.onnx")
    with pytest.raises(InputError, match="input 'x' must be a tensor of numbers"):
        load(tmp_path / "text.onnx")


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_float16_file_becomes_float32_with_a_note(tmp_path, batch):
    path = save(tmp_path, kind=TensorProto.FLOAT16, batch=batch)
    artifact = load(path)
    assert (
        "net.onnx has float16 or bfloat16 tensors, which were converted to float32" in artifact.notes["model"]
    )
    x = np.random.default_rng(1).standard_normal((1, 4, 6)).astype(np.float32)
    (wanted,) = ort_session(onnx.load(path)).run(None, {"x": x.astype(np.float16)})
    np.testing.assert_allclose(run(artifact.proto(), artifact.input, x), wanted, atol=0.05)
    assert load(save(tmp_path)).notes == {}


def test_missing_and_invalid_files_raise(tmp_path):
    (tmp_path / "table.onnx").write_text("a,b\n1,2\n")
    (tmp_path / "empty.onnx").write_bytes(b"")
    np.savez(tmp_path / "arrays.onnx", x=np.zeros(3))
    (tmp_path / "arrays.onnx.npz").rename(tmp_path / "arrays.onnx")
    for name in ("table.onnx", "empty.onnx", "arrays.onnx", "absent.onnx"):
        with pytest.raises(InputError, match=name):
            load(tmp_path / name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 0.999))
def test_truncated_files_raise(tmp_path, share):
    data = network().SerializeToString()
    path = tmp_path / "net.onnx"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"net\.onnx"):
        load(path)


def test_a_missing_external_weight_file_raises(tmp_path):
    onnx.save(
        network(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0
    )
    assert load(tmp_path / "net.onnx").input.shape == (4, 6)
    (tmp_path / "net.data").unlink()
    with pytest.raises(InputError, match=r"net\.onnx"):
        load(tmp_path / "net.onnx")


@pytest.mark.parametrize("place", ["../secret", "absolute", "link", "sub/../../secret"])
def test_external_weights_of_another_folder_are_not_read(tmp_path, place):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 4096)
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(secret)
    proto = network()
    for tensor in proto.graph.initializer:
        size = len(tensor.raw_data)
        onnx.external_data_helper.set_external_data(
            tensor, str(secret) if place == "absolute" else place, 0, size
        )
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"net\.onnx is no valid ONNX model"):
        load(folder / "net.onnx")
