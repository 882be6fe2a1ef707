import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.candidate import Candidate
from spaces.errors import SpaceError
from spaces.quantization.quantize import QuantizeStage
from spaces.space_config import read_space

CONFIG = {
    "q": {
        "scheme": ["a", "b"],
        "clipping": {"choices": ["max", "kl", "percentile"]},
        "percentile": {"float": [99.0, 99.5], "step": 0.25, "when": {"clipping": "percentile"}},
        "bits": {
            "choices": [4, 8],
            "groups": [{"name": "stem", "match": "conv1*", "choices": [8]}, {"name": "rest", "match": "*"}],
        },
    },
    "constraints": {"total": "sum(q.bits) <= 12 or q.scheme == 'a'"},
}
LAYERS = ["conv1.weight", "layer1.weight", "fc.weight"]


@pytest.fixture
def space():
    return read_space(CONFIG, layers=LAYERS)


def test_size_is_that_of_the_enumeration(space):
    listed = list(space.enumerate())
    assert space.size.exact
    assert space.size.count == len(listed) == len(set(listed)) == 15
    for candidate in listed:
        space.validate(candidate)


names = st.sampled_from("abcdef")


@st.composite
def small_spaces(draw):
    """Spaces of up to six knobs, whose conditions name earlier knobs."""
    config, knobs = {}, []
    for name in sorted(draw(st.sets(names, min_size=1))):
        values = list(range(draw(st.integers(1, 3))))
        node = {"choices": values}
        if knobs and draw(st.booleans()):
            parent = draw(st.sampled_from(knobs))
            parent_values = config[parent]["choices"]
            node["when"] = {parent: draw(st.lists(st.sampled_from(parent_values), min_size=1, unique=True))}
        config[name] = node
        knobs.append(name)
    if len(knobs) > 1 and draw(st.booleans()):
        config["constraints"] = {"c": f"{knobs[0]} <= {knobs[-1]}"}
    return config


@settings(max_examples=150)
@given(small_spaces(), st.integers(0, 1000))
def test_counting_enumerating_and_sampling_agree(config, seed):
    try:
        space = read_space(config)
    except SpaceError:  # no candidate satisfies the constraint: check by enumeration
        open_config = {**config, "constraints": {}}
        broken = config["constraints"]["c"]
        low, high = broken.split(" <= ")
        assert not any(c.get(low, 0) <= c.get(high, 99) for c in read_space(open_config).enumerate())
        return
    listed = set(space.enumerate())
    assert space.size.count == len(listed)
    drawn = space.sample(np.random.default_rng(seed))
    assert drawn in listed
    assert space.complete(drawn) == drawn
    assert len(space.encode(drawn)) == len(space.features)


@settings(max_examples=60)
@given(small_spaces())
def test_different_candidates_have_different_encodings(config):
    try:
        space = read_space(config)
    except SpaceError:
        return
    codes = {tuple(np.nan_to_num(space.encode(c), nan=-1)) for c in space.enumerate()}
    assert len(codes) == space.size.count


def test_a_large_space_is_counted_without_enumeration():
    config = {f"k{i}": list(range(10)) for i in range(30)}
    space = read_space(config)
    assert space.size.count == 10**30
    assert space.size.exact


def test_a_large_constrained_space_has_an_upper_bound():
    config = {f"k{i}": [0, 1] for i in range(30)}
    config["constraints"] = {"c": " + ".join(f"k{i}" for i in range(30)) + " <= 3"}
    space = read_space(config)
    assert not space.size.exact
    assert space.size.count == 2**30
    assert "at most" in str(space.size)


def test_a_continuous_space_is_infinite():
    space = read_space({"x": {"float": [0.0, 1.0]}})
    assert space.size.count is None
    with pytest.raises(SpaceError, match="continuous"):
        list(space.enumerate())


