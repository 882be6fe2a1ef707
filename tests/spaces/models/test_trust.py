import sys
from typing import Protocol

import pytest
import torch

from spaces.errors import ConfigError, InputError, UntrustedTargetError
from spaces.models.trust import check_trusted, import_trusted, is_kind


@pytest.mark.parametrize(
    "name",
    [
        "spaces.stages.cache.Cache",
        "torch.nn.Linear",
        "optuna.samplers.TPESampler",
        "evaluators.x.Y",
        "search.Z",
    ],
)
def test_packages_of_paredown_are_trusted(name):
    check_trusted(name, [], "here")


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "torch.nnx.Linear",
        "spaces_of_mine.Net",
        "spacesx.Net",
        "optuna.create_study",
        "my_package.Net",
    ],
)
def test_other_packages_are_refused_with_a_hint(name):
    package = name.split(".")[0]
    with pytest.raises(UntrustedTargetError, match=rf"model\.cls: '{name}'.*trusted_modules=\[{package}\]"):
        check_trusted(name, [], "model.cls")


@pytest.mark.parametrize(
    "name", ["", "Net", "spaces", "spaces.", ".spaces.x", "spaces..x", "spaces.__class__", "a b.c", None, 3]
)
def test_invalid_dotted_names_raise(name):
    with pytest.raises(UntrustedTargetError, match="is not a dotted name"):
        check_trusted(name, [], "here")


@pytest.mark.parametrize("trusted", ["my_package", "my_package.", "my_package.nets", "my_package.nets.Net"])
def test_the_user_can_extend_the_list(trusted):
    check_trusted("my_package.nets.Net", [trusted], "here")
    with pytest.raises(UntrustedTargetError):
        check_trusted("my_package_too.nets.Net", [trusted], "here")


def test_an_empty_entry_trusts_nothing():
    with pytest.raises(UntrustedTargetError):
        check_trusted("os.system", ["", "."], "here")


def test_import():
    from spaces.stages.cache import Cache

    assert import_trusted("spaces.stages.cache.Cache", [], "here") is Cache
    assert import_trusted("collections.Counter", ["collections"], "here").__name__ == "Counter"


@pytest.mark.parametrize(
    "name",
    [
        "spaces.stages.cache.os.replace",
        "spaces.stages.cache.Path",
        "spaces.stages.cache.np.load",
        "spaces.stages.cache.Arrays",
    ],
)
def test_what_a_trusted_module_imports_is_not_trusted(name):
    with pytest.raises(UntrustedTargetError, match="not a class or function of a trusted package"):
        import_trusted(name, [], "here")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spaces.no_such.Net", "does not exist"),
        ("spaces.stages.cache.NoSuch", "has no 'NoSuch'"),
        ("no_such_package_anywhere.Net", "no module 'no_such_package_anywhere'"),
    ],
)
def test_names_that_do_not_exist_raise(name, text):
    with pytest.raises(InputError, match=text):
        import_trusted(name, ["no_such_package_anywhere"], "here")


@pytest.fixture
def users(tmp_path, monkeypatch):
    """A module of the user's with classes and functions of every sort; yields its name."""
    (tmp_path / "users_parts.py").write_text(
        "import os, torch\nfrom os import system\n"
        "class Net(torch.nn.Module): ...\n"
        "class _Hidden(torch.nn.Module): ...\n"
        "class Other: ...\n"
        "class Outer:\n    class Inner(torch.nn.Module): ...\n"
        "def made() -> Net: return Net()\n"
        "def other() -> Other: return Other()\n"
        "def anything() -> object: return Net()\n"
        "def unsaid(): return Net()\n"
        "def unknown() -> 'Missing': return Net()\n"
        "net = Net()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_parts", raising=False)
    return "users_parts"


MODULE = (torch.nn.Module,)


@pytest.mark.parametrize("name", ["Net", "_Hidden", "made"])
def test_classes_and_annotated_functions_of_the_kind_are_taken(users, name):
    assert import_trusted(f"{users}.{name}", [users], "here", MODULE).__name__ == name


@pytest.mark.parametrize("name", ["Other", "other", "anything", "unsaid", "unknown", "net"])
def test_only_a_class_of_the_kind_is_taken(users, name):
    with pytest.raises(ConfigError, match=rf"here: '{users}.{name}' is no"):
        import_trusted(f"{users}.{name}", [users], "here", MODULE)


@pytest.mark.parametrize("name", ["Outer.Inner", "os.system", "system", "torch.nn.Linear", "net.forward"])
def test_only_what_a_module_defines_itself_is_taken(users, name):
    with pytest.raises(UntrustedTargetError, match="not a class or function of a trusted package"):
        import_trusted(f"{users}.{name}", [users, "torch"], "here", MODULE)


def test_a_plain_function_is_taken_where_it_is_asked_for_but_of_no_library(users):
    assert import_trusted(f"{users}.unsaid", [users], "here", MODULE, plain_functions=True)
    assert import_trusted(f"{users}.anything", [users], "here", plain_functions=True)
    for name in (f"{users}.made", "spaces.models.trust.is_kind"):
        with pytest.raises(ConfigError, match="is no class"):
            import_trusted(name, [users], "here")
    with pytest.raises(ConfigError, match="is no class"):
        import_trusted("spaces.models.trust.is_kind", [users], "here", plain_functions=True)
    for name in (
        "os.popen",
        "subprocess.run",
        "shutil.rmtree",
        "torch.load",
        "torch.hub.load",
        "os.system",
        "builtins.exec",
    ):
        for kinds in (MODULE, ()):
            with pytest.raises((ConfigError, UntrustedTargetError)):
                import_trusted(name, [name.split(".")[0]], "here", kinds, plain_functions=True)


@pytest.mark.parametrize(
    "name", ["spaces.stages.cache._delete", "spaces._x.Y", "search.a._B.c", "torch.nn._reduction.legacy"]
)
def test_private_names_of_trusted_packages_are_refused_whoever_trusts_them(name):
    for trusted in ([], ["spaces", "search", "torch"]):
        with pytest.raises(UntrustedTargetError, match="is private"):
            check_trusted(name, trusted, "here")


class Plays(Protocol):
    name: str

    def play(self, n: int) -> int: ...


def test_a_protocol_is_met_by_its_methods():
    class Good:
        def play(self, n):
            return n

    class Bad:
        play = 3

    assert is_kind(Good, Plays)
    assert not is_kind(Bad, Plays)
    assert is_kind(bool, int)
