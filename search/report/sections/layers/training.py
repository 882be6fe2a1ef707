"""The chart of trainings: the metric after every epoch, before quantization."""

from search.record.curve import curve_of
from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.page.chart import Axis, Point, Series, chart
from search.report.page.markup import trial_anchor

_MOST_CURVES = 60


def training_curves(results: StudyRecord) -> str:
    """Returns a chart of the best trial, the front, and the latest other trials; empty if none was trained."""
    trained = [record for record in results.trials if curve_of(record.details) is not None]
    if not trained:
        return ""
    drawn = [r for r in trained if r.number == results.best or r.number in results.front]
    drawn += [r for r in trained[::-1] if r not in drawn][: max(0, _MOST_CURVES - len(drawn))]
    series = [_series(results, record) for record in sorted(drawn, key=lambda r: r.number == results.best)]
    curve = curve_of(trained[0].details)
    name = curve.metric if curve is not None else ""
    stopped = sum(record.state == "pruned" for record in trained)
    title = f"{name} after every epoch, {len(drawn)} of {numbers.counted(len(trained), 'training')}"
    note = f"<p>{numbers.counted(stopped, 'training')} ended early (dashed).</p>" if stopped else ""
    return f"<h3>Training</h3>{chart(title, series, Axis('epoch', is_count=True), Axis(name))}{note}"


def _series(results: StudyRecord, record: TrialRecord) -> Series:
    curve = curve_of(record.details)
    values = curve.values if curve is not None else ()
    is_best = record.number == results.best
    css = "picked" if is_best else "front" if record.number in results.front else "other"
    points = [
        Point(
            i, v, f"trial {record.number}, epoch {i}: {v:.2f} ({record.state})", trial_anchor(record.number)
        )
        for i, v in enumerate(values, 1)
    ]
    css += " dashed" if record.state == "pruned" else ""
    return Series(f"trial {record.number} (best)" if is_best else "", css, points, "dot", "straight")
