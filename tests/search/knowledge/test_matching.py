"""A candidate that is written as text and read back is unchanged; a misfit says why it is one."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.knowledge.matching import Matcher, MisfitError
from search.record.values import equal, number, value_in
from search.tracking.mlflow_names import safe_names
from spaces.candidate import Candidate, value_text
from spaces.knobs import Choices, Range
from spaces.space_config import read_space

SPACE = read_space(
    {
        "q": {
            "scheme": ["a", "b", None],
            "clip": {"choices": ["max", "pct"]},
            "pct": {"float": [90.0, 99.0], "when": {"clip": "pct"}},
            "keep": [[], ["fc*", "conv1"]],
            "images": {"int": [1, 1024], "log": True},
            "on": [True, False],
            "bits": {"choices": [4, 8], "per": "layer"},
            "level": {"choices": [0.1, 0.2, 0.3], "ordered": True},
        },
        "constraints": {"no": "q.scheme != 'b' or q.on"},
    },
    layers=["/stem/conv", "fc.weight"],
)


@given(st.integers(0, 2**31))
def test_the_text_of_a_candidate_is_read_back_as_the_candidate(seed):
    import numpy as np

    candidate = SPACE.sample(np.random.default_rng(seed))
    texts = {path: value_text(value) for path, value in candidate.items()}
    assert Matcher(SPACE, {}).candidate(texts, {}) == candidate
    assert Matcher(SPACE, {}).candidate(candidate, {}) == candidate
    names = safe_names(texts)
    from_mlflow = {}
    for path, text in texts.items():
        base, slash, group = names[path].partition("/")
        from_mlflow[f"{base}[{group}]" if slash else base] = text
    assert Matcher(SPACE, {}).candidate(from_mlflow, {}) == candidate


@given(
    st.dictionaries(st.sampled_from([k.path for k in SPACE.knobs]) | st.text(max_size=5), st.text(max_size=5))
)
def test_any_text_is_a_candidate_or_a_misfit(knobs):
    with contextlib.suppress(MisfitError):
        SPACE.validate(Matcher(SPACE, {}).candidate(knobs, {"q.bits": 8, "q.level": 0.1}))


def test_groups_of_layers():
    grouped = read_space(
        {
            "q": {
                "bits": {
                    "choices": [4, 8],
                    "groups": [{"name": "stem", "match": "s*"}, {"name": "rest", "match": "*"}],
                }
            }
        },
        layers=["s1", "x"],
    )
    whole = read_space({"q": {"bits": [4, 8]}})
    matcher = Matcher(grouped, {})
    assert matcher.candidate({"q.bits": "4"}, {}) == Candidate({"q.bits[stem]": 4, "q.bits[rest]": 4})
    assert matcher.candidate({}, {"q.bits": 8}) == Candidate({"q.bits[stem]": 8, "q.bits[rest]": 8})
    with pytest.raises(MisfitError, match="other groups"):
        matcher.candidate({"q.bits[stem]": "4", "q.bits[head]": "4"}, {})
    matcher = Matcher(whole, {})
    assert matcher.candidate({"q.bits[a]": "4", "q.bits[b]": "4"}, {}) == Candidate({"q.bits": 4})
    with pytest.raises(MisfitError, match="other groups"):
        matcher.candidate({"q.bits[a]": "4", "q.bits[b]": "8"}, {})


def test_a_knob_that_only_the_other_study_has_must_be_at_its_default():
    matcher = Matcher(read_space({"q": {"a": [1, 2]}}), {"q.keep": ()})
    assert matcher.candidate({"q.a": "1", "q.keep": "[]"}, {})
    with pytest.raises(MisfitError, match=r"q.keep is \[\"fc\*\"\] there, \[\] here"):
        matcher.candidate({"q.a": "1", "q.keep": '["fc*"]'}, {})
    assert matcher.candidate({"q.a": "1", "p.ratio": "0.0"}, {"p.ratio": 0.0})  # the other study's default
    with pytest.raises(MisfitError, match="nothing here has this knob"):
        matcher.candidate({"q.a": "1", "p.ratio": "0.5"}, {"p.ratio": 0.0} if False else {})


def test_constraints_and_inactive_knobs():
    values = {
        "q.scheme": "b",
        "q.clip": "max",
        "q.pct": "95",
        "q.keep": "[]",
        "q.images": "9",
        "q.on": "true",
    }
    defaults = {"q.bits": 8, "q.level": 0.1}
    assert "q.pct" not in Matcher(SPACE, {}).candidate(values, defaults)
    with pytest.raises(MisfitError, match="breaks the constraint no"):
        Matcher(SPACE, {}).candidate({**values, "q.on": "False"}, defaults)


@pytest.mark.parametrize(
    ("domain", "given_value", "found"),
    [
        (Choices((4, 8)), "8", 8), (Choices((4, 8)), 8.0, 8), (Choices((4, 8)), "8.0", 8), (Choices((4, 8)), "7", None),
        (Choices((4, 8)), True, None), (Choices((1, True)), "true", True), (Choices((1, True)), "1", 1),
        (Choices((True, False)), "False", False), (Choices((True, False)), "1", None), (Choices((None, "x")), "null", None),
        (Choices((0.1, 0.3)), 0.1 + 0.2, 0.3), (Choices(("8", 8)), "8", "8"), (Choices(("8", 8)), 8, 8),
        (Choices(((), ("a",))), "[]", ()), (Choices((("a", "b"),)), '["a", "b"]', ("a", "b")),
        (Choices((("a", "b"),)), ("a", "b"), ("a", "b")), (Choices((("a",),)), "[", None),
        (Range(1, 9, integer=True), "3", 3), (Range(1, 9, integer=True), "3.0", 3), (Range(1, 9, integer=True), "3.5", None),
        (Range(0.0, 1.0), "0.5", 0.5), (Range(0.0, 1.0), "nan", None), (Range(0.0, 1.0), True, None),
        (Range(0.0, 1.0), "1_0", None), (Range(0.0, 1.0), "2", None), (Range(0.0, 1.0), None, None),
    ],
)  # fmt: skip
def test_a_cell_is_read_as_a_value_of_the_domain(domain, given_value, found):
    value = value_in(domain, given_value)
    if found is None and given_value != "null":
        assert value is None
    else:
        assert value == (found,)
        assert type(value[0]) is type(found)


def test_numbers():
    assert [number(x) for x in ("1", " 1e2 ", "inf", "", "x", "1_0", None)] == [1.0, 100.0, *[None] * 5]
    assert equal((), "[]")
    assert not equal("a", "b")
