"""Studies learn from finished ones, and no file that lies in the folder stops them."""

import json
import math
import shutil
import time
from dataclasses import replace

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.knowledge.base import Deadline, KnowledgeSource, NoKnowledge, Own, PastStudy, PastTrial, Refused
from search.knowledge.folder import FolderKnowledge
from search.knowledge.study_files import read_study
from search.planning.gather_knowledge import gather, knowledge_of
from search.record.metadata import StudyMetadata
from search.record.results import Objective
from spaces.errors import ConfigError
from spaces.space_config import read_space

MAIN = (Objective("metric.top1", "maximize"),)
METADATA = StudyMetadata(
    model="ours", model_digest="m", task="digits", task_digest="t", baseline={"metric.top1": 90.0},
    units={"metric.top1": "%"}, directions={"metric.top1": "maximize"}, defaults={"q.c": 0},
)  # fmt: skip
SPACE = read_space({"q": {"a": [1, 2], "b": ["x", "y"]}})


class Listed(KnowledgeSource):
    def __init__(self, *studies, seconds=5.0):
        self._studies, self.seconds = studies, seconds

    def studies(self, own, deadline):
        yield from self._studies


def past(name="past", values=None, trials=None, **metadata):
    trials = trials or [({"q.a": str(a), "q.b": "x"}, {"metric.top1": 80.0 + a}) for a in (1, 2)]
    if values is not None:
        trials = [(knobs, values) for knobs, _ in trials[:1]]
    defaults = {"model": "theirs", "task": "digits", "baseline": {"metric.top1": 85.0}}
    return PastStudy(
        name, StudyMetadata(**{**defaults, **metadata}), tuple(PastTrial(k, v) for k, v in trials)
    )


def learn(*studies, metadata=METADATA, space=SPACE, objectives=MAIN, seconds=5.0, tmp="/nowhere/ours"):
    from pathlib import Path

    return gather(Listed(*studies, seconds=seconds), Own("ours", Path(tmp)), metadata, space, objectives)


# -- real studies ----------------------------------------------------------------------------------------------


def test_a_third_network_learns_from_two(lab):
    _, known = lab.planned("third", "three")
    assert known.summary.startswith("learned from 8 trials of 2 earlier studies: ")
    assert "one (digits)" in known.summary
    assert known.refused == ()
    assert {row.task for row in known.rows} == {"one (digits)", "two (digits)"}
    for row in known.rows:
        assert row.params["quantize.weight_bits"] in (4, 8)
        assert row.values[0] == pytest.approx(row.value - row.baseline)
        assert row.values[1] > 0  # bytes, as a ratio
        assert row.descriptors["depthwise"] == 1
        assert not row.same_model
    assert known.descriptors["log2_parameters"] > known.rows[0].descriptors["log2_parameters"]


def test_the_rows_are_what_the_study_measured(lab):
    results, _ = lab.run("first")  # nothing is left to do
    _, known = lab.planned("fourth", "four")
    rows = [row for row in known.rows if row.task == "one (digits)"]
    measured = {frozenset(t.candidate.items()): t.values() for t in results.trials}
    before = {m.column: m.value for m in results.baseline}
    assert len(rows) == len(measured) == 4
    for row in rows:
        values = measured[frozenset(row.params.items())]
        assert row.value == values["metric.top1"]
        assert row.baseline == before["metric.top1"]
        assert row.values[1] == values["metric.file_bytes"] / before["metric.file_bytes"]


def test_a_resumed_study_is_not_its_own_knowledge(lab):
    _, known = lab.planned("first", "one")
    assert {row.task for row in known.rows} == {"two (digits)"}


def test_another_study_of_the_very_same_model_is_marked(lab):
    _, known = lab.planned("again", "one")
    assert {row.task: row.same_model for row in known.rows} == {"one (digits)": True, "two (digits)": False}
    assert "4 of the trials are of this very model" in known.summary
    _, other_data = lab.planned("again", "one", "task.validation=120")
    assert not any(row.same_model for row in other_data.rows)


def test_notes_and_metadata_reach_the_study(lab):
    results, known = lab.run("fifth", "five", "study.n_trials=1")
    assert results.learned == (known.summary,)
    assert known.summary in results.remarks
    record = yaml.safe_load((results.folder / "config.yaml").read_text())
    assert record["knowledge"]["baseline"]["metric.top1"] == known.metadata.baseline["metric.top1"]
    assert record["knowledge"]["defaults"]["quantize.keep_float"] == []
    assert record["digests"]["model"]["digest"] == record["knowledge"]["model_digest"]
    shutil.rmtree(results.folder)


