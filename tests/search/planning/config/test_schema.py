import pytest
from omegaconf import OmegaConf

from search.api import compose
from search.planning.config.schema import read_config
from spaces.errors import ConfigError


def test_the_default_study_searches_by_surrogate_and_learns_from_the_folder():
    config = compose()
    assert config.choices["sampler"] == "surrogate"
    assert config.choices["knowledge"] == "folder"
    assert config.sweep == ""


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("2 GiB", 2 * 2**30), ("300 MB", 300_000_000), ("1048576", 2**20), ("0", 0)]
)
def test_the_bound_of_the_cache_is_a_size(text, n_bytes):
    assert compose([f"cache_bytes={text}"]).cache_bytes == n_bytes


@pytest.mark.parametrize("text", ["much", "-1", "2 parsecs", "null"])
def test_a_bound_that_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="cache_bytes"):
        compose([f"cache_bytes={text}"])


def test_a_study_of_a_sweep_knows_what_its_siblings_are_called():
    composed = OmegaConf.create(dict(compose().data))
    config = read_config(composed, {}, "paredown", suffix="seed=3")
    assert (config.sweep, config.study.name) == ("digits", "digits-seed=3")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("../up", "contains '/'"),
        ("/tmp/x", "contains '/'"),
        ("a\\b", "contains"),
        ("..", "begins with a dot"),
        (".hidden", "begins with a dot"),
        (" padded", "begins or ends with a space"),
        ("a\0b", "contains '\\x00'"),
        ("a\nb", "contains"),
        ("é" * 128, "is longer than 255 bytes"),
    ],
)
def test_a_name_that_is_no_name_of_a_folder_is_refused(name, problem):
    composed = OmegaConf.create(dict(compose().data))
    composed.study.name = name
    with pytest.raises(ConfigError) as error:
        read_config(composed, {}, "paredown")
    assert problem in str(error.value)
    assert "study.name=" in str(error.value)
    assert "study.dir=PATH" in str(error.value)


@pytest.mark.parametrize(
    "name", ["digits", "digits-seed=3,stage=[a,b]", "my study 2", "v1..2", "größe", "x" * 255]
)
def test_any_other_name_is_taken(name):
    composed = OmegaConf.create(dict(compose().data))
    composed.study.name = name
    assert read_config(composed, {}, "paredown").study.name == name
