import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

import optuna
import pandas as pd
import pytest

from search.executors.processes import ProcessesExecutor
from search.executors.serial import SerialExecutor
from search.record.storage.journal import lock_folder
from search.study.ledger import Ledger
from search.study.study import run_study
from search.study.testing import AnalyticRunner, SilentObserver, analytic_plan
from search.tracking.base import NoTracker
from spaces.candidate import Candidate
from spaces.errors import StudyError
from spaces.space_config import read_space


def run(folder, **changes):
    return run_study(analytic_plan(folder, **changes), SilentObserver())


def test_the_files_of_a_study(tmp_path):
    outcome = run(tmp_path)
    trials = pd.read_csv(tmp_path / "trials.csv")
    assert list(trials["number"]) == list(range(12))
    assert {
        "state",
        "reason",
        "knob.x",
        "metric.quality",
        "cost.board.size",
        "seconds.think",
        "wall_s",
    } <= set(trials)
    assert set(trials["state"]) <= {"complete", "infeasible"}
    front = pd.read_csv(tmp_path / "pareto.csv")
    assert list(front.columns) == list(trials.columns)
    assert tuple(front["number"]) == outcome.results.front
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["n_trials"] == 12
    assert summary["n_complete"] + summary["n_infeasible"] == 12
    assert summary["baseline"] == {"metrics": {"quality": 5.0}, "costs": {"board": {"size": 16.0}}}
    assert summary["best"]["number"] in summary["pareto"]
    assert summary["devices"]["board"]["best"]["number"] == summary["best"]["number"]
    assert summary["hypervolume"] > 0


def test_the_whole_space_gives_the_known_front(tmp_path):
    """quality = x + y, size = x + 2 y^2 <= 10: by hand, (x, 0) and then (x, 1) from where it fits better."""
    outcome = run(tmp_path, n_trials=1000)
    results = outcome.results
    assert outcome.why == "every candidate of the space has been measured"
    assert len(results.trials) == 27  # z changes nothing
    values = {
        (t.values()["metric.quality"], t.values()["cost.board.size"])
        for t in map(results.trial, results.front)
    }
    assert values == {*((float(x), float(x)) for x in range(9)), (9.0, 10.0)}
    assert {t.candidate["y"] for t in results.trials if t.state == "infeasible"} == {2}


def test_a_candidate_with_the_same_file_as_a_trial_is_answered_from_the_study(tmp_path):
    log = tmp_path / "log"
    outcome = run(tmp_path, n_trials=1000, runner=AnalyticRunner(log=log))
    assert len(log.read_text().splitlines()) == 27
    assert outcome.results.aliases
    for alias in outcome.results.aliases:
        same = outcome.results.trial(alias.same_as).candidate
        assert (alias.candidate["x"], alias.candidate["y"]) == (same["x"], same["y"])
        assert alias.candidate["z"] != same["z"]
    table = pd.read_csv(tmp_path / "aliases.csv")
    assert len(table) == len(outcome.results.aliases)


class Builder(AnalyticRunner):
    """Finds out only by building that `z` makes no difference; records the known files of each request."""

    known_files: ClassVar[list] = []

    def key(self, candidate):
        return candidate.digest

    def run(self, request):
        self.known_files.append(dict(request.known))
        return super().run(request)


class LastIsFirst(SerialExecutor):
    """Holds two trials at once, as two workers do; the one that began last is finished first."""

    slots = 2

    def submit(self, request):
        self._waiting.appendleft(request)


def test_two_workers_that_built_the_same_file_at_once_are_one_trial(tmp_path):
    space = read_space({"x": {"int": [3, 3]}, "y": [1], "z": ["a", "b"]})
    results = run(tmp_path, space=space, runner=Builder(), executor=LastIsFirst()).results
    (trial,) = results.trials
    (alias,) = results.aliases
    assert alias.same_as == trial.number == 0
    assert {alias.candidate["z"], trial.candidate["z"]} == {"a", "b"}
    # it stays so when the study is opened again
    again = run(tmp_path, space=space, runner=Builder(), executor=LastIsFirst()).results
    assert (again.trials, again.aliases) == (results.trials, results.aliases)


def test_two_failures_are_two_trials_even_of_the_same_file(tmp_path):
    class Failing(Builder):
        def run(self, request):
            return replace(super().run(request), outcome="failed", reason="no luck")

    space = read_space({"x": {"int": [3, 3]}, "y": [1], "z": ["a", "b"]})
    results = run(tmp_path, space=space, runner=Failing(), executor=LastIsFirst()).results
    assert [t.state for t in results.trials] == ["failed", "failed"]