def test_a_space_with_other_knobs(lab):
    """A knob that the earlier study lacks was at its default; one that this study lacks must have been at ours."""
    space = {
        "quantize": {
            "granularity": ["tensor", "channel"],
            "clipping": ["max", "mse"],
            "calibration_images": 16,
        }
    }
    _, known = lab.planned("sixth", "six", space=space)
    assert {row.params["quantize.clipping"] for row in known.rows} == {"max"}
    assert {row.params.keys() >= {"quantize.granularity"} for row in known.rows} == {True}
    plain = {"quantize.scheme", "quantize.weight_bits"}
    assert all(plain.isdisjoint(row.params) for row in known.rows)
    assert 0 < len(known.rows) < 8  # symmetric and 4-bit trials say nothing here


def test_other_spaces_are_refused_with_what_differs(lab):
    other = {"quantize": {"calibration_images": [8, 12]}}
    _, known = lab.planned("seventh", "seven", space=other)
    assert known.rows == ()
    (note,) = known.notes
    assert note.startswith("not learned from ")
    assert ": none of its trials is a candidate of this space: " in note
    assert "first" in note
    assert "second" in note
    assert "quantize.calibration_images is 16 there; here it can be: 8, 12" in note


def test_samplers_that_do_not_learn_get_no_knowledge(lab):
    for sampler in ("tpe", "quantune", "random"):
        _, known = lab.planned("eighth", "eight", f"sampler={sampler}")
        assert known.rows == known.notes == ()
        assert known.metadata.model == "eight"
    _, known = lab.planned("eighth", "eight", "knowledge=none")
    assert known.rows == known.notes == ()


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("knowledge.seconds=soon", "knowledge.seconds must be a number"),
        ("knowledge.seconds=0", "knowledge.seconds must be above 0"),
        ("+knowledge.nonsense=1", "Unknown key 'nonsense' in knowledge"),
        ("knowledge._target_=search.api.run", "knowledge"),
        ("knowledge=csv", "knowledge.path must be given"),
    ],
)
def test_mistakes_in_the_config(lab, override, text):
    with pytest.raises(ConfigError, match=text):
        lab.planned("ninth", "nine", override)


def test_a_path_that_is_not_there_is_reported(lab):
    _, known = lab.planned("tenth", "ten", "knowledge.path=nope")
    assert known.notes == ("not learned from nope: knowledge.path names no folder",)
    _, known = lab.planned("tenth", "ten", f"knowledge.path=[{lab.folder}/outputs/first,nope]")
    assert len(known.rows) == 4


# -- folders in any state --------------------------------------------------------------------------------------


@pytest.fixture
def copy(lab, tmp_path):
    """A copy of a finished study, to be damaged."""
    return shutil.copytree(lab.folder / "outputs/first", tmp_path / "outputs/copy")


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def test_a_killed_study_teaches_too(copy):
    (copy / "summary.json").unlink()
    text = (copy / "trials.csv").read_text()
    (copy / "trials.csv").write_text(text[: text.rindex(",")])  # the last row is cut off
    study = read_study(copy)
    assert len(study.trials) == 3
    assert study.metadata.baseline["metric.top1"] == 9.0


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda d: (d / "config.yaml").unlink(), "has trials.csv but no config.yaml"),
        (lambda d: (d / "config.yaml").write_text(""), "its config.yaml is no study's"),
        (lambda d: (d / "config.yaml").write_text("a: [1"), "its config.yaml is half-written or damaged"),
        (lambda d: (d / "config.yaml").write_text("- 1\n"), "its config.yaml is no study's"),
        (lambda d: (d / "config.yaml").write_bytes(b"\xff\xfe\x00"), "its config.yaml"),
        (lambda d: (d / "config.yaml").write_text("[" * 5000), "its config.yaml is half-written or damaged"),
        (lambda d: (d / "trials.csv").unlink(), "has no trials.csv: no trial has ended"),
        (lambda d: (d / "trials.csv").write_text(""), "has no columns `number` and `state`"),
        (lambda d: cut(d / "trials.csv", 0.1), "has no"),
        (lambda d: (d / "trials.csv").write_bytes(b"\x89PNG\r\n\xff" * 9), "its trials.csv cannot be read"),
        (lambda d: (d / "trials.csv").write_text('number,state\n1,"comp'), "has no measured trial"),
    ],
)
def test_damaged_folders_are_skipped_with_a_reason(copy, damage, why):
    damage(copy)
    study = read_study(copy)
    assert isinstance(study, Refused)
    assert why in study.why
    assert "\n" not in study.why


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["config.yaml", "trials.csv", "aliases.csv", "summary.json"]),
    place=st.floats(0, 1),
    junk=st.binary(max_size=40),
    replaced=st.booleans(),
)
def test_no_content_of_a_file_raises(copy, name, place, junk, replaced):
    path = copy / name
    before = path.read_bytes() if path.exists() else None
    data = before or b"same_as,knob.q\n0,1\n"
    at = int(place * len(data))
    path.write_bytes(data[:at] + junk + (b"" if replaced else data[at:]))
    study = read_study(copy)
    if isinstance(study, PastStudy):
        learned = learn(study)
        assert learned.rows == () or learned.summary
    path.unlink() if before is None else path.write_bytes(before)


