"""Values that cannot be applied to a network are left out of its space."""

from typing import ClassVar

import pytest

from search.planning.fitting import Fitting
from spaces.errors import ConfigError, StageError
from spaces.knob_spec import KnobSpec
from spaces.space_config import read_space
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import Stage, StageContext

CONTEXT = StageContext(None, Cache())
NETWORK = Artifact("torch", b"", InputSpec((3,)), "0")


class Picky(Stage):
    """Takes a way that is not `bad`, and an extent of at least 3."""

    name, consumes, produces = "picky", ("torch",), "torch"
    knobs: ClassVar = (
        KnobSpec("way", "good", "how", ("good", "better", "bad")),
        KnobSpec("extent", 3, "how much", low=0, high=9),
        KnobSpec("more", 0, "more of it", low=0, high=9),
    )

    def apply(self, artifact, values, context):
        return artifact

    def unsuited(self, artifact, domains, context):
        return {
            "way": {v: "it is bad" for v in domains.get("way", ()) if v == "bad"},
            "extent": {v: "too small" for v in domains.get("extent", ()) if v < 3},
        }

    def check(self, artifact, domains, context):
        if "bad" in domains.get("way", ()):
            raise StageError("picky.way=bad: it is bad")


@pytest.fixture
def fit():
    stages = [Picky()]

    def fit(**section):
        constraints = section.pop("constraints", {})
        space = read_space({"picky": section, "constraints": constraints}, stages, [])
        fitting = Fitting(Pipeline(stages), NETWORK, NETWORK, CONTEXT)
        suited, notes = fitting.suited(space)
        return suited, notes, (lambda: fitting.checked(suited))

    return fit


def test_what_suits_stays(fit):
    space, notes, check = fit(way=["good", "better"])
    assert list(space["picky.way"].domain) == ["good", "better"]
    assert notes == check() == ()


def test_a_value_that_does_not_suit_is_left_out_with_a_note(fit):
    space, notes, check = fit(way=["good", "bad", "better"])
    assert list(space["picky.way"].domain) == ["good", "better"]
    assert notes == ("picky.way=bad is left out: it is bad",)
    assert check() == ()


def test_a_range_with_steps_loses_values_too(fit):
    space, notes, _ = fit(extent={"int": [1, 5]})
    assert list(space["picky.extent"].domain) == [3, 4, 5]
    assert len(notes) == 2
    assert "picky.extent=1 is left out: too small" in notes


@pytest.mark.parametrize("way", ["bad", ["bad"], {"value": "bad"}])
def test_a_value_on_its_own_is_an_error(fit, way):
    space, notes, check = fit(way=way)
    assert list(space["picky.way"].domain) == ["bad"]
    assert notes == ()
    with pytest.raises(ConfigError, match=r"space\.picky: picky\.way=bad: it is bad"):
        check()


def test_what_depends_on_it_is_never_active(fit):
    more = {"choices": [1, 2], "when": {"way": ["bad"]}}
    space, _, _ = fit(way=["good", "bad"], more=more, constraints={"few": "picky.more < 2"})
    assert space.size.count == 1
    assert [dict(c) for c in space.enumerate()] == [{"picky.way": "good"}]
    either = {"choices": [1, 2], "when": {"way": ["bad", "good"]}}
    assert fit(way=["good", "bad"], more=either)[0].size.count == 2


def test_nothing_left_by_the_constraints_is_an_error(fit):
    with pytest.raises(ConfigError, match="contradictory"):
        fit(way=["good", "bad"], constraints={"no": "picky.way == 'bad'"})
