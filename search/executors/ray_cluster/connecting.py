"""Connects to a Ray cluster, or starts a Ray on this machine. What cannot be used is refused within half a minute."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.executors.ray_cluster import probe
from search.executors.ray_cluster.causes import cause_of
from search.executors.ray_cluster.code import Code
from search.executors.ray_cluster.resources import Node, nodes_of
from search.record.environment import environment_variable
from spaces.errors import ConfigError
from spaces.extras import extra_module

PROBE_S = 20.0
"""Most seconds until a cluster has said what it has."""
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"
AUTH_MODES = ("disabled", "token")


@dataclass(frozen=True)
class Connection:
    """A connection to Ray.

    Attributes:
        ray: The module.
        ours: Whether it was made here, and is to be closed here.
        nodes: The living nodes.
        local: Whether its workers are of this machine alone, and import code from where this process does.
    """

    ray: Any
    ours: bool
    nodes: list[Node]
    local: bool = False

    def import_path(self) -> list[str]:
        """Returns the folders from which workers import besides their own: those of this process, if they are of this machine."""
        return [str(Path(folder).absolute()) for folder in sys.path] if self.local else []

    def close(self) -> None:
        """Ends the connection if it was made here; a Ray that was started here ends, too."""
        if self.ours and self.ray.is_initialized():
            self.ray.shutdown()


def connect(address: str | None, auth_mode: str | None, code: Callable[[], Code]) -> Connection:
    """Connects.

    A connection that this process has already (`ray.init` in a notebook) is used as it is.

    Args:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT`; `local` starts a Ray on this machine; None takes the environment's
            RAY_ADDRESS, as in a submitted job, and is `local` without it.
        auth_mode: `token` or `disabled`; None takes the environment's RAY_AUTH_MODE, or `token` for a cluster if there is one.
        code: Returns what the workers of a cluster get a copy of. Those of a Ray that is started here need none.

    Raises:
        ConfigError: Ray is not installed, nobody answers, the token or the version is wrong.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _set_environment(address, auth_mode)
    ray = extra_module("ray", "executor=ray")
    if ray.is_initialized():
        return Connection(ray, False, nodes_of(ray.nodes()))
    local = address == "local"
    settings: dict[str, Any] = {"include_dashboard": False}
    if not local:
        probed(address)
        settings = {"runtime_env": _merged(code().runtime_env())}
    try:
        # our environment of workers replaces keys of the one that a submitted job brings; Ray refuses common keys otherwise
        with _kept_signals(), environment_variable(_OVERRIDE, "1"):
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                logging_level="ERROR",
                **settings,
            )
        return Connection(ray, True, nodes_of(ray.nodes()), local)
    except Exception as error:  # Ray raises errors of many kinds, some of them of gRPC
        raise ConfigError(f"executor.address={address}: cannot connect to Ray: {cause_of(error)}") from error


def probed(address: str, seconds: float = PROBE_S) -> list[Node]:
    """Asks a cluster for its nodes, in a process of its own.

    Args:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT`.
        seconds: Most seconds to wait.

    Raises:
        ConfigError: Nobody answers in time, or the cluster cannot be used.
    """
    command = [sys.executable, "-P", str(probe.__file__), address]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"executor.address={address}: somebody listens there, but does not answer as a Ray cluster within "
            f"{seconds:.0f} s. HOST:PORT is the address of the head's GCS (port 6379 by default), ray://HOST:PORT that of its "
            "client server (port 10001)"
        ) from error
    lines = ran.stdout.strip().splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
        answer = {"error": last[:300]}
    if "error" in answer:
        raise ConfigError(f"executor.address={address}: the Ray cluster cannot be used: {answer['error']}")
    return nodes_of(answer["nodes"])


def _set_environment(address: str, auth_mode: str | None) -> None:
    """Sets what Ray reads when it is imported; what the user's environment says comes first."""
    if auth_mode is not None and auth_mode not in AUTH_MODES:
        raise ConfigError(
            f"executor.auth_mode must be one of {', '.join(AUTH_MODES)} or null, not {auth_mode!r}"
        )
    if auth_mode is None:
        has_token = bool(os.environ.get("RAY_AUTH_TOKEN")) or probe.token_file().is_file()
        auth_mode = "token" if has_token and address != "local" else "disabled"
    os.environ.setdefault("RAY_AUTH_MODE", auth_mode)
    # without it Ray warns of a future change of its handling of GPUs on machines that have none
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def _merged(runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Returns our environment of workers; where this process is a submitted job, lists go on with those of the job's own."""
    job = json.loads(os.environ.get(_JOB_CONFIG) or "{}").get("runtime_env") or {}
    return {key: [*values, *job.get(key, [])] for key, values in runtime_env.items()}


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Keeps this process's handling of SIGTERM, which `ray.init` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