def test_a_study_that_recorded_no_metadata(copy):
    """Metadata is taken from summary.json and config.yaml, as far as they have it."""
    record = yaml.safe_load((copy / "config.yaml").read_text())
    del record["knowledge"]
    (copy / "config.yaml").write_text(yaml.safe_dump(record))
    study = read_study(copy)
    assert study.metadata.baseline["metric.top1"] == 9.0
    assert study.metadata.directions == {"metric": "maximize", "file_bytes": "minimize"}
    assert study.metadata.units == {}
    cut(copy / "summary.json")
    assert "its summary.json is half-written or damaged" in read_study(copy).why


def test_other_files_in_the_folder_are_ignored(lab, tmp_path):
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool/config.yaml").write_text("learning_rate: 1\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "deep/er").mkdir(parents=True)
    shutil.copytree(lab.folder / "outputs/first", tmp_path / "sweep/first")
    (tmp_path / "file").write_text("x")
    _, known = lab.planned("eleventh", "eleven", f"knowledge.path={tmp_path}")
    assert len(known.rows) == 4
    assert known.refused == ()


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "why"),
    [
        (past(directions={"metric.top1": "minimize"}), "other direction: it wants to minimize metric.top1"),
        (past(directions={"metric": "minimize"}), "other direction: it wants to minimize metric.top1"),
        (past(units={"metric.top1": ""}), "other unit: metric.top1 is in no unit there, in % here"),
        (past(values={"metric.top1": 0.83}), "other unit: metric.top1 looks like a share there (at most 0.83)"),
        (past(values={"metric.f1": 83.0}), "it did not measure metric.top1, but metric.f1"),
        (past(values={}), "it did not measure metric.top1, but no metric"),
        (past(trials=[({"p.z": "1"}, {"metric.top1": 1.0})]), "another space: its knobs are p.z; here they are q.a, q.b"),
        (past(trials=[({"q.a": "7", "q.b": "x"}, {"metric.top1": 81.0})]), "q.a is 7 there; here it can be: 1, 2"),
        (past(trials=[({"q.a": "1"}, {"metric.top1": 81.0})]), "q.b is not set there, and its default of that time"),
        (past(trials=[({"q.a": "1", "q.b": "x", "q.c": "5"}, {"metric.top1": 81.0})]), "q.c is 5 there, 0 here"),
        (past(trials=[({"q.a": "1", "q.b": "x", "p.z": "5"}, {"metric.top1": 81.0})]), "p.z is 5 there, nothing here"),
        (Refused("x", "is broken"), "is broken"),
    ],
)  # fmt: skip
def test_refused_with_what_differs(study, why):
    known = learn(study, past("good"))
    assert why in known.refused[0]
    assert len(known.refused) == 1
    assert {row.task for row in known.rows} == {"theirs (digits)"}
    assert known.summary == "learned from 2 trials of 1 earlier study: theirs (digits)"


def test_equal_reasons_are_reported_once():
    studies = [Refused(f"study{i}", "is broken") for i in range(5)]
    assert learn(*studies).notes == ("not learned from study0, study1, study2 and 2 more: is broken",)
    studies = [Refused(f"study{i}", f"is broken {i}") for i in range(20)]
    assert learn(*studies).notes[-1] == "not learned from others either, for 14 further reasons"


def test_other_objectives_are_left_out_where_they_do_not_fit():
    objectives = (
        *MAIN,
        Objective("cost.host.latency_ms", "minimize"),
        Objective("cost.mcu.bytes", "minimize"),
    )
    values = {"metric.top1": 80.0, "cost.host.latency_ms": 2.0, "cost.mcu.bytes": 5.0}
    baseline = {"metric.top1": 85.0, "cost.host.latency_ms": 4.0, "cost.mcu.bytes": 20.0}
    units = {"metric.top1": "%", "cost.host.latency_ms": "ms", "cost.mcu.bytes": "bytes"}
    metadata = replace(METADATA, units=units, measured=frozenset({"cost.host.latency_ms"}), machine="here")

    def values_of(**changes):
        study = past(values=values, **{"baseline": baseline, "units": units, "machine": "here", **changes})
        return learn(study, metadata=metadata, objectives=objectives).rows[0].values

    assert values_of() == (-5.0, 0.5, 0.25)
    assert math.isnan(values_of(machine="elsewhere")[1])
    assert values_of(machine="elsewhere")[2] == 0.25
    assert math.isnan(values_of(units={**units, "cost.mcu.bytes": "KiB"})[2])
    assert math.isnan(values_of(directions={"cost.mcu.bytes": "maximize"})[2])
    assert math.isnan(values_of(baseline={})[0])


