from dataclasses import replace

import pytest

from search.record.results import BASELINE
from search.report.testing import fake_results
from search.study.progress import _shortened, best_text


def test_the_best_so_far_names_the_split(tmp_path):
    results = fake_results(tmp_path)
    studied = replace(results, config={**results.config, "task": {"_target_": "x"}})
    assert best_text(studied).startswith(f"best so far: trial {results.best}, validation top1 ")
    assert best_text(results).startswith(f"best so far: trial {results.best}, top1 ")


def test_it_may_be_the_float_model(tmp_path):
    results = replace(fake_results(tmp_path), best=BASELINE)
    assert best_text(results).startswith("best so far: the float model, ")
    assert best_text(replace(results, best=None)) == "nothing feasible yet"


@pytest.mark.parametrize("most", range(20, 90, 3))
def test_words_make_room_for_the_times(most):
    text = "best so far: the float model, validation top1 98.67, host.latency_ms 0.01745"
    short = _shortened(text, most)
    assert len(short) <= most
    assert "the float model" in short
    assert ("98.67" in short) == (most >= len("the float model, validation top1 98.67"))
