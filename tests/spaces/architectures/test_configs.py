"""The configs of families: every knob is listed, so that it can be set on the command line."""

from pathlib import Path

import pytest
import yaml

from search.planning.config.instantiate import instantiate
from spaces.architectures.family import Family
from spaces.architectures.model import FamilyModel

CONF = Path(__file__).parents[3] / "conf" / "model"
TARGET = f"{FamilyModel.__module__}.{FamilyModel.__name__}"
CONFIGS = {
    path.stem: config
    for path in sorted(CONF.glob("*.yaml"))
    if (config := yaml.safe_load(path.read_text())).get("_target_") == TARGET
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_has_a_valid_value_for_every_knob_of_its_family(name):
    config = CONFIGS[name]
    family = instantiate(config["family"], "family", [], [Family])
    assert set(config["values"]) == {knob.name for knob in family.knobs}
    FamilyModel(
        family, n_classes=config["n_classes"], input_shape=config["input_shape"], values=config["values"]
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_family_has_a_space_of_the_same_name(name):
    space = yaml.safe_load((CONF.parent / "space" / f"{name}.yaml").read_text())
    knobs = set(CONFIGS[name]["values"])
    assert set(space["architecture"]) <= knobs
