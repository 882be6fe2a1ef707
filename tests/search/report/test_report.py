import re
import time
from dataclasses import replace

import pytest

from evaluators.base import Measurement
from search.record.results import BASELINE, Alias, Objective
from search.report.page.testing import MOST_BYTES, read_page
from search.report.report import report_html, write_report
from search.report.testing import fake_results, hostile_results
from spaces.candidate import Candidate


def no_objectives(tmp_path):
    return replace(fake_results(tmp_path, 6), objectives=(), hypervolumes=(), hypervolume=None)


def float_on_the_front(tmp_path):
    results = fake_results(tmp_path, 24)
    picks = tuple(replace(pick, number=BASELINE) for pick in results.picks[:1])
    return replace(results, front=(*results.front, BASELINE), picks=(*picks, *results.picks[1:]))


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
    "the float model on the front": float_on_the_front,
    "only the float model on the front": lambda p: replace(
        float_on_the_front(p), front=(BASELINE,), best=BASELINE, picks=float_on_the_front(p).picks[:1]
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_study_renders(tmp_path, shape):
    results = SHAPES[shape](tmp_path)
    page = read_page(report_html(results))
    assert page.problems == []
    assert page.headings[:2] == [1, 2]
    assert results.command in page.text
    assert {f"trial-{t.number}" for t in results.trials} <= set(page.ids)


def test_a_large_study_takes_time_in_proportion_and_is_small(tmp_path):
    seconds = []
    for n_trials in (50, 200):
        results = fake_results(tmp_path, n_trials, ("a", "b", "c"))
        before = time.process_time()
        write_report(results, tmp_path / "report.html")
        seconds.append(time.process_time() - before)
    assert seconds[1] < 8 * seconds[0]  # 3 where this was written; 16 if it were quadratic
    assert (tmp_path / "report.html").stat().st_size < MOST_BYTES


def test_a_page_of_a_usual_study_is_light(tmp_path):
    assert len(report_html(fake_results(tmp_path, 24)).encode()) < 300_000


def test_the_page_loads_nothing(tmp_path):
    page = read_page(report_html(fake_results(tmp_path, 8)))
    assert {tag for tag, _, _ in page.loads} <= {"a"}
    assert not [v for _, _, v in page.loads if "//" in v]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', report_html(fake_results(tmp_path, 0)))
    assert policy is not None
    assert "http" not in policy.group(1)


def test_figures_are_the_studys(tmp_path):
    results = fake_results(tmp_path, 24)
    page, pick = read_page(report_html(results)), results.picks[0]
    record = results.trial(pick.number)
    top1, drop = (record.values()[c] for c in ("metric.top1", "metric.top1_drop"))
    assert f"Ship trial {pick.number} to host: {top1:.2f} % top1" in page.text
    row = page.row("top1validation split, measured")
    assert row[1] == "98.00 %[97.40, 98.60]"
    assert row[2].startswith(f"{top1:.2f} %[{top1 - 0.6:.2f}, {top1 + 0.6:.2f}]")
    change = re.search(r"([+−]?[\d.]+) pp \[([+−]?[\d.]+),\s([+−]?[\d.]+)\]$", row[2])
    numbers = [float(g.replace("−", "-")) for g in change.groups()]
    assert numbers == pytest.approx([-drop, -drop - 0.4, -drop + 0.4], abs=0.006)


def test_sections_with_nothing_to_say_are_left_out(tmp_path):
    text = report_html(fake_results(tmp_path, 5))
    assert "share of the total permutation importance" not in text.lower()
    assert 'id="allocation"' not in text
    assert 'id="picks"' in text
    assert 'id="front"' not in report_html(fake_results(tmp_path, 0))


def test_no_feasible_trial_says_which_constraint_and_by_how_much(tmp_path):
    results = fake_results(tmp_path, 24, top1_min=101.0)
    page = read_page(report_html(results))
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
    page = read_page(text)
    assert page.problems == []
    assert len(page.scripts) == 1
    assert not [tag for tag, k, v in page.loads if v == "x"]


def test_a_study_from_elsewhere_is_shown_as_text(tmp_path):
    results = hostile_results(tmp_path)
    text = report_html(results)
    page = read_page(text)
    assert page.problems == []
    assert len(page.scripts) == 1
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
    page = read_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert ("a", "href", f"models/trial_{number}.onnx") in page.loads