def test_requests_carry_the_files_of_all_earlier_trials(tmp_path):
    """Those of this session's trials, and after a resume those of the trials before it."""
    runner = Builder()
    runner.known_files.clear()
    first = run(tmp_path, n_trials=3, runner=runner).results
    digests = [trial.artifact_digest for trial in first.trials]
    known = [files for files in runner.known_files if len(files) == 2]
    assert known
    assert all(files == {digests[0]: 0, digests[1]: 1} for files in known)
    runner.known_files.clear()
    run(tmp_path, n_trials=4, runner=runner)
    assert runner.known_files[0] == {digest: number for number, digest in enumerate(digests)}


def test_same_seed_same_study(tmp_path):
    def candidates(name):
        return [t.candidate for t in run(tmp_path / name).results.trials]

    assert candidates("a") == candidates("b")


def test_a_study_begins_with_its_first_candidates_and_only_once(tmp_path):
    first = [Candidate({"x": 5, "y": 2, "z": "b"}), Candidate({"x": 4, "y": 2, "z": "b"})]
    results = run(tmp_path, n_trials=3, first=first).results
    assert [trial.candidate for trial in results.trials[:2]] == first
    assert run(tmp_path, n_trials=5, first=first).results.aliases == ()


def test_resuming_goes_on_to_the_same_number(tmp_path):
    log = tmp_path / "log"
    first = run(tmp_path, n_trials=5, runner=AnalyticRunner(log=log)).results
    second = run(tmp_path, n_trials=12, runner=AnalyticRunner(log=log)).results
    assert second.trials[:5] == first.trials
    assert len(second.trials) == len({t.candidate for t in second.trials}) == 12
    assert len(log.read_text().splitlines()) == 12
    third = run(tmp_path, n_trials=12, runner=AnalyticRunner(log=log)).results
    assert third.trials == second.trials
    assert third.wall_s > second.wall_s


def test_another_space_under_the_same_name_is_refused(tmp_path):
    run(tmp_path, n_trials=2, identity={"space": {"x": [1, 2]}, "task": "a"})
    with pytest.raises(StudyError, match=r"space.x: was \[1, 2\], is \[1, 3\]"):
        run(tmp_path, n_trials=2, identity={"space": {"x": [1, 3]}, "task": "a"})


def test_failures_are_kept_with_their_reason_and_stop_nothing(tmp_path):
    results = run(tmp_path, n_trials=27, runner=AnalyticRunner(fail_at=3)).results
    failed = [t for t in results.trials if t.state == "failed"]
    assert len(failed) == 3
    assert {t.reason for t in failed} == {"this x fails"}
    assert len(results.trials) == 27
    # a failed candidate is not tried again on resume
    assert len(run(tmp_path, n_trials=40, runner=AnalyticRunner()).results.trials) == 27


def test_a_candidate_that_cannot_be_built_is_no_trial(tmp_path):
    results = run(tmp_path, n_trials=1000, runner=AnalyticRunner(refuse_at=3)).results
    assert len(results.trials) == 24
    assert any("this x cannot be built" in note for note in results.notes)


def test_a_broken_constraint_is_reported_with_its_excess(tmp_path):
    results = run(tmp_path, n_trials=27).results
    worst = max(
        (t for t in results.trials if t.state == "infeasible"), key=lambda t: t.values()["cost.board.size"]
    )
    assert worst.reason == "small: board.size is 16, 6 above the limit of 10"


def test_not_a_number_fails_the_trial(tmp_path):
    class Broken(AnalyticRunner):
        def run(self, request):
            result = super().run(request)
            return replace(
                result,
                measurements=(replace(result.measurements[0], value=float("nan")), *result.measurements[1:]),
            )

    results = run(tmp_path, n_trials=2, runner=Broken()).results
    assert {t.state for t in results.trials} == {"failed"}
    assert "metric.quality is nan" in results.trials[0].reason
    assert results.best is None


def test_patience_and_time_limit(tmp_path):
    assert "study.patience" in run(tmp_path / "a", n_trials=1000, patience=2).why
    outcome = run(tmp_path / "b", n_trials=1000, time_limit_s=0.3, runner=AnalyticRunner(seconds=0.1))
    assert outcome.why == "study.time_limit is reached"
    assert 1 <= len(outcome.results.trials) < 27


def test_parallel_workers_measure_each_candidate_once(tmp_path):
    log = tmp_path / "log"
    runner = AnalyticRunner(log=log)
    results = run(tmp_path, n_trials=1000, runner=runner, executor=ProcessesExecutor(workers=2)).results
    assert len(results.trials) == 27
    assert len(log.read_text().splitlines()) == 27
    assert len({line.split()[0] for line in log.read_text().splitlines()}) == 2
    assert str(os.getpid()) not in log.read_text()