def test_a_model_has_one_name():
    one = past("first", model_digest="x", task_digest="t")
    known = learn(one, replace(one, name="second", trials=past(values={"metric.top1": 70.0}).trials))
    assert {row.task for row in known.rows} == {"theirs (digits)"}
    other = past("third", model_digest="y", task_digest="t")
    assert {row.task for row in learn(one, other).rows} == {"theirs (digits)", "theirs (digits), third"}


def test_the_same_trials_count_once():
    one = past("first", model_digest="x", task_digest="t")
    known = learn(one, replace(one, name="copy"))
    assert len(known.rows) == 2
    assert known.refused == ("not learned from copy: its trials are known from another study",)


# -- time, and sources that fail -------------------------------------------------------------------------------


class Hanging(KnowledgeSource):
    seconds = 0.3

    def studies(self, own, deadline):
        yield past()
        time.sleep(20)


class Endless(KnowledgeSource):
    seconds = 0.3

    def studies(self, own, deadline):
        number = 0
        while True:
            number += 1
            yield Refused(str(number), "is broken")


class Raising(KnowledgeSource):
    def studies(self, own, deadline):
        yield past()
        raise RuntimeError("the disk\nis gone")


def test_reading_ends_in_time(tmp_path):
    for source in (Hanging(), Endless()):
        began = time.monotonic()
        known = gather(source, Own("ours", tmp_path), METADATA, SPACE, MAIN)
        assert time.monotonic() - began < 5
        assert "was stopped after 0.3 s (knowledge.seconds)" in known.refused[-1]
    assert len(gather(Hanging(), Own("ours", tmp_path), METADATA, SPACE, MAIN).rows) == 2


def test_a_source_that_fails_stops_nothing(tmp_path):
    known = gather(Raising(), Own("ours", tmp_path), METADATA, SPACE, MAIN)
    assert len(known.rows) == 2
    assert known.refused == ("not learned from earlier studies: RuntimeError: the disk",)
    assert gather(None, Own("ours", tmp_path), METADATA, SPACE, MAIN).rows == ()
    assert list(NoKnowledge().studies(Own("ours", tmp_path), Deadline(1))) == []


def test_siblings_of_a_sweep_do_not_teach_each_other(tmp_path):
    """Whatever folders the studies of the sweep are in, and also if the sweep is run again with other seeds."""
    beside = Own("digits-seed=1", tmp_path / "outputs/digits-seed=1", "digits")
    assert beside.is_sibling("digits-seed=2", tmp_path / "outputs/digits-seed=2")
    assert beside.is_sibling("digits-seed=2")  # by MLflow, which knows no folder
    assert not beside.is_sibling("digits", tmp_path / "outputs/digits")
    assert not beside.is_sibling("mobilenet", tmp_path / "outputs/mobilenet")
    place_of_its_own = Own("digits-seed=1", tmp_path / "runs/seed=1", "digits")
    assert place_of_its_own.is_sibling("seed=2", tmp_path / "runs/seed=2")
    assert not place_of_its_own.is_sibling("seed=2", tmp_path / "elsewhere/seed=2")
    assert not Own("digits", tmp_path / "digits").is_sibling("digits-seed=2", tmp_path / "digits-seed=2")


def test_a_folder_of_siblings_teaches_nothing_and_says_so(lab):
    own = Own("fir-x", lab.folder / "outputs/fir-x", "fir")
    (lab.folder / "outputs/fir-y").mkdir()
    (lab.folder / "outputs/fir-y/trials.csv").write_text("number,state")
    found = list(FolderKnowledge().studies(own, Deadline(5)))
    shutil.rmtree(lab.folder / "outputs/fir-y")
    assert {f.name for f in found} == {"1 study of this sweep", "first", "second"}


def test_metadata_is_json(lab):
    _, known = lab.planned("twelfth", "twelve", "knowledge=none")
    assert json.loads(json.dumps(known.record)) == known.record
    assert callable(knowledge_of)
