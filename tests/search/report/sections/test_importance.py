from dataclasses import replace

import pytest

from search.report.sections import importance
from search.report.sections.effects import effects
from search.report.testing import fake_results


@pytest.fixture
def results(tmp_path):
    return fake_results(tmp_path, 60)


def test_knobs_that_the_forest_ranks_are_drawn(results):
    found = importance.section(results)
    assert "quantize.weight_bits" in found.body
    assert 'class="bars"' in found.body


def test_what_is_the_same_everywhere_has_no_ranking(results):
    def same(trial):
        return replace(trial, measurements=tuple(replace(m, value=1.0) for m in trial.measurements))

    found = importance.section(replace(results, trials=tuple(map(same, results.trials))))
    assert found is None or 'class="bars"' not in found.body


def test_without_trials_there_is_no_section(tmp_path):
    assert importance.section(fake_results(tmp_path, 0)) is None


def test_clear_effects_come_first_and_the_others_are_collapsed(results):
    drawn = effects(results)
    shown, _, folded = drawn.partition("<details>")
    assert "quantize.weight_bits" in shown
    assert "without a clear effect" in folded
    assert drawn.count("Pairs") == 1


def test_without_two_values_there_are_no_effects(tmp_path):
    assert effects(fake_results(tmp_path, 1)) == ""
