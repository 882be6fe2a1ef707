"""Views of MLflow's runs page: what it opens with, so that nobody has to choose columns, filters and charts.

MLflow keeps a view that a user saves as a tag of the experiment, `mlflow.sharedViewState.<key>`: JSON with a name, times and the
page's state (pako's `deflate;` and Base64, as the page itself writes it). It lists them under "Views" and opens the one of the
address `?viewStateShareKey=<key>`. A version of MLflow that keeps them elsewhere ignores these tags, and opens its own defaults.

Trials are the children of a study's run. The page hides them in their collapsed parents unless it sorts by a value: so
every view sorts by the metric.
"""

import base64
import json
import time
import zlib
from typing import TYPE_CHECKING, Any

from evaluators.column import Column
from search.record.results import StudyRecord
from search.report.findings.figures import columns, headline_metric
from search.report.findings.summary import split_knobs
from search.tracking.mlflow_names import safe_name, safe_names

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PREFIX = "mlflow.sharedViewState."
_OURS = "paredown-"
_MOST_VIEWS = 30  # the page lets a user save further ones up to 40
_MOST_METRICS, _MOST_KNOBS, _MOST_AXES = 8, 6, 3
_FILE_BYTES = str(Column.of("file_bytes"))
_HIDDEN_SECTIONS = ("Model metrics", "System metrics")  # a bar chart for each metric of the trials
_NAME = {"attributes.`Run Name`": 170}
_LAST = {"runDateAndNestInfo": 130, "duration": 80}


def view_key(run_id: str, kind: str = "trials") -> str:
    """Returns the key of a study's view, `trials` or `front`, by its parent run's id."""
    return f"{_OURS}{run_id[:12]}-{kind}"


def runs_page(experiment_id: str, run_id: str, kind: str = "trials") -> str:
    """Returns the address of a study's view within MLflow's pages, from `#` on."""
    key = view_key(run_id, kind)
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={key}"


def write_views(client: "MlflowClient", experiment_id: str, run_id: str, results: StudyRecord) -> None:
    """Writes the views of a study: its trials, and those of them that are on the front.

    The tag `on_front` is `false` only on trials: the uncompressed model is in both.
    """
    of_study = f"tags.`mlflow.parentRunId` = '{run_id}'"
    for kind, condition in (("trials", of_study), ("front", f"{of_study} AND tags.on_front != 'false'")):
        now_ms = round(time.time() * 1000)
        view = {
            "name": f"{results.name}: {kind}",
            "createdAt": now_ms,
            "updatedAt": now_ms,
            "state": _deflated(_state(results, condition)),
        }
        client.set_experiment_tag(experiment_id, _PREFIX + view_key(run_id, kind), json.dumps(view))


def drop_old_views(client: "MlflowClient", experiment_id: str) -> None:
    """Deletes the oldest views of ours, of which there would be too many."""
    tags = client.get_experiment(experiment_id).tags
    ours = {key: text for key, text in tags.items() if key.startswith(_PREFIX + _OURS)}
    newest_first = sorted(ours, key=lambda key: json.loads(ours[key])["createdAt"], reverse=True)
    for key in newest_first[_MOST_VIEWS:]:
        client.delete_experiment_tag(experiment_id, key)


def shown_metrics(results: StudyRecord) -> list[str]:
    """Returns the columns to show: the metric, also on the test split, objectives, limited values, and bytes."""
    metric = headline_metric(results)
    objectives = [o.column for o in results.objectives]
    known = {*columns(results), *objectives}
    limited = [c.column for c in results.constraints if _varies(results, c.column)]
    wanted = [*([metric, _on_test(metric)] if metric else []), *objectives, *limited, _FILE_BYTES]
    return [c for c in dict.fromkeys(wanted) if c in known][:_MOST_METRICS]


def _on_test(metric: str) -> str:
    parsed = Column.parse(metric)
    return str(parsed.named(f"test_{parsed.name}"))


def _varies(results: StudyRecord, column: str) -> bool:
    """Returns whether a column has several values: the layers that a runtime lacks are mostly none in all trials."""
    values = {t.values().get(column) for t in results.trials} | {
        m.value for m in results.baseline if m.column == column
    }
    return len(values - {None}) > 1


def deciding_knobs(results: StudyRecord) -> list[str]:
    """Returns the knobs in which the models on the front differ; before there are two, those of all trials."""
    numbers = tuple(n for n in results.front if n >= 0)
    if len(numbers) < 2:
        numbers = tuple(t.number for t in results.trials)
    differing = split_knobs(results, numbers)[0] if numbers else list(results.knobs)
    return differing[:_MOST_KNOBS]


def _state(results: StudyRecord, condition: str) -> dict[str, Any]:
    metrics, knobs = shown_metrics(results), _safe_knobs(results)
    names = {
        **{_field("tags", name): name for name in ("chosen_for", "on_front")},
        **{_field("metrics", safe_name(c)): c for c in metrics},
        **{_field("params", knob): knob for knob in knobs},
        _field("tags", "state"): "state",
    }
    widths = {**_NAME, **{field: max(80, 6 * len(name) + 36) for field, name in names.items()}, **_LAST}
    state: dict[str, Any] = {
        "searchFilter": condition,
        "selectedColumns": list(names),
        "columnOrder": list(widths),
        "columnWidths": widths,
        "runsHiddenMode": "SHOW_ALL",
        **_charts(results, metrics, knobs),
    }
    if metrics:
        best_first = next((o.direction for o in results.objectives if o.column == metrics[0]), "maximize")
        state |= {
            "orderByKey": _field("metrics", safe_name(metrics[0])),
            "orderByAsc": best_first == "minimize",
        }
    return state


def _safe_knobs(results: StudyRecord) -> list[str]:
    names = safe_names(results.knobs)
    return [names.get(knob, safe_name(knob)) for knob in deciding_knobs(results)]


def _charts(results: StudyRecord, metrics: list[str], knobs: list[str]) -> dict[str, Any]:
    """Returns the charts: the metric over each objective that is a cost, and parallel coordinates."""
    section = {"uuid": "trials", "name": "Trials", "display": True, "columns": 2}
    hidden = [{"uuid": name, "name": name, "display": False} for name in _HIDDEN_SECTIONS]
    charts: list[dict[str, Any]] = [
        {"type": "SCATTER", "xaxis": _axis(o.column), "yaxis": _axis(metrics[0])}
        for o in results.objectives
        if metrics and o.column != metrics[0]
    ]
    axes = [safe_name(c) for c in dict.fromkeys(metrics)][:_MOST_AXES]
    charts.append(
        {
            "type": "PARALLEL",
            "selectedParams": knobs[:_MOST_AXES],
            "selectedMetrics": axes,
            "showAllRuns": True,
        }
    )
    fixed = {"deleted": False, "isGenerated": False, "metricSectionId": "trials", "runsCountToCompare": 100}
    return {
        "compareRunSections": [
            {**s, "isReordered": True, "deleted": False, "isGenerated": True} for s in (section, *hidden)
        ],
        "compareRunCharts": [{**fixed, "uuid": f"chart{i}", **chart} for i, chart in enumerate(charts)],
        "isAccordionReordered": True,
    }


def _axis(column: str) -> dict[str, str]:
    return {"key": safe_name(column), "type": "METRIC"}


def _field(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _deflated(state: dict[str, Any]) -> str:
    """Returns the state as the page compresses it: databases other than SQLite take 5,000 characters in a tag."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
