"""Storages that are databases: one writer of a study, outages survived, what was written written once."""

import logging
import sqlite3
import subprocess
import sys
from contextlib import ExitStack

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from search.record.storage import database
from search.record.storage.database import open_database
from search.study.ledger import Ledger
from search.study.study import run_study
from search.study.testing import SilentObserver, analytic_plan
from spaces.errors import StudyError


def opened(folder, storage, name="analytic"):
    plan = analytic_plan(folder)
    return Ledger(name, folder, storage, plan.objectives, plan.constraints, plan.identity)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/studies.db"


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(database, "_FIRST_PAUSE_S", 0.001)


def test_a_study_is_kept_and_resumed(url, tmp_path):
    first = run_study(analytic_plan(tmp_path / "a", storage=url, n_trials=5), SilentObserver()).results
    again = run_study(analytic_plan(tmp_path / "a", storage=url, n_trials=8), SilentObserver()).results
    assert again.trials[:5] == first.trials
    assert len(again.trials) == 8


def test_a_second_driver_is_refused_whatever_its_folder_is(url, tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "studies.db")
    with opened(tmp_path / "a", url):
        for other in (url, f"sqlite:///{tmp_path}/link.db", f"sqlite:///{tmp_path}/a/../studies.db"):
            with pytest.raises(StudyError) as error:
                opened(tmp_path / "b", other)
            assert f"pid {database.this_process().pid}, since 20" in str(error.value)
            assert f"host {database.this_process().host}" in str(error.value)
        opened(tmp_path / "c", url, "another study").close()
    opened(tmp_path / "b", url).close()


def test_a_driver_that_is_killed_lets_go(url, tmp_path):
    script = (
        "import sys; from pathlib import Path; from search.study.ledger import Ledger\n"
        "from search.study.testing import analytic_plan\n"
        "p = analytic_plan(Path(sys.argv[1]))\n"
        "l = Ledger(p.name, p.folder, sys.argv[2], p.objectives, p.constraints, p.identity); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a"), url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match=f"pid {process.pid}, since"):
            opened(tmp_path / "b", url)
        process.kill()
    opened(tmp_path / "b", url).close()
    opened(tmp_path / "a", url).close()


class Away:
    """A backend whose answers get lost: each call is done, or is not, and then fails `n` times."""

    def __init__(self, backend, n, done):
        self._backend, self._n, self._done = backend, n, done
        self._failures = {}

    def __getattr__(self, name):
        call = getattr(self._backend, name)

        def flaky(*arguments, **named):
            key = (name, repr(arguments))
            self._failures[key] = self._failures.get(key, 0) + 1
            if self._failures[key] > self._n or name == "_get_trials":
                return call(*arguments, **named)
            if self._done and self._failures[key] == 1:
                call(*arguments, **named)
            cause = sqlalchemy.exc.OperationalError(
                "COMMIT", {}, ConnectionError("server closed the connection")
            )
            raise StorageInternalError("An exception is raised during the commit.") from cause

        return flaky if callable(call) else call


@pytest.mark.parametrize("done", [True, False])
def test_what_may_have_been_written_is_written_once(url, tmp_path, monkeypatch, no_pause, done):
    steady = database._Steady
    monkeypatch.setattr(database, "_Steady", lambda backend, where: steady(Away(backend, 2, done), where))
    results = run_study(analytic_plan(tmp_path, storage=url, n_trials=10), SilentObserver()).results
    assert [t.number for t in results.trials] == list(range(10))
    monkeypatch.undo()
    study = optuna.load_study(study_name="analytic", storage=url)
    proposals = len(results.trials) + sum(
        t.state == TrialState.COMPLETE and "alias" in t.user_attrs for t in study.trials
    )
    assert [t.number for t in study.trials] == list(range(len(study.trials)))
    assert len(study.trials) == proposals
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    with opened(tmp_path, url) as ledger:
        assert ledger.records == list(results.trials)


def test_a_trial_that_optuna_itself_writes_twice_is_ended(url, tmp_path, monkeypatch):
    """It repeats the creation of a trial on its own: the first one would run for ever."""
    create = optuna.storages.RDBStorage._create_new_trial

    def twice(self, *arguments):
        create(self, *arguments)
        return create(self, *arguments)

    with opened(tmp_path, url) as ledger:
        ledger.use(optuna.samplers.RandomSampler(seed=0))
        ledger.ask()
        monkeypatch.setattr(optuna.storages.RDBStorage, "_create_new_trial", twice)
        assert ledger.ask().number == 2
        monkeypatch.undo()
        ledger.enqueue({"x": 1})
        states = [t.state.name for t in ledger._study.get_trials()]
        assert states == ["RUNNING", "FAIL", "RUNNING", "WAITING"]


def test_a_database_that_is_locked_is_waited_for(url, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(database, "_FIRST_PAUSE_S", 0.01)
    with opened(tmp_path, url) as ledger:
        answers = iter([sqlite3.OperationalError("database is locked"), None])
        real = ledger._study._storage._backend._backend.set_study_user_attr

        def busy(*arguments, **named):
            if (error := next(answers, None)) is not None:
                raise StorageInternalError("commit") from sqlalchemy.exc.OperationalError("x", {}, error)
            return real(*arguments, **named)

        monkeypatch.setattr(ledger._study._storage._backend._backend, "set_study_user_attr", busy)
        with caplog.at_level(logging.WARNING):
            ledger.note("wall_s", 1.0)
    assert "no connection to the study 'analytic'" in caplog.text
    assert "is back after" in caplog.text


def test_a_full_database_is_one_message(url, tmp_path, monkeypatch):
    with opened(tmp_path, url) as ledger:
        full = sqlalchemy.exc.OperationalError("x", {}, sqlite3.OperationalError("database or disk is full"))

        def fails(*arguments, **named):
            raise StorageInternalError("commit") from full

        monkeypatch.setattr(ledger._study._storage._backend._backend, "set_study_user_attr", fails)
        with pytest.raises(StudyError) as error:
            ledger.note("wall_s", 1.0)
    assert "database or disk is full" in str(error.value)
    assert "safe" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunt%2Fer2@127.0.0.1:1/db",
        "postgresql://user:hunt/er2@127.0.0.1:1/db",
        "postgresql://user:hunt er2@[::1/db",
        "nosuch://user:hunter2@host/db",
        "mysql://user:hunter2@host/db",
        "user:hunter2@host",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_errors_of_opening_do_not_have_the_password(url, tmp_path, caplog):
    with pytest.raises(StudyError) as error:
        opened(tmp_path, url)
    assert "study.storage=" in str(error.value)
    for secret in ("hunter2", "er2", "hunt"):
        assert "://" not in url or secret not in str(error.value) + caplog.text


def test_the_missing_extra_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"needs psycopg: pip install 'paredown\[postgres\]'") as error:
        opened(tmp_path, "postgresql://u:secret@h/d")
    assert "secret@" not in str(error.value)


def test_a_kind_that_cannot_be_locked_is_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(database, "_opened", lambda url: optuna.storages.RDBStorage("sqlite://"))
    with ExitStack() as held, caplog.at_level(logging.WARNING):
        open_database("mysql://u:p4ss@h/d", "study", held)
    assert "never run two of one study" in caplog.text
    assert "p4ss" not in caplog.text


def test_a_memory_database_needs_no_lock(tmp_path):
    with opened(tmp_path / "a", "sqlite://"), opened(tmp_path / "b", "sqlite:///:memory:"):
        pass
