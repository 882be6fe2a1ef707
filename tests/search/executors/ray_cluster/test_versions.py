import pytest

from search.executors.ray_cluster.versions import PACKAGES, differences, installed
from spaces.errors import ConfigError


def test_all_that_trials_compute_with_is_installed_here():
    assert set(installed()) == set(PACKAGES)
    assert not any("+" in version for version in installed().values())


def test_equal_versions_are_not_mentioned():
    assert differences({"torch": "2.13.0"}, {"a": {"torch": "2.13.0"}, "b": {"torch": "2.13.0"}}) == ""


def test_other_versions_are_one_line():
    text = differences({"torch": "2.13.0", "onnx": "1.0"}, {"a": {"torch": "2.12.0", "onnx": "1.0"}})
    assert (
        text
        == "versions differ on the Ray cluster, so that results may: torch 2.12.0 (here 2.13.0) on node a"
    )


def test_a_missing_package_is_refused():
    with pytest.raises(ConfigError, match="node a of the Ray cluster lacks onnx, torch"):
        differences({"torch": "2.13.0", "onnx": "1.0"}, {"a": {}})
