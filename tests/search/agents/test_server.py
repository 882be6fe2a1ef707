"""The tools, as an agent's client sees them: `mcp`'s own client, in this process and over standard input and output."""

import asyncio
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

mcp = pytest.importorskip("mcp", reason="the extra `mcp` is not installed")

from search.agents.server import run, server, skill  # noqa: E402
from search.agents.studies import Studies  # noqa: E402

TINY = [
    "sampler=random",
    "study.n_trials=2",
    "model.epochs=1",
    "tracker=none",
    "knowledge=none",
    "study.report=false",
]
needs_verbs = pytest.mark.skipif(
    importlib.util.find_spec("search.cli.verbs") is None, reason="the command line has no verbs yet"
)


@pytest.fixture
def studies(tmp_path):
    made = Studies(tmp_path)
    yield made
    made.close()


@pytest.fixture
def call(studies):
    """Calls a tool through the package's client; returns its data, or raises its message."""

    async def ask(name, arguments):
        async with mcp.Client(server(studies)) as client:
            return await client.call_tool(name, arguments)

    def called(tool, /, **arguments):
        answer = asyncio.run(ask(tool, arguments))
        if answer.is_error:
            raise AssertionError(answer.content[0].text)
        data = answer.structured_content
        return data["result"] if set(data) == {"result"} else data

    return called


def test_every_tool_has_a_description_and_a_schema_of_its_result(studies):
    async def tools():
        async with mcp.Client(server(studies)) as client:
            return (await client.list_tools()).tools

    found = {tool.name: tool for tool in asyncio.run(tools())}
    assert {"list_devices", "list_knobs", "start_study", "watch_study", "read_study"} <= set(found)
    for tool in found.values():
        assert tool.description, tool.name
        assert tool.output_schema, tool.name


def test_devices_are_found_by_their_hardware(call):
    rows = call("list_devices", match="stm32h743")
    assert "stm32h743" in {row["name"] for row in rows}
    assert all(row["ram_bytes"] > 0 for row in rows)
    assert call("list_devices", match="no such device") == []


def test_choices_of_a_group_come_with_their_command(call):
    assert {"sampler", "stage", "experiment"} <= set(call("list_choices"))
    (chosen,) = [c for c in call("list_choices", group="sampler")["sampler"] if c["name"] == "random"]
    assert "sampler=random" in chosen["command"]
    with pytest.raises(AssertionError, match="sampler"):
        call("list_choices", group="smapler")


@needs_verbs
def test_knobs_and_methods_are_those_of_the_command_line(call):
    knobs = call("list_knobs", stage="quantize")
    assert {"weight_bits", "clipping"} <= {knob["knob"] for knob in knobs}
    assert call("list_methods", text="gptq")


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("plan_study", {"overrides": ["trusted_modules=[os]"]}, "trusted"),
        ("start_study", {"name": "a", "overrides": ["task.root=/etc"]}, "outside"),
        ("start_study", {"name": "../a", "overrides": []}, "study name"),
        ("read_study", {"name": "../../etc"}, "study name"),
        ("read_trials", {"name": "/etc"}, "study name"),
        ("read_study", {"name": "none"}, "no results yet"),
        ("stop_study", {"name": "none"}, "not running"),
        ("list_knobs", {"stage": "--config-dir=/tmp"}, "no name"),
    ],
)
def test_what_is_refused_is_one_message_and_starts_nothing(call, studies, tool, arguments, why):
    with pytest.raises(AssertionError, match=why):
        call(tool, **arguments)
    assert studies.names() == []


def test_a_wrong_config_is_answered_with_the_command_lines_message(call):
    with pytest.raises(AssertionError, match=r"study\.n_trials"):
        call("plan_study", overrides=["study.n_trials=no"])


@pytest.mark.slow
def test_a_study_is_planned_started_watched_and_read(call, tmp_path):
    assert "quantize" in call("plan_study", overrides=TINY)["plan"]
    started = call("start_study", name="first", overrides=TINY)
    assert started["state"] == "running"
    with pytest.raises(AssertionError, match="running"):
        call("start_study", name="second", overrides=TINY)
    for _ in range(20):
        status = call("watch_study", name="first", wait_s=30)
        if status["state"] == "ended":
            break
    assert (status["exit_status"], status["n_trials"]) == (0, 2), status["output"]
    found = call("read_study", name="first")
    assert found["baseline"]["metrics"]["top1"] > 10
    for path in found["models"].values():
        assert (tmp_path / path).is_file()
    assert [row["number"] for row in call("read_trials", name="first")] == [0, 1]
    assert call("list_studies") == ["first"]


@pytest.mark.slow
def test_over_standard_input_and_output_nothing_else_is_printed(tmp_path):
    async def ask():
        command = mcp.StdioServerParameters(
            command=sys.executable, args=["-m", "search.agents.server", str(tmp_path)], cwd=str(Path.cwd())
        )
        async with mcp.Client(command) as client:
            return await client.call_tool("list_devices", {"match": "stm32h743"})

    assert not asyncio.run(ask()).is_error


def test_the_skill_names_every_tool_that_it_needs(studies):
    async def names():
        async with mcp.Client(server(studies)) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    text = skill()
    assert text.startswith("---\nname: paredown\n")
    named = {
        word.strip("`").partition("(")[0] for word in text.split() if word.startswith("`") and "_" in word
    }
    mentioned = {n for n in named if n.split("_")[0] in ("list", "plan", "start", "watch", "read", "stop")}
    assert mentioned <= asyncio.run(names())
    assert "read_study" in mentioned


@pytest.mark.slow
def test_a_server_that_is_terminated_ends_its_studies(tmp_path):
    code = (
        "import sys; from pathlib import Path; from search.agents import server, studies\n"
        "studies._COMMAND = (sys.executable, '-c', 'import time; time.sleep(600)')\n"
        "made = studies.Studies(Path(sys.argv[1])); made.start('long', [])\n"
        "server.Studies = lambda *_: made; print(made._running['long'].pid, flush=True); server.run([sys.argv[1]])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        assert psutil.pid_exists(pid)
        time.sleep(2)  # until it serves
        process.terminate()
        assert process.wait(40) == 143
    assert not psutil.pid_exists(pid)


def test_a_folder_that_is_none_is_one_message(tmp_path, capsys):
    assert run([str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err
