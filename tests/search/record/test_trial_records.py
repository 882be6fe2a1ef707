import math

from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.record.results import TrialRecord
from search.record.trial_records import finite, record_from_json, record_to_json, rows
from spaces.candidate import Candidate

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
