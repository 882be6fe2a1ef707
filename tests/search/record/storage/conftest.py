"""A real PostgreSQL server of a test's own, where its programs are installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from search.record.storage import database
from tests.ports import free_port


class Server:
    """A server in a folder, which listens on a free port of this machine."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        folder.mkdir()
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres")
            folder.chmod(0o755)
        (folder / "password").write_text("s3cret/pass")
        (folder / "password").chmod(0o644)
        self._run(
            "initdb", "-D", self._data, "-U", "paredown", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-E", "UTF8", "--no-sync",
        )  # fmt: skip

    @property
    def _data(self):
        return str(self.folder / "data")

    @property
    def url(self):
        return f"postgresql://paredown:s3cret%2Fpass@127.0.0.1:{self.port}/postgres"

    def start(self):
        self._control("start")

    def stop(self):
        self._control("stop", "-m", "immediate")

    def restart(self):
        self._control("restart", "-m", "immediate")

    def _control(self, *arguments):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self.folder / "log"), "-o", options, *arguments)

    def _run(self, *command):
        as_user = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        )
        subprocess.run(
            [*as_user, *command],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )


@pytest.fixture(scope="session")
def postgres_server():
    """A running server for all tests of a session."""
    pytest.importorskip("psycopg")
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("no PostgreSQL server is installed: initdb and pg_ctl are not on the PATH")
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # pytest's own folders are closed to other users, the server's too
        Path(folder).chmod(0o755)
        server = Server(Path(folder) / "server")
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def postgres(postgres_server, monkeypatch):
    """The server, with a driver that waits less long for what is not going to happen."""
    monkeypatch.setattr(database, "_HANDOVER_S", 0.5)
    return postgres_server
