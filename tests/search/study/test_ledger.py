"""What the record of a study keeps, what the sampler is told of it, and what is left after a kill."""

import json
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from evaluators.base import Measurement
from search.record.results import Alias, Constraint, Objective, TrialRecord
from search.record.trial_records import record_to_json
from search.study.ledger import Ledger
from spaces.candidate import Candidate
from spaces.errors import StudyError

QUALITY = Objective("metric.quality", "maximize")
SIZE = Objective("cost.board.size", "minimize")
SMALL = Constraint("small", "cost.board.size", "max", 10.0)


def opened(folder, objectives=(QUALITY, SIZE), identity=None, storage=None, constraints=(SMALL,)):
    ledger = Ledger("study", folder, storage, objectives, constraints, identity or {"space": {"x": 1}})
    ledger.use(optuna.samplers.RandomSampler(seed=0))
    return ledger


def measured(number, state="complete", quality=3.0, size=12.0, **more):
    measurements = (
        Measurement("quality", quality, "", "measured"),
        Measurement("size", size, "", "modelled", "board"),
    )
    return TrialRecord(
        number, state, "", Candidate({"x": number}), measurements, artifact_digest=f"d{number}", **more
    )


def pruned(number):
    measurements = (
        Measurement("quality_partial", 2.0, "", "measured"),
        Measurement("quality_partial_error", 0.5, "", "measured"),
        Measurement("quality_partial_images", 10, "images", "measured"),
        Measurement("size", 7.0, "", "modelled", "board"),
    )
    return TrialRecord(number, "pruned", "of no use", Candidate({"x": number}), measurements)


def asked(ledger):
    trial = ledger.ask()
    trial.suggest_int("x", 0, 8)
    return trial


def begun(folder, identity):
    """Leaves a study with a proposal."""
    with opened(folder, identity=identity) as ledger:
        asked(ledger)


def optuna_trials(ledger):
    return ledger._study.get_trials(deepcopy=False)


def test_a_trial_is_kept_and_the_sampler_is_told(tmp_path):
    with opened(tmp_path) as ledger:
        ledger.add(asked(ledger), measured(0))
        (told,) = optuna_trials(ledger)
        assert told.state == TrialState.COMPLETE
        assert told.values == [3.0, 12.0]
        assert told.constraints == {"small": 2.0}
        assert (ledger.n_proposed, ledger.records) == (1, [measured(0)])
    with opened(tmp_path) as ledger:
        assert ledger.records == [measured(0)]
        assert ledger.n_proposed == 1


def test_what_failed_or_was_rejected_has_no_values(tmp_path):
    with opened(tmp_path) as ledger:
        ledger.add(asked(ledger), measured(0, state="failed"))
        ledger.reject(asked(ledger))
        assert [t.state for t in optuna_trials(ledger)] == [TrialState.FAIL, TrialState.FAIL]
        assert [r.number for r in ledger.records] == [0]


@pytest.mark.parametrize(
    ("objectives", "state", "reported"),
    [((QUALITY, SIZE), TrialState.FAIL, {}), ((QUALITY,), TrialState.PRUNED, {10: 2.0})],
)
def test_of_a_pruned_trial_the_estimate_is_told(tmp_path, objectives, state, reported):
    with opened(tmp_path, objectives) as ledger:
        ledger.add(asked(ledger), pruned(0))
        (told,) = optuna_trials(ledger)
        assert (told.state, told.intermediate_values) == (state, reported)
        partial = json.loads(told.user_attrs["partial"])
        n = len(objectives)
        assert partial == {"n": 10, "values": [2.0, 7.0][:n], "errors": [0.5, 0.0][:n]}
        assert told.constraints == {"small": -3.0}


def test_of_an_infeasible_trial_without_an_objective_the_others_and_the_excess_are_told(tmp_path):
    """A device that does not take the file has no size for it."""
    quality = Measurement("quality", 3.0, "", "measured")
    layers = Measurement("layers", 2.0, "", "modelled", "board")
    record = TrialRecord(0, "infeasible", "not taken", Candidate({"x": 0}), (quality, layers))
    with opened(tmp_path, constraints=(Constraint("formats", "cost.board.layers", "max", 0.0),)) as ledger:
        ledger.add(asked(ledger), record)
        (told,) = optuna_trials(ledger)
        assert told.state == TrialState.FAIL
        assert json.loads(told.user_attrs["partial"]) == {
            "n": 0,
            "values": [3.0, None],
            "errors": [0.0, None],
        }
        assert told.constraints == {"formats": 2.0}
    with opened(tmp_path) as ledger:
        assert ledger.records == [record]