def test_an_interrupted_study_keeps_everything(tmp_path):
    def interrupt(record):
        if record.number == 4:
            raise KeyboardInterrupt

    outcome = run_study(analytic_plan(tmp_path), SilentObserver(on_trial=interrupt))
    assert outcome.interrupted
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 5
    assert json.loads((tmp_path / "summary.json").read_text())["n_trials"] == 5
    assert len(run(tmp_path).results.trials) == 12


def test_an_interrupt_that_gets_lost_ends_the_study_nevertheless(tmp_path, interruptible):
    def interrupt(record):
        if record.number == 4:
            with suppress(KeyboardInterrupt):  # as a destructor or a callback from C does
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    outcome = run_study(analytic_plan(tmp_path), SilentObserver(on_trial=interrupt))
    assert signal.getsignal(signal.SIGINT) is before
    assert outcome.interrupted
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 5


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        outcome = run_study(
            analytic_plan(tmp_path),
            SilentObserver(on_trial=lambda record: signal.raise_signal(signal.SIGINT)),
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert not outcome.interrupted


def test_two_writers_are_refused(tmp_path):
    plan = analytic_plan(tmp_path)
    with (
        Ledger(plan.name, plan.folder, None, plan.objectives, plan.constraints, plan.identity),
        pytest.raises(StudyError, match="another process"),
    ):
        run(tmp_path)


def test_a_killed_or_closed_writer_releases_its_lock(tmp_path):
    script = (
        "import sys, pathlib; from search.record.storage.journal import lock_folder\n"
        "kept = lock_folder(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match="another process"):
            lock_folder(tmp_path)
        process.kill()
    lock_folder(tmp_path).release()
    lock_folder(tmp_path).release()


def test_a_torn_last_line_of_the_journal_is_dropped(tmp_path):
    run(tmp_path, n_trials=4)
    journal = tmp_path / "study.journal"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "worker')
    assert len(run(tmp_path, n_trials=6).results.trials) == 6


def test_a_running_trial_of_a_dead_process_is_proposed_again(tmp_path):
    plan = analytic_plan(tmp_path)
    with Ledger(plan.name, plan.folder, None, plan.objectives, plan.constraints, plan.identity) as ledger:
        ledger.use(optuna.samplers.RandomSampler(seed=0))
        trial = ledger.ask()
        trial.suggest_int("x", 0, 8)
        trial.suggest_categorical("y", (0, 1, 2))
        trial.suggest_categorical("z", ("a", "b"))
        lost = dict(trial.params)
    results = run(tmp_path, n_trials=3).results
    assert dict(results.trials[0].candidate) == lost


SCRIPT = """
import sys
from pathlib import Path
from search.study.study import run_study
from search.study.testing import AnalyticRunner, SilentObserver, analytic_plan
folder = Path(sys.argv[1])
run_study(analytic_plan(folder, n_trials=24, runner=AnalyticRunner(log=folder / "log", seconds=0.02)), SilentObserver())
"""


def test_a_study_killed_at_random_moments_loses_at_most_the_running_trial(tmp_path):
    rng = random.Random(0)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(command)
        # wait until it has begun, so that the kill falls into the study and not into imports
        before = _lines(tmp_path / "log")
        until = time.monotonic() + 60
        while _lines(tmp_path / "log") == before and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if kills == 5:
            break
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert kills >= 2
    trials = pd.read_csv(tmp_path / "trials.csv")
    assert list(trials["number"]) == list(range(24))
    assert not trials.duplicated(["knob.x", "knob.y"]).any()
    # each kill repeats at most the trial that was running
    assert 24 <= _lines(tmp_path / "log") <= 24 + kills


def _lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def _broken(*arguments):
    raise KeyError("a bug")


def test_a_bug_in_the_report_costs_nothing_but_the_report(tmp_path):
    (tmp_path / "report.html").write_text("of an earlier session")
    outcome = run(tmp_path, write_report=_broken)
    assert outcome.failed.startswith("Could not make report.html (KeyError: 'a bug')")
    assert str(tmp_path / "errors.log") in outcome.failed
    assert "in _broken" in (tmp_path / "errors.log").read_text()
    assert not (tmp_path / "report.html").exists()
    whole = run(tmp_path / "whole").results
    assert outcome.results.front == whole.front
    for name in ("trials.csv", "pareto.csv", "summary.json"):
        assert (tmp_path / name).exists()
    again = run(tmp_path)
    assert again.failed == ""
    assert not (tmp_path / "errors.log").exists()


def test_a_bug_in_a_tracker_s_end_costs_nothing_else(tmp_path):
    class Broken(NoTracker):
        finish = close = _broken

    outcome = run(tmp_path, tracker=Broken())
    assert "the tracker's record (KeyError: 'a bug')" in outcome.failed
    assert (tmp_path / "summary.json").exists()
