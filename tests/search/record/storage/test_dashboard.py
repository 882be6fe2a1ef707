"""What optuna-dashboard shows of a study; the last test asks the dashboard itself, where it is installed."""

import optuna
import pytest

from search.record.results import Objective
from search.record.storage.dashboard import name_objectives, note_in, write_note

OBJECTIVES = (Objective("metric.top1", "maximize"), Objective("cost.mcu.latency_ms", "minimize"))


@pytest.fixture
def study():
    return optuna.create_study(directions=[o.direction for o in OBJECTIVES])


def note(study):
    return note_in(study._storage.get_study_system_attrs(study._study_id))


def test_objectives_have_the_names_of_their_columns(study):
    name_objectives(study, OBJECTIVES)
    name_objectives(study, OBJECTIVES)
    assert study.metric_names == ["metric.top1", "cost.mcu.latency_ms"]


@pytest.mark.parametrize("length", [1, 2045, 2046, 7000])
def test_a_note_of_any_length_is_kept_whole(study, length):
    text = ("0123456789" * 700)[:length]
    write_note(study, text)
    assert note(study) == text


def test_a_shorter_note_leaves_nothing_of_a_longer_one(study):
    write_note(study, "x" * 5000)
    write_note(study, "short")
    assert note(study) == "short"


def test_a_note_that_somebody_typed_stays(study):
    write_note(study, "ours")
    for key, value in (("dashboard:note_ver", 2), ("dashboard:note_str:0", "typed")):
        study._storage.set_study_system_attr(study._study_id, key, value)
    write_note(study, "ours again")
    assert note(study) == "typed"


def test_the_dashboard_reads_the_note(study):
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    write_note(study, "**Baseline**" * 400)
    assert dashboard.get_note(study) == "**Baseline**" * 400
