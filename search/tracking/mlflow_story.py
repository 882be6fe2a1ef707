"""Texts for the MLflow UI, and for optuna-dashboard's note: description, params and tags of a study's parent run, and the front as a table."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from search.record.redact import redact, redact_text
from search.record.results import BASELINE, StudyRecord, model_name, number_label
from search.report.findings.figures import (
    change,
    columns,
    figure,
    headline_metric,
    label,
    sources_of,
    split_label,
)
from search.report.findings.misses import failures, misses
from search.report.findings.summary import answers, comparison, knob_texts, reason, split_knobs, states_text
from search.tracking.mlflow_names import MOST_TAG_CHARS, clip, safe_names
from search.tracking.mlflow_registry import alias_of, registered_name
from search.tracking.mlflow_views import runs_page

PICTURE = "front.svg"
_MOST_PARAMS = 100
_LEFT_OUT = ("tracker", "hydra", "trusted_modules")


def description(
    results: StudyRecord, place: tuple[str, str] | None = None, with_picture: bool = False
) -> str:
    """Returns the parent run's description: Markdown, within MLflow's limit for a tag. Without a place it is of no MLflow.

    MLflow shows its first lines: those are what to ship.

    Args:
        results: The study.
        place: Ids of the experiment and of the parent run, for links.
        with_picture: Whether the run has the picture of the front among its artifacts.
    """
    parts = [
        "\n\n".join(_plain(a) for a in answers(results)),
        _links(place),
        "\n".join(f"- {_plain(f'{p.device}: {reason(results, p.why)}.')}" for p in results.picks),
        _loading(results) if place else "",
        f"![The front: the metric over each cost]({_artifact(place[1], PICTURE)})"
        if place and with_picture
        else "",
        _front(results),
        _comparison(results) or _baseline(results),
        _plain(states_text(results)) + f", by {_plain(results.sampler)}.",
        _rejected(results),
        "\n".join(f"- {_plain(note)}" for note in results.remarks),
        f"**To reproduce**\n\n{_fenced(redact_text(results.command))}",
        "The child runs are the trials and the float model. Artifacts: `report.html` (the full report), `front.json`, "
        "`trials.csv`, `config.yaml`."
        if place
        else "",
    ]
    kept, n_chars_left = [], MOST_TAG_CHARS - 100
    for part in filter(None, parts):
        if len(part) + 2 <= n_chars_left:
            kept.append(part)
            n_chars_left -= len(part) + 2
    return "\n\n".join(kept)


def _links(place: tuple[str, str] | None) -> str:
    if place is None:
        return ""
    front, trials = (runs_page(*place, kind) for kind in ("front", "trials"))
    return (
        f"[The front]({front}) · [all trials]({trials}) · "
        f"[charts]({trials}&compareRunsMode=CHART): float model and trials side by side"
    )


def _artifact(run_id: str, path: str) -> str:
    """Returns an artifact's address, as MLflow's own pages ask for it."""
    return f"get-artifact?path={path}&run_uuid={run_id}"


def _loading(results: StudyRecord) -> str:
    """Returns how to load each pick from the registry."""
    if not results.picks:
        return ""
    name = registered_name(results.name)
    lines = [f'mlflow.onnx.load_model("models:/{name}@{alias_of(p.device)}")' for p in results.picks]
    return "**To load**, after `mlflow.set_tracking_uri(...)`\n\n" + _fenced("\n".join(lines))


def _plain(text: str) -> str:
    """Returns text escaped so that it is not read as Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(text.splitlines()))


def _fenced(code: str) -> str:
    """Returns a block of code whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}\n{code}\n{fence}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _baseline(results: StudyRecord) -> str:
    """Returns the uncompressed model's figures, for a study without a candidate to compare with them."""
    rows = [
        [_plain(label(column, with_device=True)), _plain(f"{found.full} ({found.source})")]
        for column in columns(results)
        if (found := figure(results.baseline, column)) is not None
    ]
    return "**Baseline: the uncompressed model**\n\n" + _table(["", "baseline"], rows) if rows else ""


