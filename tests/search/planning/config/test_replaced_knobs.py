"""A list or a domain in place of a knob's values replaces them, whatever they were."""

import pytest

from search.api import compose
from search.planning.config.hydra_errors import replacing
from spaces.errors import ConfigError

STAGE = ("space=prune", "stage=[prune,recover,export]")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("space.prune.keep=[0.5]", [0.5]),
        ("space.prune.keep=[0.5,1.0]", [0.5, 1.0]),
        ("space.prune.keep={choices:[0.5]}", {"choices": [0.5]}),
        ("space.prune.keep={choices: [0.5], ordered: true}", {"choices": [0.5], "ordered": True}),
        ("space.prune.keep.choices=[0.5]", {"choices": [0.5]}),
        ("space.prune.keep=0.5", 0.5),
        ("space.prune.keep={float:[0.4,0.5]}", {"float": [0.4, 0.5], "step": 0.1}),  # merged, as before
        ("space.prune.criterion=[fpgm]", ["fpgm"]),
    ],
)
def test_one_override_is_enough(override, expected):
    config = compose([*STAGE, override])
    assert config.data["space"]["prune"]["keep" if "keep" in override else "criterion"] == expected


def test_several_at_once_and_in_the_command():
    config = compose([*STAGE, "space.prune.keep=[0.5]", "space.recover.epochs=[1]", "seed=3"])
    assert config.data["space"]["prune"]["keep"] == [0.5]
    assert config.data["seed"] == 3
    assert "space.prune.keep=null 'space.prune.keep=[0.5]'" in config.command


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("+space.prune.keep=[0.5]", "without `+`: e.g. space.prune.keep=[0.5]"),
        ("space.prune.keeep=[0.5]", "Did you mean space.prune.keep=[0.5]?"),
        ("space.prune.keep.stepp=0.5", "Did you mean space.prune.keep.step=0.5?"),
    ],
)
def test_what_is_refused_says_what_works(override, told):
    with pytest.raises(ConfigError) as caught:
        compose([*STAGE, override])
    assert told in str(caught.value)


def test_other_errors_have_no_better_overrides():
    assert (
        replacing(["space.prune.keep=[0.5]"], ValueError("Error merging override space.prune.keep=[0.5]"))
        is None
    )
    assert replacing([], ValueError("Cannot merge DictConfig with ListConfig")) is None
