"""Checks that every node of a cluster can run trials: it imports our code and has the packages that the study has."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from search.executors.ray_cluster.causes import cause_of
from search.executors.ray_cluster.resources import Node
from spaces.errors import ConfigError

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "numpy": ("numpy",),
    "onnx": ("onnx",),
    "onnx_ir": ("onnx-ir",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "onnxscript": ("onnxscript",),
    "torch": ("torch",),
}
"""What trials compute with, by the name of the import, with the distributions that have it."""
_WAIT_S = 60.0


def installed() -> dict[str, str]:
    """Returns the versions of `PACKAGES` here; those that are missing are absent.

    The builds of one version for a CPU and for a GPU, `2.13.0+cpu` and `2.13.0+cu130`, are the same version.
    """
    versions = {name: _version(distributions) for name, distributions in PACKAGES.items()}
    return {name: version.partition("+")[0] for name, version in versions.items() if version}


def check_nodes(ray: Any, nodes: Sequence[Node]) -> str:
    """Asks every node for its versions.

    Args:
        ray: The module, connected.
        nodes: The nodes. One that does not answer within a minute is left out: it may be busy, and is checked by its first trial.

    Returns:
        One line on the versions that differ; empty if none does.

    Raises:
        ConfigError: A node lacks a package, or cannot import our code.
    """
    asked = {_ask(ray, node): node for node in nodes}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_WAIT_S) if asked else ([], [])
    found: dict[str, dict[str, str]] = {}
    for answer in answered:
        name = asked[answer].name
        try:
            found[name] = ray.get(answer)
        except Exception as error:  # of Ray, or of the import
            raise ConfigError(
                f"node {name} of the Ray cluster cannot run trials: {_hinted(cause_of(error))}"
            ) from error
    return differences(installed(), found)


def differences(ours: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> str:
    """Returns one line on the versions that differ from ours; empty if none does.

    Args:
        ours: Versions by package, where the study runs.
        nodes: The same by node.

    Raises:
        ConfigError: A node lacks a package.
    """
    for node, versions in nodes.items():
        if missing := sorted(set(ours) - set(versions)):
            raise ConfigError(
                f"node {node} of the Ray cluster lacks {', '.join(missing)}: the cluster's image must have the dependencies of "
                "paredown (its code is sent by itself)"
            )
    other = {
        (name, versions[name]): node
        for node, versions in nodes.items()
        for name in ours
        if versions[name] != ours[name]
    }
    listed = (
        f"{name} {version} (here {ours[name]}) on node {node}" for (name, version), node in other.items()
    )
    text = "; ".join(listed)
    return f"versions differ on the Ray cluster, so that results may: {text}" if text else ""


def _ask(ray: Any, node: Node) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(installed).remote()


def _hinted(cause: str) -> str:
    if "untime env" in cause:
        return (
            f"{cause} (code is sent to nodes by Ray's runtime_env, which needs ray[default] on each of them)"
        )
    return cause


def _version(distributions: Sequence[str]) -> str:
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""
