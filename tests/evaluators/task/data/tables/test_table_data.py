import numpy as np
import pytest

from evaluators.task.data.tables.table_data import TableData
from evaluators.task.tasks.classes import ClassesTask
from evaluators.task.tasks.regression import RegressionTask
from evaluators.task.tasks.task import Task
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError


def file(tmp_path, n=50, name="data.csv", **columns):
    rng = np.random.default_rng(len(name))
    given = {
        "age": rng.integers(20, 90, n), "height": rng.normal(170, 10, n), "person": [f"p{i // 5}" for i in range(n)],
        "kind": [["no", "yes"][i % 2] for i in range(n)], "weight": rng.normal(70, 9, n), **columns,
    }  # fmt: skip
    lines = [",".join(map(str, row)) for row in zip(*given.values(), strict=True)]
    (tmp_path / name).write_text("\n".join([",".join(given), *lines]))
    return str(tmp_path / name)


class TestTable(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path) -> Task:
        return ClassesTask(TableData("kind", ["age", "height"]), root=file(tmp_path))


class TestNamedInputs(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path) -> Task:
        data = TableData(
            "kind", {"body": ["height", "weight"], "age": ["age"]}, "person", standardise=["body"]
        )
        return ClassesTask(data, root=file(tmp_path))


def test_columns_are_scaled_by_the_training_split(tmp_path):
    splits = RegressionTask(TableData("weight", ["age", "height"]), root=file(tmp_path)).splits()
    np.testing.assert_allclose(splits.train.inputs.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(splits.train.inputs.std(0), 1, atol=1e-6)
    assert abs(splits.test.inputs.mean(0)).max() > 1e-3


def test_a_constant_column_becomes_zero(tmp_path):
    splits = RegressionTask(TableData("weight", ["one"]), root=file(tmp_path, one=[7.1] * 50)).splits()
    assert abs(splits.train.inputs).max() < 1e-9


def test_all_other_columns_are_inputs(tmp_path):
    task = ClassesTask(TableData("kind", group="person"), root=file(tmp_path))
    assert task.input_shape == (3,)


def test_named_inputs_are_whole_numbers_where_they_are_not_scaled(tmp_path):
    data = TableData("kind", {"body": ["height"], "age": ["age"]}, standardise=["body"])
    inputs, _ = next(iter(ClassesTask(data, root=file(tmp_path)).splits().test.batches(9)))
    assert (inputs["age"] == np.floor(inputs["age"])).all()
    assert inputs["age"].min() >= 20
    assert abs(inputs["body"]).max() < 6


def test_several_labels(tmp_path):
    task = RegressionTask(TableData(["weight", "height"], ["age"]), root=file(tmp_path))
    assert task.splits().test.labels.shape[1:] == (2,)


def test_a_column_fixes_the_splits(tmp_path):
    names = ["test"] * 10 + ["train"] * 20 + [""] * 20
    splits = ClassesTask(
        TableData("kind", ["age"], split="part"),
        root=file(tmp_path, part=names),
        validation=12,
        calibration=8,
    ).splits()
    assert [len(s) for s in (splits.test, splits.train, splits.validation, splits.calibration)] == [
        10,
        20,
        12,
        8,
    ]


def test_a_second_file_is_the_test_split(tmp_path):
    data = TableData("kind", ["age"], test_root=file(tmp_path, 14, "other.csv"))
    task = ClassesTask(data, root=file(tmp_path))
    assert len(task.splits().test) == 14
    assert task._examples.place(50).endswith("other.csv, row 1")


def test_lists_of_parquet_are_inputs(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    x = np.arange(60.0).reshape(20, 3)
    parquet.write_table(pa.table({"x": x.tolist(), "y": [0, 1] * 10}), tmp_path / "t.parquet")
    task = ClassesTask(TableData("y", ["x"], standardise=False), root=str(tmp_path / "t.parquet"))
    assert task.input_shape == (3,)
    rows = np.concatenate([s.inputs for s in vars(task.splits()).values()])
    assert sorted(rows[:, 0].tolist()) == x[:, 0].tolist()


@pytest.mark.parametrize(
    ("data", "columns", "message"),
    [
        ({"label": "weight", "inputs": ["kind"]}, {}, r"data\.csv, row 1, column kind: 'no' is not a number"),
        ({"label": "kind", "inputs": ["age"]}, {"age": [*range(49), ""]}, "row 50, column age: the value is missing"),
        ({"label": "kind", "inputs": ["ages"]}, {}, r"data\.csv: Unknown column 'ages'\. Did you mean 'age'\?"),
        ({"label": "kind", "inputs": ["age"], "split": "part"}, {"part": ["test"] * 49 + ["tests"]},
         "row 50, column part: 'tests' is no split"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(tmp_path, data, columns, message):
    with pytest.raises(InputError, match=message):
        ClassesTask(TableData(**data), root=file(tmp_path, **columns)).splits()


def test_a_text_among_the_numbers_to_predict_is_named(tmp_path):
    root = file(tmp_path, weight=[*range(49), "heavy"])
    with pytest.raises(InputError, match=r"data\.csv, row 50: the label 'heavy' is not a number"):
        RegressionTask(TableData("weight", ["age"]), root=root).splits()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": []}, r"task\.data\.inputs must list columns, not \[\]"),
        ({"inputs": {"a": []}}, r"task\.data\.inputs\.a must list columns"),
        ({"standardise": ["a"]}, r"task\.data\.standardise names no input: 'a'"),
    ],
)
def test_impossible_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        TableData("kind", **settings)