CURVE = {"curve": {"metric": "quality", "values": [1.0, 2.0, 2.5], "macs": 5}}


@pytest.mark.parametrize(
    ("objectives", "reported"), [((QUALITY, SIZE), {}), ((QUALITY,), {1: 1.0, 2: 2.0, 3: 2.5})]
)
def test_how_the_training_went_is_told_where_there_is_one_objective(tmp_path, objectives, reported):
    with opened(tmp_path, objectives) as ledger:
        ledger.add(asked(ledger), measured(0, details=CURVE))
        (told,) = optuna_trials(ledger)
        assert told.state == TrialState.COMPLETE
        assert told.values == [3.0, 12.0][: len(objectives)]
        assert told.intermediate_values == reported


def test_of_a_pruned_trial_the_training_is_told_before_any_estimate(tmp_path):
    with opened(tmp_path, (QUALITY,)) as ledger:
        ledger.add(asked(ledger), replace(pruned(0), details=CURVE))
        ledger.add(asked(ledger), TrialRecord(1, "pruned", "of no use", Candidate({"x": 1})))
        trained, unknown = optuna_trials(ledger)
        assert (trained.state, unknown.state) == (TrialState.PRUNED, TrialState.PRUNED)
        assert trained.intermediate_values == {1: 1.0, 2: 2.0, 3: 2.5}
        assert unknown.intermediate_values == {}
        assert json.loads(unknown.user_attrs["partial"]) == {"n": 0, "values": [None], "errors": [None]}
        assert unknown.constraints == {}  # its size is not known either


def test_a_training_that_a_kill_left_half_told_is_told_to_the_end(tmp_path):
    with opened(tmp_path, (QUALITY,)) as ledger:
        ledger._tell = lambda *_: None
        trial = asked(ledger)
        trial.report(1.0, 1)
        ledger.add(trial, measured(0, details=CURVE))
    with opened(tmp_path, (QUALITY,)) as ledger:
        (told,) = optuna_trials(ledger)
        assert (told.state, told.values) == (TrialState.COMPLETE, [3.0])
        assert told.intermediate_values == {1: 1.0, 2: 2.0, 3: 2.5}


def test_opening_again_leaves_what_has_ended_and_what_waits_as_they_are(tmp_path):
    with opened(tmp_path) as ledger:
        ledger.add(asked(ledger), measured(0))
        ledger.add(asked(ledger), measured(1, state="failed"))
        ledger.add(asked(ledger), pruned(2))
        ledger.add(asked(ledger), measured(3, state="infeasible"))
        ledger.alias(asked(ledger), Alias(Candidate({"x": 5}), 0))
        ledger.alias(asked(ledger), Alias(Candidate({"x": 6}), 1))
        ledger.reject(asked(ledger))
        ledger.enqueue({"x": 4})
        before, records, aliases = optuna_trials(ledger), ledger.records, ledger.aliases
    for _ in range(2):
        with opened(tmp_path) as ledger:
            assert optuna_trials(ledger) == before
            assert (ledger.records, ledger.aliases) == (records, aliases)
    assert [t.state.name for t in before] == [
        "COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE", "FAIL", "FAIL", "WAITING",
    ]  # fmt: skip


def test_an_alias_is_told_its_trials_values_and_kept(tmp_path):
    other = Alias(Candidate({"x": 5}), 0)
    repeated = Alias(Candidate({"x": 0}), 0)
    with opened(tmp_path) as ledger:
        ledger.add(asked(ledger), measured(0))
        for alias in (other, other, repeated):
            ledger.alias(asked(ledger), alias)
        assert ledger.aliases == [other]  # a repetition is none, and each is listed once
        assert [t.values for t in optuna_trials(ledger)] == [[3.0, 12.0]] * 4
    with opened(tmp_path) as ledger:
        assert ledger.aliases == [other]
        assert ledger.n_proposed == 4


