"""Windows of time series: to forecast what follows, or to tell what is going on in them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import Data, Examples, needed_root
from evaluators.task.data.series.windows import Series, Values, cut, read_series, starts
from evaluators.task.data.tables.scaling import Scaling
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit, Indices

Divide = Literal["time", "series"]


class SeriesData(Data):
    """Cuts the series of an `.npz`, CSV, TSV or Parquet file into windows, `(columns, window)` as inputs.

    With `label` a window's label is the class of its steps; windows in which it changes are left out. Otherwise the label is what
    the target columns hold in the `horizon` steps after the window, `(horizon, targets)`, and the naive forecast repeats their last
    values.

    Args:
        window: Steps of a window.
        horizon: Steps that are forecast; without effect if there is a `label`.
        stride: Steps from one window to the next.
        columns: Columns of the inputs, by name, or by number in an `.npz` file; None takes all.
        target: Columns that are forecast; None takes those of the inputs.
        label: Column (in an `.npz` file: array) with a class for each step; None forecasts.
        series: Column that tells the series of each row; None takes a table as one series.
        divide: `time`: test windows are the latest ones, and no window or what it forecasts overlaps one of another split; `series`:
            no series is divided between splits, and sizes count series.
        gap: Steps that are left out between two splits of `time`.
        standardise: Whether each column, forecast ones too, is scaled to mean 0 and deviation 1 of the training split.
    """

    def __init__(
        self,
        window: int,
        horizon: int = 1,
        stride: int = 1,
        columns: Sequence[str | int] | None = None,
        target: Sequence[str | int] | None = None,
        label: str | None = None,
        series: str | None = None,
        divide: Divide = "time",
        gap: int = 0,
        standardise: bool = True,
    ) -> None:
        for name, value, least in (
            ("window", window, 1),
            ("horizon", horizon, 1),
            ("stride", stride, 1),
            ("gap", gap, 0),
        ):
            if value < least:
                raise ConfigError(f"task.data.{name} must be at least {least}, not {value}")
        self._window, self._stride, self._gap = window, stride, gap
        self._horizon = 0 if label is not None else horizon
        self._columns = None if columns is None else [str(name) for name in columns]
        self._names: list[str] = []  # of the input columns, once they are read
        self._target = None if target is None else [str(name) for name in target]
        self._label, self._series, self._divide, self._standardise = label, series, divide, standardise

    def series(self, root: Path | None) -> tuple[list[Series], str]:
        """Returns all series, and what was read.

        Raises:
            InputError: The file is missing, damaged or of another format, or a value is missing or no number.
        """
        path = needed_root(root, "an .npz, .csv, .tsv or .parquet file")
        both = None if self._columns is None else [*dict.fromkeys([*self._columns, *(self._target or [])])]
        return read_series(path, both, self._label, self._series), str(path)

    def read(self, root: Path | None) -> Examples:
        """Returns all windows.

        Raises:
            InputError: The file is missing, damaged or of another format, a value is missing or no number, or no series is as long
                as a window and what it forecasts.
        """
        all_series, folder = self.series(root)
        self._names = self._columns or [name for name in all_series[0].columns if name != self._label]
        try:
            found = [self._windows(series) for series in all_series]
        except InputError as error:
            raise InputError(f"{folder}: {error}") from error
        windows, labels, naive, first = (np.concatenate([part[i] for part in found]) for i in range(4))
        length = self._window + self._horizon
        if not len(windows):
            longest = max(len(series.rows) for series in all_series)
            raise InputError(
                f"{folder}: no series gives a window: the longest has {longest} steps, but task.data.window and task.data.horizon "
                f"take {length}" + (" (of one class)" if self._label is not None else "")
            )
        names = np.repeat([series.name for series in all_series], [len(part[0]) for part in found])
        where = [
            _place(folder, name, start) for name, start in zip(names.tolist(), first.tolist(), strict=True)
        ]
        by_time = self._divide == "time"
        return Examples(
            ArraySplit(windows, labels, Scaling.none(windows.shape[2], channels_first=True)),
            None if by_time else names,
            where,
            folder=folder,
            spans=np.stack([first, first + length], axis=1) if by_time else None,
            gap=self._gap,
            naive=None if self._label is not None else naive,
        )

    def fitted(self, examples: Examples, train: Indices) -> Examples:
        """Returns the windows, and what is forecast, scaled by the training split."""
        split = examples.split
        assert isinstance(split, ArraySplit)
        if not self._standardise:
            return examples
        raw = np.asarray(split.raw[:])
        scaling = Scaling.of(raw[train].astype(np.float64), channels_first=True)
        if examples.naive is None:
            return replace(examples, split=replace(split, transform=scaling))
        of_labels = self._of_targets(
            scaling,
            Scaling.of(np.concatenate([split.labels[train], examples.naive[train]]).astype(np.float64)),
        )
        scaled = replace(split, labels=of_labels(split.labels), transform=scaling)
        return replace(examples, split=scaled, naive=of_labels(examples.naive))

    def _of_targets(self, of_inputs: Scaling, of_targets: Scaling) -> Scaling:
        """Returns the scaling of what is forecast: a column that is an input, too, is scaled as that is."""
        pairs = [
            (of_inputs, self._names.index(name)) if name in self._names else (of_targets, i)
            for i, name in enumerate(self._target or self._names)
        ]
        return Scaling(tuple(s.mean[i] for s, i in pairs), tuple(s.std[i] for s, i in pairs))

    def _windows(self, series: Series) -> tuple[Values, Values, Values, Indices]:
        """Returns windows `(n, window, columns)`, labels, the naive forecasts, and the first step of each."""
        columns = self._names
        values = series.values(columns).astype(np.float32)
        first = starts(len(values), self._window + self._horizon, self._stride)
        if not len(first):
            n_targets = len(self._target or columns)
            empty = np.empty((0, self._horizon, n_targets), np.float32)
            labels = empty if self._label is None else np.empty(0, series.columns[self._label].dtype)
            return np.empty((0, self._window, len(columns)), np.float32), labels, empty, first
        if self._label is not None:
            return self._classes(values, series.columns[self._label], first)
        targets = series.values(self._target or columns).astype(np.float32)
        later = first + self._window
        labels = cut(targets, later, self._horizon)
        naive = np.repeat(targets[later - 1][:, None], self._horizon, axis=1)
        return cut(values, first, self._window), labels, naive, first

    def _classes(
        self, values: Values, classes: NDArray[Any], first: Indices
    ) -> tuple[Values, Values, Values, Indices]:
        steps = first[:, None] + np.arange(self._window)
        kept = first[(classes[steps] == classes[first][:, None]).all(axis=1)]
        windows = (
            cut(values, kept, self._window)
            if len(kept)
            else np.empty((0, self._window, values.shape[1]), np.float32)
        )
        return windows, classes[kept], np.empty((len(kept), 0, 0), np.float32), kept


def _place(folder: str, name: str, start: int) -> str:
    return f"{folder}{f', series {name}' if name else ''}, the window from row {start + 1} on"


class MadeSeries(SeriesData):
    """Series that are computed, so that nothing has to be downloaded: a daily and a weekly rhythm, a drift, and correlated noise, hour by hour.

    Args:
        n_series: Number of series.
        hours: Length of each.
        seed: Seed of the noise.
        **settings: Those of `SeriesData`.
    """

    def __init__(self, n_series: int = 3, hours: int = 2000, seed: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        if n_series < 1 or hours < 1:
            raise ConfigError("task.data.n_series and task.data.hours must be at least 1")
        self._n_series, self._hours, self._seed = n_series, hours, seed

    def series(self, root: Path | None) -> tuple[list[Series], str]:
        """Returns the series; each has the one column `load`."""
        rng = np.random.default_rng(self._seed)
        return [
            Series(str(i), self._made(rng), np.arange(self._hours)) for i in range(self._n_series)
        ], "made series"

    def _made(self, rng: np.random.Generator) -> Mapping[str, Values]:
        hours = np.arange(self._hours)
        day, week = (2 * np.pi * (hours / period + rng.random()) for period in (24, 168))
        rhythm = 10 * np.sin(day) + 4 * np.sin(2 * day + rng.random()) + 5 * np.sin(week)
        noise = np.zeros(self._hours)
        for t, step in enumerate(rng.standard_normal(self._hours)):
            noise[t] = 0.8 * noise[t - 1] + step
        return {"load": 50 + rhythm + 0.002 * hours + noise}
