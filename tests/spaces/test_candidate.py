import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.candidate import Candidate, value_text

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.dictionaries(st.text(min_size=1, max_size=8), scalars | st.lists(scalars, max_size=3), max_size=5)


@given(values)
def test_equality_does_not_depend_on_the_order(given_values):
    backwards = dict(reversed(given_values.items()))
    assert Candidate(given_values) == Candidate(backwards)
    assert hash(Candidate(given_values)) == hash(Candidate(backwards))


@given(values)
def test_pickling_keeps_equality(given_values):
    candidate = Candidate(given_values)
    again = pickle.loads(pickle.dumps(candidate))
    assert again == candidate
    assert dict(again) == dict(candidate)


def test_true_and_one_are_different_candidates():
    assert Candidate({"a": True}) != Candidate({"a": 1})
    assert Candidate({"a": 1.0}) != Candidate({"a": 1})


def test_cannot_be_changed():
    candidate = Candidate({"a": [1, 2]})
    assert candidate["a"] == (1, 2)
    with pytest.raises(TypeError):
        candidate["a"] = 3  # type: ignore[index]


def test_values_that_are_not_plain_raise():
    with pytest.raises(TypeError, match="knob value"):
        Candidate({"a": object()})


def test_digest_is_the_same_in_another_process():
    code = (
        "from spaces.candidate import Candidate;"
        "print(Candidate({'b': 0.1, 'a': ['x', None, True], 'c[l]': 4}).digest)"
    )
    digest = Candidate({"a": ("x", None, True), "b": 0.1, "c[l]": 4}).digest
    for hash_seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        assert run.stdout.strip() == digest
    # a different digest would make old studies unreadable
    assert digest == "f0d6ef3862ced59c"


@pytest.mark.parametrize(
    ("value", "text"), [("kl", "kl"), (4, "4"), (True, "true"), (("a*", "b"), '["a*","b"]')]
)
def test_value_text(value, text):
    assert value_text(value) == text
