import re
from dataclasses import replace

import pytest

from search.record.results import Constraint
from search.report.page.testing import read_page
from search.report.sections.front import section
from search.report.testing import fake_results

TOP1, LATENCY = "metric.top1", "cost.host.latency_ms"


def figures(results):
    return re.findall(r"<figure.*?</figure>", section(results).body, re.DOTALL)


@pytest.fixture
def results(tmp_path):
    return fake_results(tmp_path, 24)


def test_charts_hold_every_measured_trial_and_the_float_model(results):
    chart = figures(results)[0]
    linked = {int(n) for n in re.findall(r'href="#trial-(\d+)"', chart)}
    assert linked == {t.number for t in results.trials if t.measurements}
    assert 'aria-label="float model\ntop1 98.00 % [97.40, 98.60]\nlatency 3.3 ms"' in chart
    n_broken = sum(t.state == "infeasible" for t in results.trials)
    assert chart.count('class="mark other cross"') == n_broken + bool(n_broken)  # and in the legend


def test_sizes_are_drawn_in_kib_and_sources_are_named(results):
    body = section(results).body
    assert "weight size (KiB, measured)" in body
    assert "latency (ms, modelled)" in body


def test_a_limit_on_a_drop_is_a_line_of_the_metric(results):
    limited = replace(results, constraints=(Constraint("drop", "metric.top1_drop", "max", 1.5),))
    assert "≥ 96.5 %" in figures(limited)[0]


def test_the_pick_is_ringed_on_its_own_device(results):
    for chart in figures(results)[:4]:
        assert chart.count('class="ring picked"') == 2  # the pick, and the legend


def test_parallel_coordinates_have_an_axis_for_each_objective(results):
    drawn = figures(results)[-1]
    assert drawn.count('<g class="upright">') == len(results.objectives)
    front = re.findall(r'<a class="pt" href="#trial-(\d+)"', drawn)
    assert sorted(map(int, front)) == sorted(results.front)


def test_two_objectives_need_no_parallel_coordinates(results):
    assert "upright" not in section(replace(results, objectives=results.objectives[:2], constraints=())).body


def test_a_column_with_one_value_has_no_chart(results):
    def same(measurements):
        return tuple(replace(m, value=1.0) if m.column == LATENCY else m for m in measurements)

    constant = replace(
        results,
        baseline=same(results.baseline),
        trials=tuple(replace(t, measurements=same(t.measurements)) for t in results.trials),
    )
    assert "top1 against latency on host" in section(results).body
    assert "top1 against latency on host" not in section(constant).body


def test_without_a_front_all_trials_can_be_reached(tmp_path):
    results = fake_results(tmp_path, 12, top1_min=101.0)
    drawn = figures(results)[-1]
    assert drawn.count('<a class="pt"') == sum(bool(t.measurements) for t in results.trials)


def test_the_table_shades_the_picks(results):
    page = section(results).body
    picked = {results.best, *(p.number for p in results.picks)}
    assert page.count('<tr class="pick">') == len(picked & set(results.front))
    assert read_page(page).row("float model")[1] == "–"
