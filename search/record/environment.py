"""The environment of a study: package versions, the machine, and variables that libraries read."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "paredown",
    "hydra-core",
    "mlflow",
    "numpy",
    "onnx",
    "onnxruntime",
    "optuna",
    "ray",
    "torch",
    "xgboost-cpu",
    "xgboost",
)


def environment() -> dict[str, str]:
    """Returns package versions, CPU and number of usable cores by name, for the study's record."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        "cpu": _cpu(),
        "usable_cores": str(usable_cores()),
        **{name: version for name, version in versions.items() if version is not None},
    }


def usable_cores() -> int:
    """Returns the number of cores that this process may use, or of all cores where it is not reported.

    Python's own `os.process_cpu_count` exists from 3.13 on only; macOS and Windows have no `os.sched_getaffinity`.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Sets a variable of this process's environment within the context; afterwards it is as it was before."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
