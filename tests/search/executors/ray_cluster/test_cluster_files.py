"""The files for Kubernetes: they follow KubeRay's schema, travel with the package, and the command in them composes."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from search.api import compose
from search.executors.ray import RayExecutor
from search.planning.config.instantiate import instantiate
from search.planning.config.shipped import shipped

FOLDER = shipped() / "cluster"
PROJECT = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())
JOB_FIELDS = {
    "activeDeadlineSeconds": int, "backoffLimit": int, "clusterSelector": dict, "deletionStrategy": dict, "entrypoint": str,
    "entrypointNumCpus": float, "entrypointNumGpus": float, "entrypointResources": str, "jobId": str, "managedBy": str,
    "metadata": dict, "rayClusterSpec": dict, "runtimeEnvYAML": str, "shutdownAfterJobFinishes": bool, "submissionMode": str,
    "submitterConfig": dict, "submitterPodTemplate": dict, "suspend": bool, "ttlSecondsAfterFinished": int,
}  # fmt: skip
CLUSTER_FIELDS = {
    "authOptions": dict, "autoscalerOptions": dict, "enableInTreeAutoscaling": bool, "gcsFaultToleranceOptions": dict,
    "headGroupSpec": dict, "headServiceAnnotations": dict, "managedBy": str, "rayVersion": str, "suspend": bool,
    "upgradeStrategy": dict, "workerGroupSpecs": list,
}  # fmt: skip
HEAD_FIELDS = {"enableIngress": bool, "headService": dict, "labels": dict, "rayStartParams": dict, "resources": dict, "serviceType": str, "template": dict}  # fmt: skip
WORKER_FIELDS = {
    "groupName": str, "idleTimeoutSeconds": int, "labels": dict, "maxReplicas": int, "minReplicas": int, "numOfHosts": int,
    "rayStartParams": dict, "replicas": int, "resources": dict, "scaleStrategy": dict, "suspend": bool, "template": dict,
}  # fmt: skip


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load((FOLDER / "ray_job.yml").read_text())


def check(section, fields, required=()):
    """The fields are KubeRay's (ray.io/v1, version 1.6), with values of their types."""
    assert set(section) <= set(fields)
    assert set(required) <= set(section)
    for name, value in section.items():
        assert isinstance(value, fields[name]), name
        assert not (fields[name] is int and isinstance(value, bool)), name


def pods(job):
    cluster = job["spec"]["rayClusterSpec"]
    return [
        cluster["headGroupSpec"]["template"]["spec"],
        *(g["template"]["spec"] for g in cluster["workerGroupSpecs"]),
    ]


def test_the_job_follows_the_schema(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["metadata"].get("name") or job["metadata"]["generateName"]
    check(job["spec"], JOB_FIELDS, ["entrypoint", "rayClusterSpec"])
    cluster = job["spec"]["rayClusterSpec"]
    check(cluster, CLUSTER_FIELDS, ["headGroupSpec", "rayVersion"])
    check(cluster["headGroupSpec"], HEAD_FIELDS, ["template"])
    for group in cluster["workerGroupSpecs"]:
        check(group, WORKER_FIELDS, ["groupName", "maxReplicas", "minReplicas", "template"])
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for start in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in start["rayStartParams"].values())
    assert job["spec"]["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
    assert cluster["authOptions"] == {"mode": "token"}


def test_kueue_can_suspend_it(job):
    assert re.fullmatch(r"[a-z0-9-]+", job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"])
    spec = job["spec"]
    assert spec["suspend"] is True
    assert spec["shutdownAfterJobFinishes"] is True  # which rules of a deletionStrategy exclude
    assert "deletionStrategy" not in spec
    assert "clusterSelector" not in spec
    assert not spec["rayClusterSpec"].get("enableInTreeAutoscaling")
    assert all(
        set(c["resources"]["requests"]) >= {"cpu", "memory"} for pod in pods(job) for c in pod["containers"]
    )


def test_what_is_mounted_is_there_and_the_study_outlives_the_pods(job):
    head = pods(job)[0]
    (mount,) = head["containers"][0]["volumeMounts"]
    assert mount["name"] in [volume["name"] for volume in head["volumes"]]
    config = compose(shlex.split(job["spec"]["entrypoint"])[1:])
    assert config.study.folder.is_relative_to(mount["mountPath"])
    assert config.cache_dir.is_relative_to(mount["mountPath"])


def test_the_command_composes_and_makes_its_executor(job):
    program, *overrides = shlex.split(job["spec"]["entrypoint"])
    assert program in PROJECT["project"]["scripts"]
    config = compose(overrides)
    executor = instantiate(config.section("executor"), "executor", config.trusted)
    assert isinstance(executor, RayExecutor)


def test_a_trial_fits_into_a_worker(job):
    executor = compose(shlex.split(job["spec"]["entrypoint"])[1:]).section("executor")
    for pod in pods(job)[1:]:
        limits = pod["containers"][0]["resources"]["limits"]
        assert executor["cpus_per_trial"] <= float(limits["cpu"])
        assert float(executor["memory_per_trial"].split()[0]) < float(limits["memory"].removesuffix("Gi"))


def test_the_image_has_the_version_that_the_job_names(job):
    recipe = (FOLDER / "Dockerfile").read_text()
    assert f"ARG RAY_VERSION={job['spec']['rayClusterSpec']['rayVersion']}\n" in recipe
    assert [line.split()[0] for line in recipe.splitlines() if line and line[0] != "#"] == [
        "ARG",
        "FROM",
        "ARG",
        "ARG",
        "RUN",
    ]
    tag = f"paredown:{PROJECT['project']['version']}"
    assert all(container["image"].endswith(tag) for pod in pods(job) for container in pod["containers"])
    assert tag in recipe


def test_the_files_travel_with_the_package_and_are_no_config_group():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["conf"]
    packed = {path.name for pattern in patterns for path in shipped().glob(pattern)}
    assert {"ray_job.yml", "Dockerfile"} <= packed
    assert not list(FOLDER.glob("*.yaml"))


def test_the_extra_brings_the_dashboard_which_takes_jobs():
    assert PROJECT["project"]["optional-dependencies"]["ray"] == ["ray[default]>=2.59,<3"]