def _comparison(results: StudyRecord) -> str:
    if results.best is None:
        return ""
    picks: dict[int, list[str]] = {p.number: [] for p in results.picks} or {results.best: []}
    for pick in results.picks:
        picks[pick.number].append(pick.device)
    parts = []
    for number, names in picks.items():
        if number == BASELINE:
            continue
        rows = [
            [
                _plain(split_label(results, r.column, with_device=True)),
                _plain(f"{r.before.full} ({r.before.source})") if r.before else "–",
                _plain(f"{r.after.full} ({r.after.source})") if r.after else "–",
                _plain(r.difference) or "–",
            ]
            for r in comparison(results, number, names[0] if len(names) == 1 else None)
        ]
        devices = f" for {', '.join(map(_plain, names))}" if names else ""
        parts.append(f"**{model_name(number).capitalize()} compared with the baseline{devices}**\n\n")
        parts[-1] += _table(["", "baseline", model_name(number), "change"], rows)
    return "\n\n".join(parts)


def _front(results: StudyRecord) -> str:
    if not results.front:
        return ""
    table = front_table(results, most_knobs=4, most_rows=15)
    more = len(results.front) - len(table["data"])
    rest = f"\n\nand {more} more in `front.json`" if more else ""
    heads = [_plain(h) for h in table["columns"]]
    return "**Pareto front**\n\n" + _table(heads, [[_plain(c) for c in row] for row in table["data"]]) + rest


def front_table(results: StudyRecord, most_knobs: int = 50, most_rows: int = 1000) -> dict[str, Any]:
    """Returns the front as `{"columns": [...], "data": [[...]]}`, all cells text with units."""
    metric, objectives = headline_metric(results), [o.column for o in results.objectives]
    knobs = split_knobs(results, results.front)[0][:most_knobs]
    heads = [
        "trial",
        *(
            f"{split_label(results, c, with_device=True)} ({'/'.join(sources_of(results, c))})"
            for c in objectives
        ),
    ]
    rows = []
    for number in results.front[:most_rows]:
        record = results.trial(number)
        figures = [figure(record.measurements, c) for c in objectives]
        changed = change(results, record, metric) if metric else None
        values = knob_texts(record)
        cells = [
            number_label(number),
            *(f.text if f else "–" for f in figures),
            changed.full if changed else "–",
        ]
        rows.append(cells + [values.get(k, "–") for k in knobs])
    return {"columns": [*heads, "change against baseline", *knobs], "data": rows}


def _rejected(results: StudyRecord) -> str:
    lines = [m.sentence(results) for m in misses(results)]
    for state, records in failures(results):
        lines.append(
            f"{len(records)} {state}, e.g. trial {records[0].number}: {records[0].reason.partition(chr(10))[0]}"
        )
    return "**Rejected**\n\n" + "\n".join(f"- {_plain(line)}" for line in lines[:10]) if lines else ""


def config_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the first 100 scalars of the config as params `config.<path>`, with secrets redacted."""
    kept = {k: v for k, v in redact(config).items() if k not in _LEFT_OUT}
    flat = dict(_flatten(kept, "config"))
    names = safe_names(flat)
    return {names[path]: clip(str(flat[path]), 500, "see config.yaml") for path in list(flat)[:_MOST_PARAMS]}


def _flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{path}.{index}")
    elif value is not None:
        yield path, value


def parent_tags(
    results: StudyRecord, place: tuple[str, str] | None = None, with_picture: bool = False
) -> dict[str, str]:
    """Returns the parent run's tags: trials by state, front, picks, sources, environment and description.

    Args:
        results: The study.
        place: Ids of the experiment and of the parent run, for links.
        with_picture: Whether the run has the picture of the front among its artifacts.
    """
    tags = {f"trials.{state}": str(n) for state, n in results.states().items()}
    tags["front"] = ", ".join(map(number_label, results.front)) or "(empty)"
    tags["best"] = "(none)" if results.best is None else model_name(results.best)
    tags |= {f"pick.{p.device}": f"{model_name(p.number)}: {p.why}" for p in results.picks}
    tags |= {f"source.{c}": "/".join(sources_of(results, c)) for c in columns(results)}
    tags |= {"sampler": results.sampler, "command": redact_text(results.command)}
    tags |= {f"environment.{k}": v for k, v in results.environment.items()}
    names = safe_names(tags)
    kept = {names[k]: clip(v, MOST_TAG_CHARS, "cut") for k, v in tags.items() if v}
    return {**kept, "mlflow.note.content": description(results, place, with_picture)}
