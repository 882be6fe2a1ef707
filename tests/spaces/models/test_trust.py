import pytest

from spaces.errors import InputError, UntrustedTargetError
from spaces.models.trust import check_trusted, import_trusted


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