def test_what_a_kill_left_untold_is_told_on_opening(tmp_path):
    """The record or the alias was written, the values were not."""
    alias = Alias(Candidate({"x": 5}), 0)
    with opened(tmp_path) as ledger:
        tell, ledger._tell = ledger._tell, lambda *_: None
        ledger.add(asked(ledger), measured(0))
        ledger.alias(asked(ledger), alias)
        assert {t.state for t in optuna_trials(ledger)} == {TrialState.RUNNING}
        assert tell is not None
    with opened(tmp_path) as ledger:
        assert [t.values for t in optuna_trials(ledger)] == [[3.0, 12.0]] * 2
        assert (ledger.records, ledger.aliases) == ([measured(0)], [alias])


def test_a_constraint_that_a_kill_left_half_told_is_told_once(tmp_path):
    with opened(tmp_path) as ledger:
        trial = asked(ledger)
        trial.set_user_attr("record", record_to_json(measured(0, "infeasible")))
        trial.set_constraint("small", 2.0)
    with opened(tmp_path) as ledger:
        (told,) = optuna_trials(ledger)
    assert told.state == TrialState.COMPLETE
    assert told.constraints == {"small": 2.0}


def test_what_ran_when_the_process_died_is_proposed_again_first(tmp_path):
    with opened(tmp_path) as ledger:
        ledger.enqueue({"x": 7})  # not what the sampler proposes first
        lost = asked(ledger).params
        ledger.ask()  # killed before it had any value: nothing to repeat
    with opened(tmp_path) as ledger:
        states = [t.state for t in optuna_trials(ledger)]
        assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.WAITING]
        assert asked(ledger).params == lost


@pytest.mark.parametrize(("runs_here", "deaths"), [(True, 2), (False, 5)])
def test_a_candidate_with_which_the_process_died_twice_is_set_aside(tmp_path, runs_here, deaths):
    """One that ran elsewhere did not end this process, however often that died."""
    with opened(tmp_path) as ledger:
        ledger.enqueue({"x": 7})
    for _ in range(deaths):
        with opened(tmp_path) as ledger:
            assert ledger.records == []
            trial = asked(ledger)
            assert trial.params == {"x": 7}
            if runs_here:
                ledger.begin(trial, Candidate({"x": 7}))
    with opened(tmp_path) as ledger:
        if not runs_here:
            assert asked(ledger).params == {"x": 7}
            return
        (record,) = ledger.records
        assert (record.number, record.state, record.candidate) == (0, "failed", Candidate({"x": 7}))
        assert "died 2 times" in record.reason
        ledger.add(asked(ledger), measured(1))
    with opened(tmp_path) as ledger:
        assert [r.number for r in ledger.records] == [0, 1]


def test_records_come_by_number_whatever_order_they_were_proposed_in(tmp_path):
    with opened(tmp_path) as ledger:
        first, second = asked(ledger), asked(ledger)
        ledger.add(second, measured(0))
        ledger.add(first, measured(1))
    with opened(tmp_path) as ledger:
        assert [r.number for r in ledger.records] == [0, 1]


def test_a_study_of_something_else_is_refused_and_let_go(tmp_path):
    begun(tmp_path, {"space": {"x": 1}, "task": "a"})
    with pytest.raises(StudyError) as error:
        opened(tmp_path, identity={"space": {"x": 2, "y": 3}, "task": "a"})
    assert "space.x: was 1, is 2" in str(error.value)
    assert "space.y: was absent, is 3" in str(error.value)
    assert "task" not in str(error.value)
    opened(tmp_path, identity={"space": {"x": 1}, "task": "a"}).close()  # nobody holds the folder


def test_settings_that_were_refused_before_any_proposal_may_be_changed(tmp_path):
    opened(tmp_path, identity={"size": 100}).close()
    begun(tmp_path, {"size": 200})
    with pytest.raises(StudyError, match="size: was 200, is 100"):
        opened(tmp_path, identity={"size": 100})


