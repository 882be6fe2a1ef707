import numpy as np
import pytest
from onnx import TensorProto, helper

from evaluators.runtime import reference_outputs
from evaluators.task.data.npz import NpzData
from evaluators.task.data.sequences.digit_rows import DigitRowsData
from evaluators.task.data_fit import check_fit
from evaluators.task.tasks.sequences.step_classes import StepClassesTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError
from spaces.stages.artifact import Artifact, InputSpec


class TestStepClasses(TaskConformance):
    @pytest.fixture
    def task(self):
        return StepClassesTask(DigitRowsData("columns", rows=4))

    def outputs(self, task, splits):
        return np.eye(11, dtype=np.float32)[np.maximum(splits.validation.labels, 0)]


def task_of(path, labels, **settings):
    np.savez(path, x=np.zeros((len(labels), 4, 2)), y=np.asarray(labels))
    return StepClassesTask(NpzData(), root=str(path), calibration=1, validation=2, test=1, **settings)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros(6, int), r"labels must be whole numbers \(n, steps\)"),
        (np.zeros((6, 4)), "not float64"),
        (
            [[0, 1, 2, -1]] * 5 + [[0, 1, -2, 0]],
            r"example 5: the class -2 of step 2 is neither -1 nor in 0\.\.2",
        ),
        ([[0, 1, 2, -1]] * 5 + [[-1] * 4], r"example 5: no step has a label"),
    ],
)
def test_wrong_labels_raise(labels, match, tmp_path):
    with pytest.raises(InputError, match=match):
        task_of(tmp_path / "a.npz", labels).splits()


def test_classes_beyond_the_declared_number_raise(tmp_path):
    with pytest.raises(InputError, match=r"example 0: the class 2 of step 2 is neither -1 nor in 0\.\.1"):
        task_of(tmp_path / "a.npz", [[0, 1, 2, -1]] * 6, n_classes=2).splits()
    with pytest.raises(ConfigError, match=r"task\.n_classes"):
        StepClassesTask(NpzData(), n_classes=1)


def test_outputs_of_unequal_length_are_refused(tmp_path):
    task = task_of(tmp_path / "a.npz", [[0, 1, 2, -1]] * 6)
    assert task.misfit(np.zeros((6, 4, 3)), 6) is None
    assert task.misfit(np.zeros((6, 4, 5)), 6) is None
    for shape in ((6, 5, 3), (6, 4, 2), (6, 3), (4, 6, 3)):
        assert "the labels need (6, 4, 3)" in task.misfit(np.zeros(shape), 6)


def test_outputs_with_the_steps_first(tmp_path):
    network = helper.make_graph(
        [helper.make_node("Transpose", ["x"], ["steps"], perm=[2, 0, 1])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4])],
        [helper.make_tensor_value_info("steps", TensorProto.FLOAT, [4, "n", 3])],
    )
    proto = helper.make_model(network, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    labels = np.arange(24).reshape(6, 4) % 3
    np.savez(tmp_path / "a.npz", x=np.moveaxis(np.eye(3)[labels], 2, 1), y=labels)
    settings = {"root": str(tmp_path / "a.npz"), "calibration": 1, "validation": 2, "test": 1}
    task = StepClassesTask(NpzData(layout="NHWC"), **settings)
    artifact = Artifact.onnx(proto, InputSpec((3, 4), "x"))
    with pytest.raises(InputError, match=r"task\.time_first=true is for outputs"):
        check_fit(artifact, task, task.splits())
    task = StepClassesTask(NpzData(layout="NHWC"), time_first=True, **settings)
    model = artifact.judged_by(check_fit(artifact, task, task.splits()).output)
    outputs = reference_outputs(model, task.splits().validation, batch_size=2)
    counted = task.metric.statistics(outputs, task.splits().validation.labels)
    assert task.metric.pooled(counted, np.ones(2)) == 1
