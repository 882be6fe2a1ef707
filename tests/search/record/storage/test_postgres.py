"""Studies in a real PostgreSQL server: its restarts are survived, and a study has one writer."""

import os
import re
import subprocess
import sys
import threading
import time

import pandas as pd
import psycopg
import pytest
import sqlalchemy
from optuna.trial import TrialState

from search.record.storage import database
from search.study.ledger import Ledger
from search.study.study import run_study
from search.study.testing import AnalyticRunner, SilentObserver, analytic_plan
from spaces.errors import StudyError

pytestmark = pytest.mark.slow

HOLDS = """
import sys
from pathlib import Path
from search.study.ledger import Ledger
from search.study.testing import analytic_plan
plan = analytic_plan(Path(sys.argv[1]), name=sys.argv[3])
ledger = Ledger(plan.name, plan.folder, sys.argv[2], plan.objectives, plan.constraints, plan.identity)
print("held", flush=True)
sys.stdin.read()
"""


def opened(folder, storage, name):
    plan = analytic_plan(folder)
    return Ledger(name, folder, storage, plan.objectives, plan.constraints, plan.identity)


def optuna_trials(server, name):
    engine = sqlalchemy.create_engine(server.url.replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        rows = connection.execute(
            sqlalchemy.text(
                "SELECT t.number, t.state FROM trials t JOIN studies s USING (study_id) WHERE study_name = :name ORDER BY number"
            ),
            {"name": name},
        ).all()
    engine.dispose()
    return rows


@pytest.fixture
def holder(postgres, tmp_path):
    """Starts processes that each hold a study; they end with the test."""
    processes = []

    def hold(name):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(tmp_path / f"of {name}"), postgres.url, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def test_a_study_is_kept_and_resumed(postgres, tmp_path):
    first = run_study(
        analytic_plan(tmp_path, name="kept", storage=postgres.url, n_trials=5), SilentObserver()
    )
    again = run_study(
        analytic_plan(tmp_path, name="kept", storage=postgres.url, n_trials=8), SilentObserver()
    )
    assert again.results.trials[:5] == first.results.trials
    assert len(again.results.trials) == 8
    assert not (tmp_path / "study.journal").exists()


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_restarts_of_the_server_lose_and_double_nothing(postgres, tmp_path, caplog, seconds):
    """The server is killed and started again at five moments, while the driver goes on."""
    name, runs, done = f"restarted {seconds}", threading.Event(), threading.Event()

    def restart():
        runs.wait(120)
        for pause in (0.9, 0.53, 0.37, 0.71, 0.47):
            time.sleep(pause)
            postgres.restart()
        done.set()

    class Endless:
        def __call__(self, results):
            return done.is_set() and len(results.trials) >= 20

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        plan = analytic_plan(tmp_path, name=name, storage=postgres.url, n_trials=10_000, stop_when=Endless())
        outcome = run_study(plan_with_room(plan, seconds), SilentObserver(lambda record: runs.set()))
    finally:
        runs.set()
        thread.join()
    trials = outcome.results.trials
    table = pd.read_csv(tmp_path / "trials.csv")
    assert [t.number for t in trials] == list(range(len(trials))) == list(table["number"])
    assert len({t.candidate for t in trials}) == len(trials)
    assert "RUNNING" not in {state for _, state in optuna_trials(postgres, name)}
    assert "is back after" in caplog.text
    assert "s3cret" not in caplog.text
    with opened(tmp_path, postgres.url, name) as ledger:
        assert ledger.records == list(trials)


def plan_with_room(plan, seconds):
    """Returns the plan with a space that is not soon exhausted."""
    from dataclasses import replace

    from spaces.space_config import read_space

    space = read_space({"x": {"int": [0, 100_000]}, "y": [0, 1, 2], "z": ["a"]})
    return replace(plan, space=space, runner=AnalyticRunner(seconds=seconds))


def test_a_server_that_stays_away_ends_the_study_with_one_message(postgres, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "OUTAGE_S", 1.5)
    stopped = []

    def stop(record):
        if record.number == 3:
            postgres.stop()
            stopped.append(True)

    try:
        plan = analytic_plan(tmp_path, name="away", storage=postgres.url)
        with pytest.raises(StudyError) as error:
            run_study(plan, SilentObserver(on_trial=stop))
    finally:
        if stopped:
            postgres.start()
    assert "no connection to the study 'away'" in str(error.value)
    assert "safe in the database" in str(error.value)
    assert "s3cret" not in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(database, "OUTAGE_S", 60.0)
    trials = run_study(plan, SilentObserver()).results.trials
    assert [t.number for t in trials] == list(range(12))


def test_a_second_driver_is_refused_whatever_its_folder_is(postgres, tmp_path, holder):
    first = holder("shared")
    with pytest.raises(StudyError) as error:
        opened(tmp_path / "other", postgres.url, "shared")
    assert re.search(
        rf"\(host {re.escape(os.uname().nodename[:20])}.*, pid {first.pid}, since 20..-..-.. ..:..:.. UTC\)",
        str(error.value),
    )
    assert "'shared' in study.storage=postgresql+psycopg://***@" in str(error.value)
    opened(tmp_path / "other", postgres.url, "a study of its own").close()
    first.kill()
    opened(tmp_path / "other", postgres.url, "shared").close()  # the server lets go of it with the process


def test_a_driver_that_lost_its_connection_to_another_one_ends(postgres, tmp_path, holder):
    """While the first one was cut off, a second one took the study: the first must not write again."""
    with opened(tmp_path, postgres.url, "taken") as ledger:
        with psycopg.connect(postgres.url) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'paredown %'"
            )
        second = holder("taken")
        with pytest.raises(StudyError, match=f"pid {second.pid}"):
            ledger.note("wall_s", 1.0)


def test_a_driver_that_lost_its_connection_takes_the_study_again(postgres, tmp_path, holder):
    with opened(tmp_path, postgres.url, "lost") as ledger:
        with psycopg.connect(postgres.url) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'paredown %'"
            )
        ledger.note("wall_s", 1.0)
        with pytest.raises(StudyError, match=f"pid {os.getpid()}"):
            opened(tmp_path / "other", postgres.url, "lost")


def test_a_wrong_password_is_one_message_without_it(postgres, tmp_path):
    with pytest.raises(StudyError) as error:
        opened(tmp_path, postgres.url.replace("s3cret%2Fpass", "wr0ng/pass"), "refused")
    assert "password authentication failed" in str(error.value)
    assert "wr0ng" not in str(error.value)


def test_trials_that_are_asked_for_are_in_the_database_once(postgres, tmp_path):
    run_study(analytic_plan(tmp_path, name="counted", storage=postgres.url), SilentObserver())
    numbers = [number for number, _ in optuna_trials(postgres, "counted")]
    assert numbers == list(range(len(numbers)))
    assert TrialState.COMPLETE.name in {state for _, state in optuna_trials(postgres, "counted")}