def test_inactive_knobs_are_dropped(space):
    candidate = space.complete(
        {"q.scheme": "a", "q.clipping": "max", "q.percentile": 99.0, "q.bits[stem]": 8, "q.bits[rest]": 4}
    )
    assert "q.percentile" not in candidate
    assert space.stage_values(candidate, "q") == {
        "scheme": "a",
        "clipping": "max",
        "bits": {"conv1.weight": 8, "layer1.weight": 4, "fc.weight": 4},
    }


def test_a_knob_may_come_before_the_knob_in_its_condition():
    space = read_space({"p": {"choices": [1, 2], "when": {"c": "x"}}, "c": ["x", "y"]})
    assert [k.path for k in space.knobs] == ["c", "p"]
    assert space.size.count == 3


def test_one_value_per_layer():
    space = read_space({"q": {"bits": {"choices": [4, 8], "per": "layer"}}}, layers=LAYERS)
    assert space.size.count == 8
    assert space.domains("q") == {"bits": (4, 8)}


def test_the_first_matching_group_wins():
    groups = [{"name": "fc", "match": ["fc*", "conv1*"]}, {"name": "all", "match": "*"}]
    space = read_space({"q": {"bits": {"choices": [4, 8], "groups": groups}}}, layers=LAYERS)
    assert space["q.bits[fc]"].layers == ("conv1.weight", "fc.weight")
    assert space["q.bits[all]"].layers == ("layer1.weight",)


def test_digest_changes_with_the_space(space):
    assert space.digest == read_space(CONFIG, layers=LAYERS).digest
    wider = {**CONFIG, "q": {**CONFIG["q"], "scheme": ["a", "b", "c"]}}
    assert space.digest != read_space(wider, layers=LAYERS).digest


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"q.nonsense": 1}, "Unknown knob 'q.nonsense'"),
        ({"q.scheme": "c"}, "cannot be 'c'; allowed: a, b"),
        ({}, "has no value"),
    ],
)
def test_invalid_candidates_raise(space, values, text):
    with pytest.raises(SpaceError, match=text):
        space.complete(values)


def test_a_violated_constraint_is_named(space):
    values = {"q.scheme": "b", "q.clipping": "max", "q.bits[stem]": 8, "q.bits[rest]": 8}
    with pytest.raises(SpaceError, match="breaks the constraint total"):
        space.validate(Candidate(values))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "the space is empty"),
        ({"q": {}}, "space.q is empty"),
        ({"a": []}, "space.a: `choices` must hold at least one"),
        ({"a": {"choices": [1], "int": [0, 1]}}, "exactly one of"),
        ({"a": {"int": [0, 1], "stepp": 1}}, "Unknown key 'stepp'.*Did you mean 'step'"),
        ({"a": {"int": [0.5, 1]}}, r"space.a: `int` must be \[low, high\]"),
        ({"a": {"int": 3}}, r"space.a: `int` must be \[low, high\]"),
        ({"a": {"int": [5, 1]}}, "space.a: `low <= high` must hold"),
        ({"a": {"choices": 3}}, "`choices` must be a list"),
        ({"a": [1], "b": {"choices": [1], "when": {"c": 1}}}, "Unknown knob 'c' in the condition of b"),
        ({"a": [1], "b": {"choices": [1], "when": {"a": 2}}}, "wants a to be 2"),
        (
            {"a": {"choices": [1], "when": {"b": 1}}, "b": {"choices": [1], "when": {"a": 1}}},
            "go in a circle",
        ),
        ({"a": [1, 2], "constraints": {"c": "a > 5"}}, "contradictory.*c: a > 5"),
        ({"a": [1, 2], "constraints": {"c": "b > 5"}}, "Unknown knob 'b' in space.constraints.c"),
        ({"a": [1, 2], "constraints": {"c": "a >"}}, "space.constraints.c: cannot read"),
        ({"a": [1, 2], "constraints": {"c": "__import__('os')"}}, "is not allowed"),
        ({"a": [1, 2], "constraints": {"c": "a.bit_length() > 1"}}, "is not allowed"),
        ({"a": [1, 2], "constraints": {"c": "'x' < a"}}, "cannot be computed"),
        ({"a": {"choices": [1], "groups": [{"name": "g", "match": "zz*"}]}}, "zz.* matches no layer"),
        ({"a": {"choices": [1], "groups": [{"nam": "g"}]}}, "must have `name` and `match`"),
        ({"a": {"choices": [1], "per": "channel"}}, "can only be 'layer'"),
    ],
)
def test_config_errors_name_their_place(config, text):
    with pytest.raises(SpaceError, match=text):
        read_space(config, layers=LAYERS)


