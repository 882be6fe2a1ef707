from pathlib import Path

import pytest

from search.api import compose
from search.planning.config.trusted import own_file, trusted_by_file, trusted_by_hand
from spaces.errors import ConfigError, UntrustedTargetError


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes the user's own file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def write(text):
        path = tmp_path / "paredown" / "trusted_modules.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    return write


def test_the_last_override_counts():
    assert trusted_by_hand(["seed=1", "trusted_modules=[a,b.c]", "x=trusted_modules"]) == ("a", "b.c")
    assert trusted_by_hand(["+trusted_modules=[a]", "++trusted_modules=['b']"]) == ("b",)
    assert trusted_by_hand(["model.trusted_modules=[os]", "trusted_modules=[]"]) == ()
    assert trusted_by_hand([]) == ()


def test_the_users_file(own, monkeypatch):
    assert trusted_by_file() == ()
    own("- a\n- b.c  # mine\n")
    assert trusted_by_file() == ("a", "b.c")
    own("")
    assert trusted_by_file() == ()
    own("trusted_modules: [a]")
    with pytest.raises(ConfigError, match=r"trusted_modules\.yaml must be a list"):
        trusted_by_file()
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert own_file() == Path("~/.config/paredown/trusted_modules.yaml").expanduser()


def test_python_calls_trust_by_their_overrides_and_the_users_file(own):
    own("- mine")
    assert compose(["trusted_modules=[yours]"]).trusted == ("yours", "mine")
    assert compose().data["trusted_modules"] == ["mine"]
    with pytest.raises(UntrustedTargetError, match=r"model\.trusted_modules.*trusted_modules=\[os\]"):
        compose(["+model.trusted_modules=[os]"])
    assert compose(["+model.trusted_modules=[mine]"]).trusted == ("mine",)
