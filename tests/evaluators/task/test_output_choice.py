"""Which output is judged, and outputs of every shape that is one row per example."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluators.runtime import run_split
from evaluators.task.data_fit import check_fit
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec

RNG = np.random.default_rng(0)


class Toy(Task):
    input_shape = (4,)
    metric = Top1()

    def __init__(self, n_classes=3, output=None):
        self.n_classes, self.output = n_classes, output

    def splits(self):
        x = RNG.standard_normal((6, 4)).astype(np.float32)
        split = ArraySplit(x, np.zeros(6, np.int64))
        return Splits(split, split, split, split)


def heads(*sizes, after=(), shape=None):
    """A network with a linear head of each size, named h0, h1, ...; `after` operators follow the first one."""
    weights = {f"w{i}": RNG.standard_normal((4, n)).astype(np.float32) for i, n in enumerate(sizes)}
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"h{i}"]) for i in range(len(sizes))]
    names = [f"h{i}" for i in range(len(sizes))]
    for op in after:
        if shape is not None:
            weights["shape"] = np.array(shape, np.int64)
        inputs = [names[0], "shape"] if op == "Reshape" else [names[0]]
        nodes.append(helper.make_node(op, inputs, [f"{op}_out"]))
        names[0] = f"{op}_out"
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 4])],
        outputs,
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Artifact.onnx(model, InputSpec((4,), "x"))


@pytest.mark.parametrize("shape", [(-1, 3, 1), (-1, 3, 1, 1), (-1, 1, 3), (-1, 1, 1, 3)])
def test_axes_of_one_value_are_squeezed(shape):
    artifact, task = heads(3, after=["Reshape"], shape=shape), Toy()
    fit = check_fit(artifact, task, task.splits())
    outputs, _ = run_split(artifact.judged_by(fit.output), task.splits().validation, 4, 1)
    assert outputs.shape == (6, 3)
    assert fit.notes == ()


@pytest.mark.parametrize(
    ("shape", "text"), [((-1, 2, 3), r"\(6, 2, 3\) for 6"), ((1, -1, 3), r"\(1, 6, 3\) for 6")]
)
def test_other_shapes_are_refused(shape, text):
    artifact = heads(6 if shape[1] == 2 else 3, after=["Reshape"], shape=shape)
    with pytest.raises(InputError, match=text):
        check_fit(artifact, Toy(), Toy().splits())


@pytest.mark.parametrize(
    ("after", "shape", "binary", "text"),
    [
        ([], None, "logit", "above 0, since it ends in no Sigmoid"),
        (["Reshape"], (-1,), "logit", "above 0,"),
        (["Sigmoid"], None, "probability", "above 0.5, since it ends in a Sigmoid"),
        (["Sigmoid", "Reshape"], (-1, 1, 1), "probability", "above 0.5"),
    ],
)
def test_one_output_tells_two_classes_apart(after, shape, binary, text):
    artifact, task = heads(1, after=after, shape=shape), Toy(2)
    splits = task.splits()
    fit = check_fit(artifact, task, splits)
    assert fit.output.binary == binary
    assert text in fit.notes[0]
    (raw, _), (rows, _) = (
        run_split(a, splits.validation, 4, 1) for a in (artifact, artifact.judged_by(fit.output))
    )
    threshold = 0.5 if binary == "probability" else 0
    assert rows.shape == (6, 2)
    np.testing.assert_array_equal(rows.argmax(1), raw[:, 0] > threshold)
    assert 0 < rows.argmax(1).sum() < 6


def test_one_output_is_too_few_for_three_classes():
    with pytest.raises(InputError, match="has 1 outputs, but the task has 3 classes"):
        check_fit(heads(1), Toy(3), Toy().splits())


@pytest.mark.parametrize(
    ("sizes", "output", "taken", "note"),
    [
        ((3, 5), None, "h0", "h0 is judged, because it is the first"),
        ((2, 3), None, "h1", "h1 is judged, because no other one has one value per class"),
        ((5, 3), None, "h1", "h1 is judged, because no other one has one value per class"),
        ((2, 5), None, "h1", "h1 is judged, because no other one fits the task"),
        ((5, 4), None, "h0", "h0 is judged, because it is the first"),
        ((3, 5), "h1", "h1", None),
    ],
)
def test_the_named_the_first_or_the_only_fitting_output_is_judged(sizes, output, taken, note):
    artifact, task = heads(*sizes), Toy(3, output)
    fit = check_fit(artifact, task, task.splits())
    assert (fit.output.name, fit.output.position) == (taken, int(taken[1]))
    assert note is None if not fit.notes else note in fit.notes[0]
    outputs, _ = run_split(artifact.judged_by(fit.output), task.splits().validation, 4, 1)
    assert outputs.shape == (6, sizes[fit.output.position])


def test_an_unclear_or_unknown_output_is_refused():
    with pytest.raises(InputError, match=r"h0 \(6, 1\), h1 \(6, 2\).*none of them.*task.output"):
        check_fit(heads(1, 2), Toy(3), Toy().splits())
    with pytest.raises(InputError, match=r"several of them.*task.output"):
        check_fit(heads(1, 3, 3), Toy(3), Toy().splits())
    with pytest.raises(ConfigError, match=r"task.output: the model has no output 'y', but h0"):
        check_fit(heads(3, 4), Toy(3, "y"), Toy().splits())


def test_sequences_and_class_indices_beside_the_outputs_are_passed_over():
    model = heads(3).proto()
    model.graph.node.append(helper.make_node("SplitToSequence", ["h0"], ["parts"], axis=1))
    model.graph.node.append(helper.make_node("ArgMax", ["h0"], ["label"], axis=1, keepdims=0))
    parts = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    model.graph.output.insert(0, parts)
    model.graph.output.insert(1, helper.make_tensor_value_info("label", TensorProto.INT64, None))
    artifact, task = Artifact.onnx(model, InputSpec((4,), "x")), Toy()
    fit = check_fit(artifact, task, task.splits())
    assert (fit.output.name, fit.output.position) == ("h0", 2)
    outputs, _ = run_split(artifact.judged_by(fit.output), task.splits().validation, 4, 1)
    assert outputs.shape == (6, 3)
    del model.graph.output[1:]
    with pytest.raises(InputError, match="none of the model's outputs is a tensor"):
        check_fit(Artifact.onnx(model, InputSpec((4,), "x")), task, task.splits())
