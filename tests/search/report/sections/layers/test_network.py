import re
from dataclasses import replace

import pytest

from search.record.curve import Curve
from search.report.report import report_html
from search.report.sections.layers.network import section
from search.report.testing import fake_results

CUT = {
    "macs_before": 1000, "macs_after": 497, "parameters_before": 200, "parameters_after": 101,
    "widths": {"conv1.weight": [16, 16], "<conv2>.weight": [32, 8]}, "blocks": ["layer2.1"],
    "left_alone": ["conv1.weight: a shortcut"],
}  # fmt: skip


def with_details(results, number, **details):
    trials = [
        replace(t, details={**t.details, **details}) if t.number == number else t for t in results.trials
    ]
    return replace(results, trials=tuple(trials))


@pytest.fixture
def results(tmp_path):
    return fake_results(tmp_path)


def test_a_study_that_knows_nothing_of_its_layers_has_no_section(results):
    bare = tuple(replace(t, details={}) for t in results.trials)
    assert section(replace(results, trials=bare)) is None


def test_it_shows_what_was_pruned(results):
    found = section(with_details(results, results.best, stages={"recover": {"epochs": 1}, "prune": CUT}))
    assert "49.7 % of 1,000 multiply-accumulates and 50.5 % of 200 parameters" in found.body
    assert "Blocks removed: <code>layer2.1</code>" in found.body
    assert "1 of 2 are narrower" in found.body
    assert "<code>&lt;conv2&gt;.weight</code>" in found.body
    assert "25 %" in found.body
    assert "Not pruned: conv1.weight: a shortcut" in found.body


def test_blocks_alone_have_no_table_of_layers(results):
    cut = {**CUT, "widths": {"conv1.weight": [16, 16]}}
    found = section(with_details(results, results.best, stages={"prune": cut}))
    assert "are narrower" not in found.body


def test_it_says_that_a_budget_was_missed(results):
    missed = "prune.keep=0.5 cannot be met within 0.02: the nearest cut below leaves 0.368 of the macs"
    found = section(with_details(results, results.best, stages={"prune": {**CUT, "missed": missed}}))
    assert f"{missed}." in found.body


def test_it_draws_training_curves(results):
    best = results.best
    other = next(t.number for t in results.trials if t.number not in (*results.front, best))
    results = with_details(results, best, curve=Curve("top1", (50.0, 90.0), 100).to_detail())
    results = with_details(results, other, curve=Curve("top1", (40.0,), 100).to_detail())
    trials = [replace(t, state="pruned") if t.number == other else t for t in results.trials]
    found = section(replace(results, trials=tuple(trials)))
    lines = re.findall(r'<polyline points="([^"]*)" class="line ([^"]*)"', found.body)
    assert [(len(points.split()), css) for points, css in lines] == [(1, "other dashed"), (2, "picked")]
    assert f'aria-label="trial {best}, epoch 2: 90.00 (complete)"' in found.body
    assert "1 training ended early" in found.body


def test_the_page_has_the_section(results):
    assert 'id="network"' in report_html(with_details(results, results.best, stages={"prune": CUT}))
    bare = tuple(replace(t, details={}) for t in results.trials)
    assert 'id="network"' not in report_html(replace(results, trials=bare))
