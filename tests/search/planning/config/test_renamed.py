import pytest
from hydra.errors import ConfigCompositionException

from search.planning.config.hydra_errors import hydra_text
from search.planning.config.instantiate import instantiate
from search.planning.config.renamed import RENAMED_KEYS
from spaces.errors import ConfigError, InputError

SAMPLER = "search.samplers.surrogate.SurrogateSampler"


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_an_old_key_on_the_command_line_is_refused_with_its_new_name(old, new):
    error = ConfigCompositionException(f"Key '{old}' is not in struct")
    assert f"{old!r} is called {new!r} now" in hydra_text(error)


def test_an_old_key_in_a_file_is_refused_with_its_new_name():
    with pytest.raises(ConfigError, match="'look_budget' is called 'low_fidelity_budget' now"):
        instantiate({"_target_": SAMPLER, "look_budget": 1.0}, "sampler", ())


def test_a_class_that_moved_is_refused_with_where_it_is():
    old = "search.surrogate_sampler.SurrogateSampler"
    with pytest.raises(InputError, match=f"It is {SAMPLER} now"):
        instantiate({"_target_": old}, "sampler", ())


def test_a_class_that_never_was_is_refused_without_advice():
    with pytest.raises(InputError, match="does not exist") as error:
        instantiate({"_target_": "search.samplers.NoSuchSampler"}, "sampler", ())
    assert "now" not in str(error.value)