def test_each_difference_is_told_by_its_path_and_as_it_was_and_is(tmp_path):
    begun(tmp_path, {"a": 5, "b": {"c": 1}, "d": 1, "e": {"f": 2, "g": {"h": 3}}})
    with pytest.raises(StudyError) as error:
        opened(tmp_path, identity={"a": 4, "b": 2, "d": {"x": 1}, "e": {"f": 2, "g": {"h": 9}}})
    assert str(error.value).splitlines()[1:-1] == [
        "  a: was 5, is 4",
        "  b: was {'c': 1}, is 2",
        "  d: was 1, is {'x': 1}",
        "  e.g.h: was 3, is 9",
    ]


def test_at_most_twelve_differences_are_told(tmp_path):
    begun(tmp_path, {f"k{i:02}": 0 for i in range(20)})
    with pytest.raises(StudyError) as error:
        opened(tmp_path, identity={f"k{i:02}": 1 for i in range(20)})
    assert str(error.value).count(": was 0, is 1") == 12


class Explaining(optuna.samplers.RandomSampler):
    def __init__(self, found):
        super().__init__(seed=0)
        self._found = found

    def explanation(self):
        return self._found


def test_what_led_to_the_proposals_lasts_also_over_a_session_without_any(tmp_path):
    for found in ({"units": {"a": 1}}, {}):
        with opened(tmp_path) as ledger:
            ledger.use(Explaining(found))
            ledger.note_explanation()
            assert ledger.explanation == {"units": {"a": 1}}


def test_notes_last(tmp_path):
    again = (Measurement("size", 1.5, "", "measured", "board"),)
    with opened(tmp_path) as ledger:
        assert not ledger.has_later_results
        assert ledger.noted("wall_s") is None
        assert ledger.re_evaluated(0) is None
        assert ledger.explained(0) is None
        ledger.note("wall_s", 2.0)
        assert not ledger.has_later_results
        ledger.note_re_evaluated(0, again)
        assert ledger.has_later_results
        ledger.note_explained(1, {"why": "so"})
    with opened(tmp_path) as ledger:
        assert ledger.has_later_results
        assert (ledger.noted("wall_s"), ledger.re_evaluated(0), ledger.explained(1)) == (
            2.0,
            again,
            {"why": "so"},
        )


def test_one_writer_at_a_time_and_closing_twice_is_harmless(tmp_path):
    ledger = opened(tmp_path)
    with pytest.raises(StudyError, match="another process"):
        opened(tmp_path)
    ledger.close()
    ledger.close()
    opened(tmp_path).close()


def test_a_forecast_is_the_samplers_if_it_can_tell(tmp_path):
    class Telling(optuna.samplers.RandomSampler):
        def forecast(self, study, k):
            return ("of", k)

    with opened(tmp_path) as ledger:
        assert ledger.forecast(3) is None
        ledger.use(Telling())
        assert ledger.forecast(3) == ("of", 3)


def test_what_replaces_a_proposal_is_next_and_keeps_what_the_sampler_noted(tmp_path):
    """NSGA-II leaves trials without a generation out of every population."""
    with opened(tmp_path) as ledger:
        ledger.use(optuna.samplers.NSGAIISampler(population_size=2, seed=0))
        dropped = asked(ledger)
        ledger.replace(dropped, {"x": 4})
        replacement = asked(ledger)
        assert replacement.params == {"x": 4}
        before, after = optuna_trials(ledger)
        assert before.state == TrialState.FAIL
        generation = "NSGAIISampler:generation"
        assert after.system_attrs[generation] == before.system_attrs[generation] == 0


def test_a_dashboard_shows_names_the_trials_number_and_no_record(tmp_path):
    with opened(tmp_path) as ledger:
        trial = ledger.ask()
        ledger.reject(trial)
        trial = ledger.ask()
        ledger.add(trial, replace(measured(0, "infeasible"), reason="size 12 breaks max 10"))
        ledger.show("the note")
        study = ledger._study
        assert study.metric_names == ["metric.quality", "cost.board.size"]
        assert study.trials[1].user_attrs == {"trial": 0, "reason": "size 12 breaks max 10"}
    with opened(tmp_path) as again:
        assert [r.number for r in again.records] == [0]


def test_records_of_version_0_2_0_are_read(tmp_path):
    with opened(tmp_path) as ledger:
        trial = ledger.ask()
        trial.set_user_attr("record", record_to_json(measured(0)))
        ledger._study.tell(trial, [3.0, 12.0])
    with opened(tmp_path) as again:
        assert again.records == [measured(0)]
