"""Settings and fixtures for all tests."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings

from evaluators.integer_kernels import integer_kernels_saturate as saturates
from tests.ports import free_port

# no deadline, because machines are noisy; the same examples in every run, so that a failure is due to a change
settings.register_profile("paredown", deadline=None, derandomize=True)
settings.load_profile("paredown")


@pytest.fixture
def interruptible():
    """Makes Ctrl-C work as in a terminal, here and in child processes, even if the tests' parent ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def integer_kernels_saturate():
    """Whether this processor's 8-bit kernels saturate."""
    return saturates()


@pytest.fixture
def exact_integer_kernels():
    """Skips tests of 8-bit kernels on processors on which these saturate."""
    if saturates():
        pytest.skip("this processor's 8-bit kernels saturate")


TOKEN = "a-token-of-the-tests-0123456789abcdef"


@pytest.fixture
def ray_cluster(tmp_path):
    """Starts Ray clusters; they end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(RayCluster(tmp_path, **settings))


class RayCluster:
    """A real Ray head on this machine, and nodes that join it, with ports and folders of their own.

    Each node is a process group; leaving the context ends all of them.

    Args:
        folder: Where tokens and logs go.
        token: Whether a token is needed.
        dashboard: Whether jobs can be submitted.
        cpus: CPUs of the head.
    """

    def __init__(self, folder, token=False, dashboard=False, cpus=2):
        self.port, self.dashboard_port, self.client_port = free_port(), free_port(), free_port()
        self._folder, self._dashboard, self._cpus = folder, dashboard, cpus
        self._temp = Path(
            tempfile.mkdtemp(prefix="pd-ray-")
        )  # short: paths of sockets are limited to 107 bytes
        (folder / "token").write_text(TOKEN)
        self.environment = {
            "RAY_AUTH_MODE": "token" if token else "disabled",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        }
        self._groups = []

    @property
    def address(self):
        """HOST:PORT of its head."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self):
        try:
            self.start(
                "--head", f"--port={self.port}", f"--num-cpus={self._cpus}", f"--temp-dir={self._temp}",
                f"--include-dashboard={str(self._dashboard).lower()}", f"--dashboard-port={self.dashboard_port}",
                f"--ray-client-server-port={self.client_port}",
            )  # fmt: skip
            self._wait_for(self.client_port)
            if self._dashboard:
                self._wait_for(self.dashboard_port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_for(self, port):
        """Waits until a server of the head answers, which it may do after the head says that it is up."""
        until = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                assert time.monotonic() < until, (self._folder / "node-0.log").read_text()[-2000:]
                time.sleep(0.1)
            else:
                return

    def start(self, *arguments):
        """Starts a node with arguments of `ray start`; returns its process group when it is up."""
        log = self._folder / f"node-{len(self._groups)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats", *arguments,
                    "--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0",
                    f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}",
                ],
                stdout=output, stderr=output, env=os.environ | self.environment, start_new_session=True,
            )  # fmt: skip
        self._groups.append(process)
        until = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.2)
        return process

    def kill(self, process):
        """Ends a node, with all its processes, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def __exit__(self, *error):
        for process in reversed(self._groups):
            self.kill(process)
        shutil.rmtree(self._temp, ignore_errors=True)
