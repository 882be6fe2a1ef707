import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluators.task.data.splits import Normalise
from evaluators.task.data_fit import check_fit
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import InputError
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec


class Toy(Task):
    input_shape = (4,)
    n_classes = 3
    metric = Top1()

    def splits(self, n_calibration=2):
        split = ArraySplit(np.ones((5, 4), np.float32), np.zeros(5, np.int64), Normalise(scale=1.0))
        return Splits(split, split.subset(np.arange(n_calibration)), split, split)


def linear(n_in=4, n_out=3, batch="batch", value=1.0):
    weight = numpy_helper.from_array(np.full((n_in, n_out), value, np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, n_in])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, n_out])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return Artifact.onnx(model, InputSpec((n_in,), "x"))


def test_a_model_that_fits_passes():
    check_fit(linear(), Toy(), Toy().splits())
    check_fit(linear(n_out=7), Toy(), Toy().splits())


@pytest.mark.parametrize(
    ("artifact", "message"),
    [
        (linear(n_in=5), r"inputs of shape \(5,\).*the task yields \(4,\)"),
        (linear(n_out=2), "has 2 outputs, but the task has 3 classes"),
        (linear(value=np.nan), "not finite"),
        (linear(value=3e38), "not finite"),
        (linear(batch=1), "batches of 1 only"),
        (Artifact.onnx(b"rubbish", InputSpec((4,))), "does not work on the task's inputs"),
    ],
)
def test_a_model_that_does_not_fit_raises(artifact, message):
    with pytest.raises(InputError, match=message):
        check_fit(artifact, Toy(), Toy().splits())


def test_layouts_that_differ_get_a_hint():
    class Images(Toy):
        input_shape = (3, 8, 8)

    artifact = Artifact.onnx(b"", InputSpec((8, 8, 3)))
    with pytest.raises(InputError, match="layout=NHWC"):
        check_fit(artifact, Images(), Toy().splits())

    class Loaded(Images):
        data_settings = "task.data"

    with pytest.raises(InputError, match=r"yields \(3, 8, 8\)\. Set task\.data\.layout=NHWC"):
        check_fit(artifact, Loaded(), Toy().splits())


def test_calibration_needs_examples():
    with pytest.raises(InputError, match=r"calibration split has no examples \(task.calibration\)"):
        check_fit(linear(), Toy(), Toy().splits(0))
