"""Brute force and grid propose every candidate exactly once, also with running, failed and resumed trials."""

import time
from itertools import product

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from search.samplers.brute_force import BruteForceSampler
from search.samplers.candidates.proposals import grid_values
from search.samplers.grid import GridSampler


def suggest(trial):
    """14 candidates: clip only with scheme c."""
    values = [trial.suggest_categorical("scheme", ["a", "b", "c"]), trial.suggest_int("bits", 4, 8, step=4)]
    if values[0] == "c":
        values.append(trial.suggest_float("clip", 0.1, 0.5, step=0.1))
    return tuple(values)


ALL = {*product("ab", (4, 8)), *product("c", (4, 8), (0.1, 0.2, 0.3, 0.4, 0.5))}


def ask(study):
    trial = study.ask()
    return trial, suggest(trial)


@pytest.mark.parametrize("kind", [BruteForceSampler, GridSampler])
def test_every_candidate_once_by_ask_and_tell(kind):
    study = optuna.create_study(sampler=kind(seed=0))
    found = []
    for _ in ALL:
        assert not study.sampler.exhausted(study)
        trial, values = ask(study)
        found.append(values)
        study.tell(trial, 1.0)
    assert study.sampler.exhausted(study)
    assert len(found) == len(set(found))
    assert set(found) == ALL


def test_grid_is_in_order():
    study = optuna.create_study(sampler=GridSampler())
    found = []
    for _ in range(6):
        trial, values = ask(study)
        found.append(values)
        study.tell(trial, 1.0)
    assert found == [("a", 4), ("a", 8), ("b", 4), ("b", 8), ("c", 4, 0.1), ("c", 4, 0.2)]


def test_the_seed_determines_the_order():
    def order(seed):
        study = optuna.create_study(sampler=BruteForceSampler(seed=seed))
        return [study.tell(trial, 0.0) and values for trial, values in (ask(study) for _ in range(14))]

    assert order(1) == order(1)
    assert order(1) != order(2)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batches=st.lists(st.integers(1, 5), min_size=14, max_size=14),
    fail=st.sets(st.integers(0, 13)),
    resume_at=st.integers(0, 13),
)
def test_exact_with_running_failed_and_resumed(seed, batches, fail, resume_at):
    study = optuna.create_study(sampler=BruteForceSampler(seed=seed))
    found = []
    for size in batches:
        batch = [ask(study) for _ in range(min(size, len(ALL) - len(found)))]
        for trial, values in reversed(batch):
            if len(found) == resume_at:
                study.sampler = BruteForceSampler(seed=seed)  # its only state is the study
            found.append(values)
            if len(found) in fail:
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, 0.0)
    assert len(found) == len(set(found))
    assert len(found) == len(ALL)


def test_resumes_from_a_journal(tmp_path):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    found = []
    for session in range(3):
        storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
        study = optuna.create_study(
            study_name="s", storage=storage, load_if_exists=True, sampler=BruteForceSampler(seed=session)
        )
        for _ in range(5 if session < 2 else 4):
            trial, values = ask(study)
            found.append(values)
            study.tell(trial, 0.0)
    assert sorted(map(str, found)) == sorted(map(str, ALL))


def test_trials_added_in_another_knob_order_count():
    study = optuna.create_study(sampler=BruteForceSampler(seed=0))
    first = [ask(study) for _ in range(14)]
    added = optuna.create_study(sampler=BruteForceSampler(seed=1))
    for trial, _ in first[:9]:
        names = sorted(trial.params)  # alphabetical: bits, clip, scheme
        added.add_trial(
            create_trial(
                params={n: trial.params[n] for n in names},
                distributions={n: trial.distributions[n] for n in names},
                value=0.0,
            )
        )
    rest = [ask(added)[1] for _ in range(5)]
    assert {values for _, values in first[:9]} | set(rest) == ALL


def test_one_sampler_serves_two_studies():
    sampler = BruteForceSampler(seed=0)
    for _ in range(2):
        study = optuna.create_study(sampler=sampler)
        assert {ask(study)[1] for _ in range(14)} == ALL


def test_enqueued_candidates_are_not_repeated():
    study = optuna.create_study(sampler=BruteForceSampler(seed=0))
    study.enqueue_trial({"scheme": "c", "bits": 8, "clip": 0.3})
    found = []
    for _ in range(14):
        trial, values = ask(study)
        found.append(values)
        study.tell(trial, 0.0)
    assert found[0] == ("c", 8, 0.3)
    assert set(found) == ALL


def test_stop_when_done_stops_the_optimisation():
    study = optuna.create_study(sampler=BruteForceSampler(stop_when_done=True))
    study.optimize(lambda trial: float(len(suggest(trial))), n_trials=100)
    assert len(study.trials) == len(ALL)


def test_threads():
    study = optuna.create_study(sampler=BruteForceSampler(seed=0))
    study.optimize(lambda trial: float(len(suggest(trial))), n_trials=14, n_jobs=3)
    assert len({tuple(t.params.values()) for t in study.trials}) >= 12  # threads may race for a last knob


def test_a_continuous_knob_is_never_exhausted():
    study = optuna.create_study(sampler=BruteForceSampler(seed=0))
    proposed = set()
    for _ in range(20):
        trial = study.ask()
        proposed.add((trial.suggest_float("x", 0, 1), trial.suggest_categorical("y", [0, 1])))
        study.tell(trial, 0.0)
    assert len(proposed) == 20
    assert not study.sampler.exhausted(study)


def test_ten_thousand_points_are_fast():
    study = optuna.create_study(sampler=BruteForceSampler(seed=0))
    began = time.process_time()
    proposed = set()
    for _ in range(3000):  # of 10,000
        trial = study.ask()
        proposed.add(tuple(trial.suggest_int(name, 1, 10) for name in "abcd"))
        study.tell(trial, 0.0)
    assert len(proposed) == 3000
    # about 2 s; a tree rebuilt for every knob would need minutes
    assert time.process_time() - began < 20


def test_grid_values_are_exact():
    kinds = optuna.distributions
    assert grid_values(kinds.FloatDistribution(0.1, 0.3, step=0.1)) == [0.1, 0.2, 0.3]
    assert grid_values(kinds.IntDistribution(1, 100, log=True)) == list(range(1, 101))
    assert grid_values(kinds.IntDistribution(0, 10, step=5)) == [0, 5, 10]
    assert grid_values(kinds.FloatDistribution(0, 1)) is None
    assert grid_values(kinds.FloatDistribution(2.5, 2.5)) == [2.5]
    assert grid_values(kinds.IntDistribution(0, 10**9)) is None
