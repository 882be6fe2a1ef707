import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evaluators.base import Measurement
from search.record.results import Alias, Objective
from search.report.report import report_html, write_report
from search.report.testing import fake_results, hostile_results
from spaces.candidate import Candidate

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Tables as text, the charts' JSON, what the page loads, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open, self.loads, self.ids, self.links, self.text = [], [], [], [], [], ""
        self.scripts = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.loads += [
            (tag, k, v) for k, v in attrs.items() if k in ("src", "href", "srcset", "data", "action")
        ]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += data
            if self.rows and ("td" in self.open or "th" in self.open):
                self.rows[-1][-1] += data

    @property
    def charts(self):
        return json.loads(self.scripts[0])

    def row(self, first):
        return next(r for r in self.rows if r and r[0] == first)


def no_objectives(tmp_path):
    return replace(fake_results(tmp_path, 6), objectives=(), hypervolumes=(), hypervolume=None)


SHAPES = {
    "usual": lambda p: fake_results(p, 24),
    "no trials": lambda p: fake_results(p, 0),
    "one trial": lambda p: fake_results(p, 1),
    "none feasible": lambda p: fake_results(p, 10, top1_min=101.0),
    "one objective": lambda p: fake_results(p, 30, ()),
    "three devices": lambda p: fake_results(p, 16, ("a", "b", "c")),
    "no baseline": lambda p: replace(fake_results(p, 10), baseline=()),
    "nothing varies": lambda p: replace(fake_results(p, 2), knobs={}),
    "all failed": lambda p: replace(
        fake_results(p, 0),
        trials=tuple(
            replace(t, state="failed", measurements=(), number=i)
            for i, t in enumerate(fake_results(p, 14).trials)
        ),
    ),
    "no objectives": no_objectives,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_study_renders(tmp_path, shape):
    results = SHAPES[shape](tmp_path)
    page = Page(report_html(results))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert results.command in page.text
    assert {f"trial-{t.number}" for t in results.trials} <= set(page.ids)
    assert set(page.charts) <= set(page.ids)
    anchors = [v[1:] for _, k, v in page.loads if k == "href" and v.startswith("#")]
    assert set(anchors) <= set(page.ids)


def test_a_large_study_takes_time_in_proportion_and_is_small(tmp_path):
    seconds = []
    for n_trials in (50, 200):
        results = fake_results(tmp_path, n_trials, ("a", "b", "c"))
        before = time.process_time()
        write_report(results, tmp_path / "report.html")
        seconds.append(time.process_time() - before)
    assert seconds[1] < 8 * seconds[0]  # 3 where this was written; 16 if it were quadratic
    assert (tmp_path / "report.html").stat().st_size < 6e6


def test_the_page_loads_nothing(tmp_path):
    page = Page(report_html(fake_results(tmp_path, 8)))
    assert {tag for tag, _, _ in page.loads} <= {"a"}
    assert not [v for _, _, v in page.loads if "//" in v]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', report_html(fake_results(tmp_path, 0)))
    assert policy is not None
    assert "http" not in policy.group(1)


def test_figures_are_the_studys(tmp_path):
    results = fake_results(tmp_path, 24)
    page, pick = Page(report_html(results)), results.picks[0]
    record = results.trial(pick.number)
    top1, drop = (record.values()[c] for c in ("metric.top1", "metric.top1_drop"))
    assert f"Ship trial {pick.number} to host: {top1:.2f} % top1" in page.text
    row = next(r for r in page.rows if r and r[0].startswith("top1") and "98.00 %" in r[1])
    assert row[1] == "98.00 %[97.40, 98.60]measured"
    assert row[2] == f"{top1:.2f} %[{top1 - 0.6:.2f}, {top1 + 0.6:.2f}]measured"
    change = re.match(r"([+−]?[\d.]+) pp\[([+−]?[\d.]+), ([+−]?[\d.]+)\]", row[3])
    numbers = [float(g.replace("−", "-")) for g in change.groups()]
    assert numbers == pytest.approx([-drop, -drop - 0.4, -drop + 0.4], abs=0.006)


def test_the_charts_hold_the_front_the_baseline_and_the_rest(tmp_path):
    results = fake_results(tmp_path, 24)
    charts = Page(report_html(results)).charts
    chart = charts["chart-1"]
    traces = {t["name"]: t for t in chart["traces"]}
    assert sorted(traces["front"]["customdata"]) == sorted(results.front)
    for number, x, y in zip(*(traces["front"][k] for k in ("customdata", "x", "y")), strict=True):
        values = results.trial(number).values()
        assert (x, y) == (values["cost.host.latency_ms"], values["metric.top1"])
    assert (traces["baseline"]["x"], traces["baseline"]["y"]) == ([3.3], [98.0])
    infeasible = [t.number for t in results.trials if t.state == "infeasible"]
    assert sorted(traces["infeasible"]["customdata"]) == infeasible
    assert "modelled" not in chart["layout"]["xaxis"]["title"]["text"]
    titles = [c["layout"]["xaxis"].get("title", {}).get("text", "") for c in charts.values()]
    assert "latency (ms, modelled)" in titles


def test_sizes_are_drawn_in_kib(tmp_path):
    results = fake_results(tmp_path, 24)
    chart = Page(report_html(results)).charts["chart-2"]
    front = next(t for t in chart["traces"] if t["name"] == "front")
    wanted = results.trial(front["customdata"][0]).values()["cost.host.weight_bytes"] / 1024
    assert front["x"][0] == pytest.approx(wanted)
    assert "KiB" in chart["layout"]["xaxis"]["title"]["text"]


def test_too_few_trials_give_no_importance(tmp_path):
    text = Page(report_html(fake_results(tmp_path, 5))).text
    assert "trials are too few" in text
    assert "share of importance" not in text


def test_no_feasible_trial_says_which_constraint_and_by_how_much(tmp_path):
    results = fake_results(tmp_path, 24, top1_min=101.0)
    page = Page(report_html(results))
    best = max(t.values()["metric.top1"] for t in results.trials if t.measurements)
    assert "No candidate met the constraints" in page.text
    assert f"missed it by {101 - best:.2f} pp" in page.text
    assert "What to ship" not in page.text


def test_text_of_the_study_is_never_markup(tmp_path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    results = fake_results(tmp_path, 14)
    changed = tuple(
        replace(
            t,
            reason=evil if t.reason else "",
            candidate=Candidate({**t.candidate, evil: evil}),
            details={
                "layers": [{"layer": evil + str(i), "output_sqnr_db": 3.0 + i, evil: evil} for i in range(3)]
            },
            seconds={evil: 1.0},
            measurements=(*t.measurements, Measurement(evil, 1.0, evil, "measured", evil))
            if t.measurements
            else (),
        )
        for t in results.trials
    )
    results = replace(
        results,
        name=evil,
        trials=changed,
        notes=(evil,),
        command=evil,
        sampler=evil,
        best_why=evil,
        picks=tuple(replace(p, why=evil, device=evil) for p in results.picks),
        knobs={**results.knobs, evil: (evil,)},
        aliases=(Alias(Candidate({evil: evil}), 0),),
        environment={evil: evil},
        config={evil: evil},
        objectives=(*results.objectives, Objective(f"cost.{evil}.{evil}", "minimize")),
    )
    text = report_html(results)
    page = Page(text)
    assert page.open == []
    assert len(page.scripts) == 3  # data, Plotly, ours
    assert not [tag for tag, k, v in page.loads if v == "x"]
    for name, chart in page.charts.items():
        for trace in chart["traces"]:
            texts = [*trace.get("text", []), *(v for v in trace.get("y", []) if isinstance(v, str))]
            assert not [s for s in texts if "<script" in s or "<img" in s], name


def test_a_study_from_elsewhere_is_shown_as_text(tmp_path):
    results = hostile_results(tmp_path)
    text = report_html(results)
    page = Page(text)
    assert page.open == []
    assert len(page.scripts) == 3
    assert not [tag for tag, k, v in page.loads if v == "x"]
    assert "javascript:" not in {v for tag, k, v in page.loads}
    assert "onerror" not in " ".join(re.findall(r"<[a-z]+ [^<>]*>", re.sub(r'"[^"]*"', "", text)))
    assert "alert(1)" in page.text


def test_secrets_stay_out(tmp_path):
    results = replace(fake_results(tmp_path, 3), command="paredown tracker.uri=http://me:hunter2@host")
    assert "hunter2" not in report_html(results)


def test_writing_replaces_the_page_and_links_models_that_exist(tmp_path):
    results = fake_results(tmp_path, 8)
    number = results.picks[0].number
    results.model_path(number).parent.mkdir()
    results.model_path(number).write_bytes(b"x")
    (tmp_path / "report.html").write_text("old")
    write_report(results, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert ("a", "href", f"models/trial_{number}.onnx") in page.loads
