"""Conformance tests of tasks: a new task's test class inherits `TaskConformance` and supplies the `task` fixture."""

import pickle
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.metric import Outputs, direction_of, sign_of
from evaluators.task.statistics.scores import Judge, is_pooled, statistics_of, value_of
from evaluators.task.tasks.task import Splits, Task
from spaces.stages.array_split import label_bytes
from spaces.stages.artifact import Split
from spaces.stages.inputs import Inputs, each, joined_inputs, parts_of
from spaces.task_losses import IGNORED

NAMES = ("train", "calibration", "validation", "test")


class TaskConformance:
    """Inherit it in a test module::

        class TestMyTask(TaskConformance):
            @pytest.fixture
            def task(self) -> Task:
                return MyTask(...)

    The task's examples should differ from one another, or disjointness cannot be tested.
    """

    @pytest.fixture
    def task(self) -> Task:
        """Returns the task under test."""
        raise NotImplementedError("supply a fixture `task` that returns the task")

    @pytest.fixture
    def splits(self, task: Task) -> Splits:
        """Returns the task's splits."""
        return self.loaded(task)

    def loaded(self, task: Task) -> Splits:
        """Loads the splits; a task whose labels are a network's outputs overrides it."""
        return task.splits()

    def test_splits_are_disjoint(self, splits: Splits) -> None:
        """No example is in two splits."""
        examples = {name: set(_rows(getattr(splits, name))) for name in NAMES}
        for one, other in combinations(NAMES, 2):
            assert not examples[one] & examples[other], f"{one} and {other} share examples"

    def test_calibration_validation_and_test_splits_have_examples(self, splits: Splits) -> None:
        """Only the train split may be empty."""
        assert all(len(getattr(splits, name)) > 0 for name in NAMES[1:])

    def test_shapes_and_dtypes(self, task: Task, splits: Splits) -> None:
        """Inputs are `(n, *input_shape)` float32 or whole numbers and finite; classes are `(n,)` int64 in `[0, n_classes)`."""
        shapes = task.input_shape if isinstance(task.input_shape, Mapping) else {"": task.input_shape}
        for name in NAMES:
            split = getattr(splits, name)
            inputs, labels = _all(split)
            arrays = inputs if isinstance(inputs, Mapping) else {"": inputs}
            assert all(len(array) == len(labels) == len(split) for array in arrays.values())
            if len(split):
                assert {key: array.shape[1:] for key, array in arrays.items()} == dict(shapes)
                for array in arrays.values():
                    assert array.dtype == np.float32 or array.dtype.kind in "iub"
                    assert np.isfinite(array).all()
                if not task.whole_outputs:
                    assert labels.dtype == np.int64
                    assert labels.min() >= (IGNORED if name == "calibration" else 0)  # it may lack labels
                    assert labels.max() < (task.n_classes or 1)

    def test_batches_are_deterministic_whatever_their_size(self, splits: Splits) -> None:
        """The same examples come in the same order, in batches of any size."""
        inputs, labels = _all(splits.validation, 3)
        again, labels_again = _all(splits.validation, len(splits.validation) + 1)
        _assert_equal(inputs, again)
        assert label_bytes(labels) == label_bytes(labels_again)

    def test_limit_takes_the_first(self, splits: Splits) -> None:
        """`limit` cuts the sequence, within a batch if need be."""
        n = min(5, len(splits.validation))
        inputs, labels = _all(splits.validation, 2, limit=n)
        assert len(labels) == n
        _assert_equal(inputs, each(lambda array: array[:n], _all(splits.validation)[0]))

    def test_splits_survive_pickling(self, splits: Splits) -> None:
        """A worker process sees the same examples under the same digest."""
        for name in NAMES:
            split = getattr(splits, name)
            copy = pickle.loads(pickle.dumps(split))  # noqa: S301 (our own bytes)
            assert copy.digest == split.digest
            _assert_equal(_all(copy)[0], _all(split)[0])

    def test_each_group_is_in_one_split(self, task: Task, splits: Splits) -> None:
        """Where examples come in groups, each has one, and no group is in two splits."""
        seen: set[Any] = set()
        for name, groups in task.groups().items():
            assert groups.shape == (len(getattr(splits, name)),)
            assert seen.isdisjoint(groups.tolist())
            seen |= set(groups.tolist())

    def test_digests_are_distinct_and_stable(self, task: Task, splits: Splits) -> None:
        """Loading again gives the same digests; splits with other examples have other digests."""
        again = self.loaded(task)
        assert all(getattr(again, name).digest == getattr(splits, name).digest for name in NAMES)
        assert len({getattr(splits, name).digest for name in NAMES}) == len(NAMES)

    def test_labels_are_equal_whenever_they_are_read(self, task: Task, splits: Splits) -> None:
        """Loading again gives the same labels, ragged ones too."""
        assert label_bytes(_all(self.loaded(task).validation)[1]) == label_bytes(_all(splits.validation)[1])

    def test_metrics_have_a_name_a_direction_and_a_value(self, task: Task, splits: Splits) -> None:
        """Every metric gives one row per example for outputs of the right shape, and a finite value with an interval."""
        outputs, labels = self.outputs(task, splits), _all(splits.validation)[1]
        for metric in (task.metric, *task.others):
            assert direction_of(metric) in ("maximize", "minimize")
            estimate = Judge(metric, None, 0.95, 50).value(statistics_of(metric, outputs, labels))
            assert np.isfinite(estimate.value)
            low, high = estimate.interval or (estimate.value, estimate.value)
            assert low <= estimate.value <= high

    def test_metric_prefers_right_outputs(self, task: Task, splits: Splits) -> None:
        """Outputs that agree with the labels are better than outputs that belong to other examples."""
        if task.whole_outputs:
            right, labels = self.outputs(task, splits), _all(splits.validation)[1]
            wrong = each(lambda array: np.roll(array, 1, axis=0), right)
            values = [value_of(task.metric, statistics_of(task.metric, o, labels)) for o in (right, wrong)]
            assert sign_of(task.metric) * (values[0] - values[1]) > 0
            return
        labels = np.arange(task.n_classes or 1)
        right = np.eye(task.n_classes or 1, dtype=np.float32)
        if is_pooled(task.metric):
            values = [
                value_of(task.metric, statistics_of(task.metric, o, labels))
                for o in (right, np.roll(right, 1, axis=1))
            ]
            assert sign_of(task.metric) * (values[0] - values[1]) > 0
            return
        scores, shifted = (statistics_of(task.metric, o, labels) for o in (right, np.roll(right, 1, axis=1)))
        assert scores.shape == labels.shape
        assert (sign_of(task.metric) * (scores - shifted) > 0).all()

    def outputs(self, task: Task, splits: Splits) -> Outputs:
        """Returns outputs that are right for all validation examples; a task whose outputs are no classes overrides it."""
        assert not task.whole_outputs, "override `outputs`: right outputs for the validation examples"
        labels = _all(splits.validation)[1]
        right: Outputs = np.eye(task.n_classes or 1, dtype=np.float32)[labels]
        return right


def _all(split: Split, batch_size: int = 64, limit: int | None = None) -> tuple[Inputs, NDArray[Any]]:
    batches = list(split.batches(batch_size, limit))
    if not batches:
        return np.empty((0,), np.float32), np.empty((0,), np.int64)
    return joined_inputs([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def _rows(split: Split) -> Iterator[bytes]:
    for x, _ in split.batches(1):
        yield b"".join(array.tobytes() for array in parts_of(x))


def _assert_equal(some: Inputs, others: Inputs) -> None:
    for one, other in zip(parts_of(some), parts_of(others), strict=True):
        np.testing.assert_array_equal(one, other)
