import numpy as np
import pytest

from evaluators.task.data.npz import NpzData
from evaluators.task.data.sklearn_data import SklearnData
from evaluators.task.tasks.embeddings import EmbeddingTask
from evaluators.task.tasks.task import Task
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError


class TestEmbeddings(TaskConformance):
    @pytest.fixture(params=["cosine", "l2"])
    def task(self, request) -> Task:
        return EmbeddingTask(SklearnData("digits"), request.param, validation=60, calibration=20, test=60)

    def outputs(self, task, splits):
        return np.eye(10, dtype=np.float32)[splits.validation.labels]

    def test_metric_prefers_right_outputs(self, task, splits) -> None:
        labels = splits.validation.labels
        right = task.metric.statistics(self.outputs(task, splits), labels).mean(0)
        wrong = task.metric.statistics(np.random.default_rng(0).standard_normal((60, 10)), labels).mean(0)
        assert right[0] > wrong[0]


def test_metrics_are_of_the_distance():
    task = EmbeddingTask(SklearnData("iris"), "l2", metric="recall_at_5")
    assert [m.name for m in (task.metric, *task.others)] == ["recall_at_5", "recall_at_1", "recall_at_10"]
    assert {m.distance for m in (task.metric, *task.others, task.agreement)} == {"l2"}
    assert task.metric.k == 5


def test_outputs_must_be_vectors():
    task = EmbeddingTask(SklearnData("iris"))
    assert task.misfit(np.zeros((8, 16)), 8) is None
    assert task.misfit(np.zeros((8, 16, 1, 1)), 8) is None
    for shape in ((8,), (8, 1), (4, 16)):
        assert "a vector for each is needed" in task.misfit(np.zeros(shape), 8)


def test_bad_settings_and_labels_raise(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.distance must be cosine or l2"):
        EmbeddingTask(SklearnData("iris"), "angle")
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2)), y=[0, 1, -2])
    with pytest.raises(InputError, match=r"data\.npz, example 2: the label -2 is no class"):
        EmbeddingTask(NpzData(), root=str(tmp_path / "data.npz")).splits()