def test_a_constraint_on_an_inactive_knob_holds():
    space = read_space(
        {"c": ["x", "y"], "p": {"choices": [1, 2], "when": {"c": "x"}}, "constraints": {"low": "p < 2"}}
    )
    assert [dict(c) for c in space.enumerate()] == [{"c": "x", "p": 1}, {"c": "y"}]


def test_every_operator_of_constraints():
    config = {"a": [1, 2, 3], "b": [1, 2, 3]}
    cases = {
        "a + b == 4": lambda a, b: a + b == 4,
        "a * b - 1 >= 3": lambda a, b: a * b - 1 >= 3,
        "a / b > 1": lambda a, b: a / b > 1,
        "a % 2 == 0": lambda a, b: a % 2 == 0,
        "not a == b": lambda a, b: a != b,
        "a in [1, 3] and b not in (2,)": lambda a, b: a in (1, 3) and b != 2,
        "1 < a <= b": lambda a, b: 1 < a <= b,
        "-a < -2 or max(a, b) == 1": lambda a, b: -a < -2 or max(a, b) == 1,
    }
    for text, truth in cases.items():
        listed = {(c["a"], c["b"]) for c in read_space({**config, "constraints": {"c": text}}).enumerate()}
        assert listed == {(a, b) for a, b in itertools.product((1, 2, 3), repeat=2) if truth(a, b)}, text


def test_extremes_are_the_ends_of_a_continuous_range():
    space = read_space(
        {"a": {"x": {"float": [0.1, 0.9]}, "y": [1, 2], "z": {"float": [0.0, 1.0], "step": 0.5}}}
    )
    assert space.domains("a") == {"x": (), "y": (1, 2), "z": (0.0, 0.5, 1.0)}
    assert space.extremes("a") == {"x": (0.1, 0.9), "y": (1, 2), "z": (0.0, 0.5, 1.0)}


def test_a_space_whose_only_knob_is_per_layer_is_not_empty():
    config = {
        "quantize": {"weight_bits": {"choices": [4, 8], "per": "layer"}},
        "constraints": {"most": "sum(quantize.weight_bits) >= 12"},
    }
    stages = [QuantizeStage()]
    assert len(read_space(config, stages)) == 1  # as before the model is loaded
    space = read_space(config, stages, LAYERS)
    assert [knob.layers for knob in space.knobs] == [(name,) for name in LAYERS]
    assert space.size.count == 8
    with pytest.raises(SpaceError, match="the space is empty"):
        read_space(config, stages, [])


def test_an_invalid_per_layer_value_raises_before_the_model_is_loaded():
    config = {"quantize": {"scheme": "symmetric", "weight_bits": {"choices": [9], "per": "layer"}}}
    with pytest.raises(SpaceError, match="weight_bits must be one of"):
        read_space(config, [QuantizeStage()])


def test_a_space_without_some_values(space):
    less = space.without({"q.clipping": ["percentile"], "q.bits": [8], "q.percentile": [99.25]})
    assert list(less["q.clipping"].domain) == ["max", "kl"]
    assert list(less["q.bits[rest]"].domain) == [4]
    assert list(less["q.bits[stem]"].domain) == [8]  # the only value there
    assert list(less["q.percentile"].domain) == [99.0, 99.5]
    assert less.size.count == len(list(less.enumerate())) == 4
    assert not any("q.percentile" in candidate for candidate in less.enumerate())
    assert space.without({}).digest == space.digest
