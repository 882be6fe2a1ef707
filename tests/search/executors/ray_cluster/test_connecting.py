import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from search.executors.ray import RayExecutor
from search.executors.ray_cluster import connecting, probe
from search.executors.ray_cluster.code import Code
from search.executors.ray_cluster.connecting import connect, probed
from search.record.environment import environment_variable
from spaces.errors import ConfigError


@pytest.fixture
def silent():
    """The address of a program that accepts connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def closed():
    """An address at which nobody listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nobody_listens_is_refused_at_once(closed, scheme):
    began = time.monotonic()
    with pytest.raises(ConfigError, match=rf"executor\.address={scheme}{closed}.*nobody answers at {closed}"):
        probed(scheme + closed)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_does_not_answer_as_a_cluster_is_refused_in_time(silent, scheme):
    with pytest.raises(ConfigError, match="does not answer as a Ray cluster within 1 s"):
        probed(scheme + silent, seconds=1.0)


def test_the_time_to_answer_is_below_half_a_minute():
    assert connecting.PROBE_S <= 25


@pytest.mark.parametrize("address", ["hello", "host:port", "host:99999", "http://host:1", ":6379"])
def test_other_forms_of_addresses_are_refused(address):
    with pytest.raises(ConfigError, match="the forms are auto, HOST:PORT and ray://HOST:PORT"):
        probed(address)


def test_a_missing_token_is_refused(silent, monkeypatch, tmp_path):
    """Ray itself ends the process then."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"there is no token: .*token is missing or empty"):
        probed(silent)


def test_negative_retries_are_refused():
    with pytest.raises(ConfigError, match=r"executor\.max_retries must be at least 0, not -1"):
        RayExecutor(max_retries=-1)


def test_an_unknown_auth_mode_is_refused():
    with pytest.raises(
        ConfigError, match=r"executor\.auth_mode must be one of disabled, token or null, not 'k8s'"
    ):
        connect("local", "k8s", lambda: Code(()))


@pytest.mark.parametrize(
    ("address", "given", "environment", "token", "mode"),
    [
        ("local", None, None, True, "disabled"),
        ("host:1", None, None, False, "disabled"),
        ("host:1", None, None, True, "token"),
        ("host:1", "disabled", None, True, "disabled"),
        ("local", "disabled", "token", False, "token"),
    ],
)
def test_the_environment_decides_on_tokens_first(
    monkeypatch, tmp_path, address, given, environment, token, mode
):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    if token:
        (tmp_path / "token").write_text("secret")
    monkeypatch.setenv("RAY_AUTH_MODE", environment or "")
    if environment is None:
        monkeypatch.delenv("RAY_AUTH_MODE")
    connecting._set_environment(address, given)
    assert connecting.os.environ["RAY_AUTH_MODE"] == mode


def test_a_program_that_dies_is_told_by_its_last_line(monkeypatch, tmp_path):
    program = tmp_path / "dies.py"
    program.write_text("import sys; print('words'); sys.exit('the reason')")
    monkeypatch.setattr(probe, "__file__", str(program))
    with pytest.raises(ConfigError, match="cannot be used: the reason"):
        probed("host:1")


def test_another_version_of_ray_is_refused():
    pytest.importorskip("ray")
    with pytest.raises(
        probe._RefusedError, match=r"it runs Ray 1\.0\.0 on Python 3\.6\.1, but the study runs Ray \d"
    ):
        probe._same_versions({"ray_version": "1.0.0", "python_version": "3.6.1"})


def test_lists_of_a_submitted_job_are_kept(monkeypatch):
    job = {"py_modules": ["gcs://theirs.zip"], "working_dir": "gcs://folder.zip", "excludes": ["data"]}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": job}))
    merged = connecting._merged({"py_modules": ["ours"], "excludes": [".git"]})
    assert merged == {"py_modules": ["ours", "gcs://theirs.zip"], "excludes": [".git", "data"]}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert connecting._merged({"py_modules": ["ours"]}) == {"py_modules": ["ours"]}


@pytest.mark.parametrize("before", [None, "0"])
def test_ray_is_allowed_to_merge_only_while_connecting(monkeypatch, before):
    monkeypatch.setenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", before or "")
    if before is None:
        monkeypatch.delenv("RAY_OVERRIDE_JOB_RUNTIME_ENV")
    with environment_variable(connecting._OVERRIDE, "1"):
        assert connecting.os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] == "1"
    assert connecting.os.environ.get("RAY_OVERRIDE_JOB_RUNTIME_ENV") == before


def test_the_handling_of_sigterm_is_kept():
    before = signal.getsignal(signal.SIGTERM)
    with connecting._kept_signals():
        signal.signal(signal.SIGTERM, lambda number, frame: None)
    assert signal.getsignal(signal.SIGTERM) is before
    thread = threading.Thread(target=lambda: connecting._kept_signals().__enter__())
    thread.start()
    thread.join()


def test_a_missing_ray_is_one_message_and_closing_adds_no_other(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    executor = RayExecutor(address="local")
    with pytest.raises(
        ConfigError, match=r"executor=ray needs the package `ray`: pip install 'paredown\[ray\]'"
    ):
        executor.start(None)
    executor.close()


def test_the_probe_imports_nothing_of_ours():
    """It is run by its path, before anything is known of the cluster."""
    code = f"import runpy, sys; runpy.run_path({probe.__file__!r}); assert 'search' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_a_cluster_without_this_machine_is_refused_with_the_ways_in():
    pytest.importorskip("ray")
    with pytest.raises(
        probe._RefusedError, match=r"none of its nodes is this machine.*ray job submit.*ray://HOST:10001"
    ):
        probe._is_here({"0" * 56})
    probe._is_here(set())
