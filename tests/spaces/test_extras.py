import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from search.cli.app import run_command
from search.planning.config.instantiate import instantiate
from spaces.errors import ConfigError
from spaces.extras import EXTRAS, PACKAGES, check_extra, extra_module, missing

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OF_DISTRIBUTIONS = {
    "hydra-core": "hydra",
    "nvidia-ml-py": "pynvml",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "xgboost-cpu": "xgboost",
}
OF_DEPENDENCIES = {
    "google",
    "grpc",
    "ml_dtypes",
    "requests",
    "sqlalchemy",
    "yaml",
}  # which ONNX, Ray, MLflow, Optuna and Hydra bring
GUARDED = {
    "pynvml",
    "psycopg",
}  # without the first there is no energy of GPUs, and the report says so; storage checks the second


@pytest.fixture
def blocked(monkeypatch):
    """Makes a package look as if it were not installed."""

    def block(package):
        for name in [n for n in sys.modules if n.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return block


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_package_is_one_message_with_its_extra(blocked, package):
    blocked(package)
    text = rf"^x=y needs the package `{package}`: pip install 'paredown\[{EXTRAS[package]}\]'$"
    with pytest.raises(ConfigError, match=text):
        check_extra(package, "x=y")
    with pytest.raises(ConfigError, match=text):
        extra_module(f"{package}.part", "x=y")


def test_a_broken_package_is_told_with_its_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pd_broken.py").write_text("raise ImportError('built for another numpy')")
    with pytest.raises(ConfigError, match=r"needs the package `pd_broken`: .*\(built for another numpy\)"):
        extra_module("pd_broken", "x=y")


def test_an_installed_package_is_imported():
    assert extra_module("json.decoder", "x").JSONDecoder
    check_extra("json", "x")


def test_a_package_of_no_extra_is_named_as_it_is():
    assert missing("timm", "model=mine") == "model=mine needs the package `timm`: pip install timm"


def test_a_target_whose_package_is_missing_is_one_message(blocked):
    blocked("cmaes")
    with pytest.raises(
        ConfigError, match=r"sampler=cmaes needs the package `cmaes`: pip install 'paredown\[cmaes\]'"
    ):
        instantiate({"_target_": "search.samplers.cmaes.CmaEsSampler"}, "sampler", ())


def test_so_is_one_of_a_users_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pd_needing.py").write_text(
        "class Named:\n    def __init__(self):\n        import pd_not_there\n\n"
        "class Told:\n    def __init__(self):\n        raise ImportError('install the other half')\n"
    )
    with pytest.raises(
        ConfigError, match=r"x: pd_needing\.Named needs the package `pd_not_there`: pip install"
    ):
        instantiate({"_target_": "pd_needing.Named"}, "x", ["pd_needing"])
    with pytest.raises(ConfigError, match=r"x: pd_needing\.Told: install the other half"):
        instantiate({"_target_": "pd_needing.Told"}, "x", ["pd_needing"])


def test_the_command_says_so_too(blocked, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("search.cli.app.run_config", lambda *arguments: __import__("pd_not_there"))
    assert run_command(["tracker=none"]) == 2
    error = capsys.readouterr().err
    assert error == "paredown: this config needs the package `pd_not_there`: pip install pd_not_there\n"


def test_every_package_that_is_imported_is_a_dependency_or_an_extra():
    """What no dependency brings is imported by `extra_module` only, so that a missing one is one message."""
    wanted = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    allowed = {*wanted, *PACKAGES, *sys.stdlib_module_names, *OF_DEPENDENCIES, "pytest"}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for name in imported(path) - allowed:
                assert name in EXTRAS, f"{path}: {name}"
                assert name in GUARDED or "executors/ray" in str(path), (
                    f"{path}: {name} without `extra_module`"
                )


def name_of(requirement):
    distribution = re.match(r"[\w.-]+", requirement)[0]
    return OF_DISTRIBUTIONS.get(distribution, distribution.replace("-", "_"))


def imported(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    return {name.partition(".")[0] for name in names}


def test_the_table_is_that_of_the_project():
    extras = PROJECT["optional-dependencies"]
    for package, extra in EXTRAS.items():
        if extra == "postgres" and extra not in extras:
            continue
        assert package in {name_of(requirement) for requirement in extras[extra]}


@pytest.mark.slow
def test_a_missing_ray_is_one_line_on_the_command_line(tmp_path):
    code = "import sys; sys.modules['ray'] = None; from search.cli.app import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "executor=ray",
        "tracker=none",
        f"cache_dir={tmp_path}",
        "study.n_trials=1",
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr == "paredown: executor=ray needs the package `ray`: pip install 'paredown[ray]'\n"
