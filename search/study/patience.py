"""The stopping rule `study.patience`, and the sentences that report it."""

from collections.abc import Callable, Sequence

import numpy as np

from evaluators.column import Column
from search.record.results import Objective, TrialRecord
from search.samplers.acquisition.gain import Forecast

VOLUME_SHARE = 0.01  # a front whose hypervolume grows by less than this share counts as unchanged
_RANGE_SHARE = 0.01  # of the distance from the median trial to the best
_K = 20  # number of trials that are forecast where `study.patience` is not set
_NORMAL = 1.96  # standard errors from the centre to the end of a 95 % interval
_POINTS = {"%": "points"}  # a difference of percentages is in points


def why_stop(
    patience: int | None,
    without_progress: int,
    forecast: Forecast | None = None,
    tolerance: float = 0.0,
    name: str = "",
    unit: str = "",
) -> str:
    """Returns why a study should stop, as text, or an empty string if it should go on.

    It stops after more than `patience` trials without progress, whatever the sampler. Where the sampler has a forecast it stops
    earlier: as soon as another `patience` trials would, with 95 % probability, gain less than the tolerance.

    Args:
        patience: `study.patience`; None never stops.
        without_progress: Trials since the last one that improved the front (or the best).
        forecast: Gain of the next `patience` trials; None if the sampler has no forecast.
        tolerance: Smallest gain that counts, in the unit of the objective (see `tolerance`). For a forecast
            of the hypervolume it is 1 % instead.
        name: The objective, e.g. `top1`.
        unit: Its unit, e.g. `%`.
    """
    if patience is None:
        return ""
    if without_progress > patience:
        return f"no progress in {patience} trials (study.patience)"
    if forecast is None:
        return ""
    least = VOLUME_SHARE if forecast.axis is None else tolerance
    if forecast.gain.bound > least:
        return ""
    return f"{in_words(forecast, name, unit)}, less than the {_amount(forecast, least, name, unit)} that count (study.patience)"


def in_words(forecast: Forecast, name: str = "", unit: str = "") -> str:
    """Returns a forecast as text: "another 20 trials would gain at most 0.05 points of top1 (95 % sure)".

    Args:
        forecast: The forecast.
        name: The objective whose gain is forecast, e.g. `top1`.
        unit: Its unit, e.g. `%`.
    """
    unbounded = (
        forecast.axis is None and forecast.gain.bound > 1
    )  # a front that may double: the model has too few observations
    if unbounded or not np.isfinite(forecast.gain.bound):
        return f"the gain of another {forecast.k} trials cannot be predicted yet"
    trials = "another trial" if forecast.k == 1 else f"another {forecast.k} trials"
    amount = _amount(forecast, forecast.gain.bound, name, unit)
    return f"{trials} would gain at most {amount} (95 % sure)"


def _amount(forecast: Forecast, value: float, name: str, unit: str) -> str:
    if forecast.axis is None:
        return f"{_number(100 * value)} % of the front's hypervolume"
    parts = (_number(value), _POINTS.get(unit, unit), f"of {name}" if name else "")
    return " ".join(part for part in parts if part)


def _number(value: float) -> str:
    """Returns the number with two significant digits, rounded up because it is reported as an upper bound."""
    if value <= 0:
        return "0"
    if value >= 100:
        return f"{np.ceil(value):,.0f}"
    digits = 10.0 ** (np.floor(np.log10(value)) - 1)
    # 1e-9 keeps a rounding error from turning 0.05 into 0.051
    return f"{np.ceil(value / digits - 1e-9) * digits:.2g}"


def tolerance(values: Sequence[float], standard_error: float | None = None) -> float:
    """Returns the largest gain on the first objective that does not count as progress, in its unit.

    It is the larger of the metric's standard error, below which two candidates are indistinguishable, and 1 %
    of the distance from the median trial to the best.

    Args:
        values: The objective of every complete trial, negated where it is minimised.
        standard_error: Of the best trial's metric; None if it has none (a size, a modelled latency).
    """
    finite = np.array([v for v in values if np.isfinite(v)])
    spread = float(np.max(finite)) - float(np.median(finite)) if len(finite) else 0.0
    return max(_RANGE_SHARE * spread, standard_error or 0.0)


class Patience:
    """The stopping rule of one study.

    Args:
        patience: `study.patience`.
        main: The first objective.
    """

    def __init__(self, patience: int | None, main: Objective) -> None:
        self._patience, self._main = patience, main
        self._answer: tuple[int, str] = (-1, "")  # number of trials, and why the study should stop after them

    def why_stop(
        self, records: Sequence[TrialRecord], progress_at: int, forecast: Callable[[int], Forecast | None]
    ) -> str:
        """Returns why the study should stop, or an empty string; forecasts at most once per trial.

        Args:
            records: All trials.
            progress_at: Number of trials up to the last one that improved the front.
            forecast: Returns the sampler's forecast for a number of further trials; None if it has none.
        """
        if self._patience is None or not records:
            return ""
        if self._answer[0] != len(records):
            ahead = forecast(self._patience)
            counts, name, unit = what_counts(records, self._main)
            idle = len(records) - progress_at
            self._answer = len(records), why_stop(self._patience, idle, ahead, counts, name, unit)
        return self._answer[1]

    def prediction(self, records: Sequence[TrialRecord], forecast: Callable[[int], Forecast | None]) -> str:
        """Returns the predicted gain of more trials as text; empty where the sampler has no forecast."""
        ahead = forecast(self._patience or _K) if records else None
        if ahead is None:
            return ""
        _, name, unit = what_counts(records, self._main)
        return in_words(ahead, name, unit)


def what_counts(records: Sequence[TrialRecord], main: Objective) -> tuple[float, str, str]:
    """Returns the tolerance of the first objective (see `tolerance`), the objective's name, and its unit.

    The standard error is that of the best trial's paired difference from the uncompressed model, where it was measured.
    """
    sign = 1.0 if main.direction == "maximize" else -1.0
    done = [r for r in records if r.state == "complete" and main.column in r.values()]
    name = Column.parse(main.column).name
    if not done:
        return 0.0, name, ""
    best = max(done, key=lambda r: sign * r.values()[main.column])
    measured = best.values()
    error = (
        measured.get(f"{main.column}_drop_high", np.nan) - measured.get(f"{main.column}_drop", np.nan)
    ) / _NORMAL
    unit = next(m.unit for m in best.measurements if m.column == main.column)
    values = [sign * r.values()[main.column] for r in done]
    return tolerance(values, float(error) if np.isfinite(error) else None), name, unit
