from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from evaluators.task.data.series.series_data import MadeSeries, SeriesData
from evaluators.task.tasks.classes import ClassesTask
from evaluators.task.tasks.forecast import ForecastTask
from evaluators.task.tasks.regression import RegressionTask
from evaluators.task.tasks.task import Task
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError

NAMES = ("train", "calibration", "validation", "test")


def clock(tmp_path, n=300, n_series=1):
    """A file whose column t is the time, and v its square root."""
    lines = ["t,v,which"]
    lines += [f"{t},{t**0.5},s{s}" for s in range(n_series) for t in range(n)]
    (tmp_path / "clock.csv").write_text("\n".join(lines))
    return str(tmp_path / "clock.csv")


def states(tmp_path, n_series=8, n=120):
    """Series with a class for each step, 0 or 1 for 20 steps in turn."""
    y = np.tile((np.arange(n) // 20) % 2, (n_series, 1))
    x = y[..., None] + np.random.default_rng(0).standard_normal((n_series, n, 3))
    np.savez(tmp_path / "states.npz", x=x.astype(np.float32), state=y)
    return str(tmp_path / "states.npz")


class TestForecast(TaskConformance):
    @pytest.fixture
    def task(self) -> Task:
        return ForecastTask(MadeSeries(2, 400, window=12, horizon=3, stride=2))

    def outputs(self, task, splits):
        return splits.validation.labels


class TestClassesOfWindows(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path) -> Task:
        data = SeriesData(window=8, stride=4, label="state", divide="series")
        return ClassesTask(data, root=states(tmp_path), calibration=1, validation=2, test=2)


@pytest.mark.parametrize("n_series", [1, 3])
@pytest.mark.parametrize("gap", [0, 7])
@pytest.mark.parametrize(("window", "horizon", "stride"), [(6, 1, 1), (10, 4, 3), (3, 5, 2)])
def test_no_window_of_a_split_overlaps_a_target_of_another(tmp_path, n_series, gap, window, horizon, stride):
    data = SeriesData(
        window, horizon, stride, ["t"], series="which" if n_series > 1 else None, gap=gap, standardise=False
    )
    splits = RegressionTask(data, root=clock(tmp_path, n_series=n_series)).splits()
    times = {}
    for name in NAMES:
        split = getattr(splits, name)
        assert split.inputs.shape[1:] == (1, window)
        assert split.labels.shape[1:] == (horizon, 1)
        np.testing.assert_array_equal(split.labels[:, 0, 0], split.inputs[:, 0, -1] + 1)
        seen, forecast = ({*array.reshape(-1).tolist()} for array in (split.inputs, split.labels))
        times[name] = seen | forecast
    for one, other in permutations(NAMES, 2):
        assert not times[one] & times[other]
        if NAMES.index(one) < NAMES.index(other):
            assert max(times[one]) + gap < min(times[other])


def test_series_as_groups_are_not_divided(tmp_path):
    data = SeriesData(8, 2, columns=["v"], series="which", divide="series")
    task = ForecastTask(data, root=clock(tmp_path, 40, 8), calibration=1, validation=2, test=2)
    assert {name: len(split) for name, split in vars(task.splits()).items()} == {
        "train": 3 * 31, "calibration": 31, "validation": 2 * 31, "test": 2 * 31,
    }  # fmt: skip


def test_windows_do_not_cross_from_one_series_to_the_next(tmp_path):
    data = SeriesData(8, 2, columns=["t"], series="which", standardise=False)
    windows = RegressionTask(data, root=clock(tmp_path, 60, 3))._examples.split.inputs
    assert len(windows) == 3 * 51
    assert (np.diff(windows[:, 0], axis=1) == 1).all()


def test_other_columns_are_forecast(tmp_path):
    data = SeriesData(5, 2, columns=["t"], target=["v"], standardise=False)
    examples = ForecastTask(data, root=clock(tmp_path))._examples
    np.testing.assert_allclose(examples.labels[10, :, 0], np.sqrt([15, 16]), rtol=1e-6)
    np.testing.assert_allclose(examples.naive[10, :, 0], np.sqrt([14, 14]), rtol=1e-6)


def test_columns_are_scaled_by_the_training_split(tmp_path):
    task = ForecastTask(SeriesData(5, 2, columns=["v"]), root=clock(tmp_path))
    splits = task.splits()
    np.testing.assert_allclose([splits.train.inputs.mean(), splits.train.inputs.std()], [0, 1], atol=1e-5)
    assert abs(splits.train.labels).mean() < 2
    assert splits.test.labels.min() > 1  # the series rises


@pytest.mark.parametrize(("columns", "target"), [(["v"], None), (["t", "v"], ["v"]), (["t"], ["v"])])
def test_what_is_forecast_is_scaled_as_the_input_of_its_name(tmp_path, columns, target):
    task = ForecastTask(SeriesData(5, 2, columns=columns, target=target), root=clock(tmp_path))
    examples, parts = task._ready
    if "v" in columns:
        np.testing.assert_allclose(
            examples.naive[:, 0, 0], examples.split.inputs[:, columns.index("v"), -1], rtol=1e-5
        )
    else:
        assert abs(examples.labels[parts["train"]].mean()) < 0.1


def test_windows_have_the_class_of_all_their_steps(tmp_path):
    data = SeriesData(window=8, stride=4, label="state", standardise=False)
    examples = ClassesTask(data, root=states(tmp_path))._examples
    assert len(examples.labels) == 8 * 6 * 4
    starts = examples.spans[:, 0]
    assert {*(starts % 20).tolist()} == {0, 4, 8, 12}
    np.testing.assert_array_equal(examples.labels, (starts // 20) % 2)


def test_the_naive_forecast_is_rated():
    task = ForecastTask(MadeSeries(2, 400, window=12, horizon=3, stride=2), unit="σ")
    split = task.splits().validation
    naive = np.repeat(split.inputs[:, :, -1:], 3, axis=1)
    mae = np.abs(naive * 1.0 - split.labels).mean()
    (note,) = task.notes()
    assert "the naive forecast, which repeats the last value, has mase " in note
    assert float(note.split("mae ")[1].split(" ")[0]) == pytest.approx(mae, rel=1e-3)
    assert " σ" in note


def test_mase_is_one_for_the_naive_forecast_on_the_training_split():
    task = ForecastTask(MadeSeries(2, 400, window=12, horizon=3, stride=2))
    examples, parts = task._ready
    rows = parts["train"]
    assert task.metric.per_example(examples.naive[rows], examples.labels[rows]).mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, r"task\.data\.window must be at least 1"),
        ({"window": 4, "horizon": 0}, r"task\.data\.horizon must be at least 1"),
        ({"window": 4, "gap": -1}, r"task\.data\.gap must be at least 0"),
    ],
)
def test_impossible_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        SeriesData(**settings)


def test_a_split_that_overlaps_its_neighbours_altogether_raises(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.validation=0\.2: none of its examples is left"):
        RegressionTask(SeriesData(50, 5, columns=["v"]), root=clock(tmp_path)).splits()


@pytest.mark.parametrize(
    ("line", "settings", "message"),
    [
        ("9,,s0", {}, r"clock\.csv, row 31, column v: the value is missing"),
        ("9,x,s0", {}, r"clock\.csv, row 31, column v: 'x' is not a number"),
        ("9,1,s0", {"columns": ["u"]}, r"clock\.csv: Unknown column 'u'"),
        (
            "9,1,s0",
            {"window": 40},
            r"clock\.csv: no series gives a window: the longest has 31 steps, but .* take 41",
        ),
        ("9,1,s0", {"columns": ["v"], "series": "who"}, r"clock\.csv: Unknown column 'who'"),
    ],
)
def test_bad_tables_raise(tmp_path, line, settings, message):
    path = clock(tmp_path, 30)
    with Path(path).open("a") as file:
        file.write("\n" + line)
    with pytest.raises(InputError, match=message):
        RegressionTask(SeriesData(**{"window": 4, "series": "which", **settings}), root=path).splits()


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({"x": np.zeros((2, 2, 2, 2))}, {}, r"x must be numbers \(n_steps, columns\)"),
        ({"x": np.array([[0.0], [np.nan]])}, {}, r"step 1, column 0: the value is not finite"),
        ({"x": np.zeros((9, 2))}, {"columns": [2]}, r"Unknown column '2'\. .*Known: 0, 1"),
        (
            {"x": np.zeros((9, 2)), "y": np.zeros(8)},
            {"label": "y"},
            r"y has shape \(8,\), but x has \(1, 9\)",
        ),
        ({"x": np.zeros((9, 2))}, {"label": "y"}, "has no array 'y'"),
    ],
)
def test_bad_arrays_raise(tmp_path, arrays, settings, message):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(InputError, match=message):
        RegressionTask(SeriesData(2, **settings), root=str(tmp_path / "s.npz")).splits()


def test_a_constant_series_has_no_scaled_error(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.ones(200))
    with pytest.raises(InputError, match="the last value is always an exact forecast"):
        _ = ForecastTask(SeriesData(2), root=str(tmp_path / "s.npz")).metric


def test_other_loaders_give_no_naive_forecast(tmp_path):
    from evaluators.task.data.sklearn_data import SklearnData

    with pytest.raises(InputError, match="the loader gives no naive forecast"):
        ForecastTask(SklearnData("diabetes")).splits()
