import math
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from evaluators.base import Measurement
from search.report.picture import front_picture
from search.report.testing import fake_results, hostile_results

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture):
    return [element.text for element in ET.fromstring(picture).iter(f"{SVG}text")]


def test_a_panel_per_cost_with_the_numbers_of_the_front(tmp_path):
    results = fake_results(tmp_path, 12)
    picture = front_picture(results)
    assert sum("top1 over" in text for text in texts(picture)) == len(results.objectives) - 1
    labels = {part for text in texts(picture) for part in text.split(", ")}
    assert {str(n) for n in results.front} <= labels


def test_all_marks_lie_within_the_picture(tmp_path):
    root = ET.fromstring(front_picture(fake_results(tmp_path, 30)))
    width = float(root.get("width")) / min(3, len(root.findall(f"{SVG}g")))
    for dot in root.iter(f"{SVG}circle"):
        assert 0 < float(dot.get("cx")) < width
        assert 0 < float(dot.get("cy")) < float(root.get("height"))


@pytest.mark.parametrize("n_trials", [0, 1])
def test_few_trials_are_drawn(tmp_path, n_trials):
    assert ET.fromstring(front_picture(fake_results(tmp_path, n_trials))).tag == f"{SVG}svg"


def test_nothing_is_drawn_without_a_cost(tmp_path):
    assert front_picture(fake_results(tmp_path, 4, devices=())) is None


def test_values_that_are_not_finite_are_left_out(tmp_path):
    results = fake_results(tmp_path, 4)
    endless = Measurement("latency_ms", math.inf, "ms", "measured", "host")
    first = results.trials[0]
    kept = [m for m in first.measurements if m.column != endless.column]
    trials = (replace(first, measurements=(*kept, endless)), *results.trials[1:])
    assert "nan" not in front_picture(replace(results, trials=trials))


def test_texts_of_the_study_are_no_markup(tmp_path):
    picture = front_picture(hostile_results(tmp_path))
    assert "<script" not in picture
    ET.fromstring(picture.replace("\x1b", "").replace("\x07", ""))


def test_labels_of_points_upon_each_other_are_one(tmp_path):
    results = fake_results(tmp_path, 12)
    first = results.trial(results.front[0])
    twin = replace(results.trial(results.front[1]), measurements=first.measurements)
    trials = tuple(twin if t.number == twin.number else t for t in results.trials)
    labels = texts(front_picture(replace(results, trials=trials)))
    together = [set(label.split(", ")) for label in labels]
    assert any({str(first.number), str(twin.number)} <= names for names in together)
