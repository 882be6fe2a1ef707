import sys
from pathlib import Path

import pytest

from search.executors.ray_cluster import code
from search.executors.ray_cluster.code import Code
from spaces.errors import ConfigError
from spaces.extras import PACKAGES as OWN


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to import from, which no test's modules outlive."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def names(found):
    return [path.name for path in found.paths]


def test_our_own_packages_are_always_sent():
    found = Code.of([])
    assert names(found) == list(OWN)
    assert all((path / "__init__.py").is_file() for path in found.paths)
    assert found.runtime_env()["py_modules"] == [str(path) for path in found.paths]


def test_a_trusted_module_brings_what_it_imports(folder):
    (folder / "ray_my_eval.py").write_text("import json\nimport numpy\nfrom ray_my_help import scale\n")
    (folder / "ray_my_help.py").write_text("import spaces.errors\nimport ray_my_package.deep\nscale = 1\n")
    (folder / "ray_my_package").mkdir()
    (folder / "ray_my_package" / "__init__.py").write_text("")
    (folder / "ray_my_package" / "deep.py").write_text("from . import other\nimport ray_not_there\n")
    (folder / "ray_unrelated.py").write_text("")
    found = Code.of(["ray_my_eval.MyEvaluator"])
    assert sorted(names(found)[len(OWN) :]) == ["ray_my_eval.py", "ray_my_help.py", "ray_my_package"]
    assert not any(name.startswith("ray_my") for name in sys.modules)  # nothing was imported


def test_a_namespace_package_is_sent_from_all_its_folders(folder, monkeypatch, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    monkeypatch.syspath_prepend(str(other))
    for place in (folder, other):
        (place / "ray_my_space").mkdir()
    assert set(Code.of(["ray_my_space"]).paths[len(OWN) :]) == {
        folder / "ray_my_space",
        other / "ray_my_space",
    }


def test_installed_packages_are_the_images_matter():
    assert names(Code.of(["numpy.linalg", "torch", "os"])) == list(OWN)


def test_a_package_with_data_in_it_is_refused(folder, monkeypatch):
    monkeypatch.setattr(code, "_MOST_BYTES", 1000)
    package = folder / "ray_my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "weights.bin").write_bytes(bytes(2000))
    with pytest.raises(ConfigError, match="'ray_my_package', has 0 MiB, too much to be sent"):
        Code.of(["ray_my_package"])


def test_paths_are_found_whatever_the_current_folder_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert all(Path(path).is_absolute() for path in Code.of([]).runtime_env()["py_modules"])
