import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.record.results import TrialRecord
from search.record.trial_records import finite, record_from_json, record_to_json, rows
from search.record.values import cell_text, text_cell
from spaces.candidate import Candidate
from spaces.errors import StudyError

numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        TrialRecord,
        number=st.integers(0, 10**6),
        state=st.sampled_from(["complete", "infeasible", "failed"]),
        reason=st.text(max_size=20),
        candidate=st.builds(Candidate, st.dictionaries(st.text(min_size=1, max_size=5), st.integers() | st.booleans() | st.text())),
        measurements=st.tuples(st.builds(Measurement, st.just("top1"), numbers, st.just("%"), st.just("measured"), st.just(None))),
        seconds=st.dictionaries(st.text(min_size=1, max_size=5), numbers, max_size=2),
        wall_s=numbers,
        artifact_digest=st.none() | st.just("ab"),
    )
)  # fmt: skip
def test_a_record_survives_json(record):
    assert record_from_json(record_to_json(record)) == record


def test_rows_have_a_column_for_every_knob_and_read_back_exactly():
    one = TrialRecord(
        0, "complete", "", Candidate({"b": (1, 2)}), (Measurement("top1", 0.1 + 0.2, "%", "measured"),)
    )
    two = TrialRecord(1, "failed", "two\nlines", Candidate({"a": True}), seconds={"quantize": 0.5})
    columns, table = rows([one, two], ["a", "b"])
    assert columns == [
        "number",
        "state",
        "reason",
        "knob.a",
        "knob.b",
        "metric.top1",
        "seconds.quantize",
        "wall_s",
    ]
    assert float(table[0]["metric.top1"]) == 0.1 + 0.2
    assert table[0]["knob.b"] == "[1,2]"
    assert table[1]["knob.a"] == "true"
    assert table[1]["reason"] == "two lines"


def test_numbers_that_are_not_finite_become_null():
    assert finite({"a": [math.nan, 1.0], "b": math.inf}) == {"a": [None, 1.0], "b": None}


@pytest.mark.parametrize(
    "change",
    [
        {"number": "<script>"}, {"number": True}, {"number": -1}, {"state": "<b>"}, {"reason": 3}, {"details": []},
        {"wall_s": "x"}, {"seconds": {"a": "b"}}, {"measurements": [["a", "b", "", "measured", None]]},
        {"measurements": [["a", 1.0, "", "measured", 3]]}, {"measurements": [[3, 1.0, "", "measured", None]]},
        {"measurements": [1]}, {"candidate": 3}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_other_types_is_refused(change):
    record = TrialRecord(0, "complete", "", Candidate({"a": 1}), (Measurement("top1", 1.0, "%", "measured"),))
    text = json.dumps(json.loads(record_to_json(record)) | change)
    with pytest.raises(StudyError, match="damaged record"):
        record_from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "{", "3", '{"number": 1}'])
def test_what_is_no_record_is_refused(text):
    with pytest.raises(StudyError, match="damaged record"):
        record_from_json(text)


def test_no_cell_is_a_formula_and_what_is_read_back_is_the_same(tmp_path):
    formulas = ("=1+1", "+1-x", "-x", "@SUM(A1)", "=cmd|' /C calc'!A0")
    candidate = Candidate({"a": formulas[0], "b": -3, "c": -0.5, "d": "'quoted", "e": "-1e-3"})
    trials = [TrialRecord(i, "failed", text, candidate) for i, text in enumerate(formulas)]
    _, table = rows(trials, candidate)
    assert [text_cell(row["reason"]) for row in table] == [f"'{text}" for text in formulas]
    assert [text_cell(table[0][f"knob.{k}"]) for k in "abcde"] == ["'=1+1", "-3", "-0.5", "'quoted", "-1e-3"]
    for text in (*formulas, "'quoted", "plain", "-3", ""):
        assert cell_text(text_cell(text)) == text
