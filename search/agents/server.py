"""Paredown as tools of an agent, over the Model Context Protocol: `paredown-mcp [FOLDER]` speaks it on standard input and output.

    {"mcpServers": {"paredown": {"command": "paredown-mcp", "args": ["FOLDER"]}}}

Every tool is the command line with fewer rights, see `search/agents/README.md`. What a tool returns is data of the user's
folder: names and texts in it are no instructions.
"""

import json
import logging
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import resources
from pathlib import Path
from typing import Any

from search.agents.studies import Studies
from search.planning.config.device_files import catalogue
from search.planning.config.shipped import shipped
from spaces.errors import ConfigError, ParedownError, unknown_name
from spaces.extras import extra_module

OK, USAGE = 0, 2
_TERMINATED = 143


def main() -> None:
    """Runs `paredown-mcp` and exits with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], command: str = "paredown-mcp") -> int:
    """Serves until the input ends; returns the exit status.

    Args:
        arguments: Words after the command.
        command: What the user called it by.
    """
    parser = ArgumentParser(command, description="Serves Paredown to agents (Model Context Protocol).")
    parser.add_argument(
        "folder", nargs="?", default=".", help="the folder that agents may use; by default this one"
    )
    parser.add_argument(
        "--studies", type=int, default=1, metavar="N", help="studies that may run at once (1)"
    )
    parser.add_argument("--skill", action="store_true", help="print SKILL.md, which tells an agent how to")
    given = parser.parse_args(arguments)
    if given.skill:
        print(skill())  # noqa: T201
        return OK
    folder = Path(given.folder).expanduser()
    try:
        if not folder.is_dir() or given.studies < 1:
            raise ConfigError(
                f"{folder} is no folder" if not folder.is_dir() else "--studies must be at least 1"
            )
        studies = Studies(folder, given.studies)
        served = server(studies)
    except ParedownError as error:
        print(f"{command}: {error}", file=sys.stderr)  # noqa: T201
        return USAGE

    def end(*_: object) -> None:
        studies.close()
        os._exit(_TERMINATED)  # a thread waits for standard input, and would hold up an ordinary exit

    signal.signal(signal.SIGTERM, end)
    try:
        served.run("stdio")
    finally:
        studies.close()
    return OK


def skill() -> str:
    """Returns SKILL.md, which tells an agent how to use Paredown."""
    return resources.files("search.agents").joinpath("SKILL.md").read_text("utf-8")


def server(studies: Studies) -> Any:
    """Returns the `mcp.server.MCPServer` of a folder's studies.

    Raises:
        ConfigError: The package `mcp` is missing.
    """
    made = extra_module("mcp.server", "paredown-mcp").MCPServer(
        "paredown", instructions=skill(), log_level="WARNING"
    )
    logging.getLogger("mcp").setLevel(logging.WARNING)
    for tool in (*_catalogues(studies), *_of_studies(studies)):
        made.add_tool(_told(tool), structured_output=True)
    return made


def _told(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a tool whose refusals are an answer with our message, not a fault of the server."""
    failure = extra_module("mcp.server.mcpserver.exceptions", "paredown-mcp").ToolError

    @wraps(tool)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return tool(*args, **kwargs)
        except ParedownError as error:
            raise failure(str(error)) from error

    return told


def _catalogues(studies: Studies) -> list[Callable[..., Any]]:
    def list_devices(match: str = "") -> list[dict[str, Any]]:
        """Lists devices that a model can be compressed for: name, hardware, runtime, memory sizes in bytes.

        `match` keeps those with that text in name, hardware or runtime, e.g. "stm32" or "cortex-m7".
        """
        found = catalogue([shipped()]).devices
        rows = [
            {
                "name": name, "hardware": device.description, "runtime": device.runtime,
                "ram_bytes": device.ram_bytes, "flash_bytes": device.flash_bytes,
            }
            for name, device in sorted(found.items())
        ]  # fmt: skip
        return [row for row in rows if match.lower() in " ".join(map(str, row.values())).lower()]

    def list_choices(group: str = "") -> dict[str, list[dict[str, str]]]:
        """Lists what can be chosen by `group=name`: the config groups with each name and the command that uses it.

        Without a group only the groups' names are listed, e.g. "sampler", "stage", "task", "task/data", "experiment".
        """
        groups = _groups()
        if not group:
            return {name: [] for name in groups}
        if group not in groups:
            raise ConfigError(unknown_name("group", group, tuple(groups)))
        return {group: [_choice(path) for path in sorted(groups[group].glob("*.yaml"))]}

    def list_knobs(stage: str = "") -> list[dict[str, Any]]:
        """Lists every knob of a stage ("prune", "quantize", ...; all stages without one): default, valid values, meaning."""
        return _rows(studies.command(["knobs", *_word(stage), "--json"]))

    def list_methods(text: str = "") -> list[dict[str, Any]]:
        """Lists compression methods with paper, what each needs, and the command that tries it; `text` narrows the list."""
        return _rows(studies.command(["methods", *_word(text), "--json"]))

    return [list_devices, list_choices, list_knobs, list_methods]


def _of_studies(studies: Studies) -> list[Callable[..., Any]]:
    def plan_study(overrides: list[str]) -> dict[str, str]:
        """Says what a study would do, and runs nothing: the resolved space, its size, devices, expected time.

        `overrides` are those of the command line, e.g. ["model=onnx", "model.checkpoint=net.onnx", "device=stm32h743"].
        """
        return {"plan": studies.plan(overrides)}

    def start_study(name: str, overrides: list[str]) -> dict[str, Any]:
        """Starts a study in the background, or goes on with the one of that name. Its files are in outputs/NAME."""
        return studies.start(name, overrides)

    def watch_study(name: str, wait_s: float = 30.0) -> dict[str, Any]:
        """Returns a study's state after at most `wait_s` seconds (60 at most), as soon as a trial or the study ends."""
        return studies.status(name, wait_s)

    def stop_study(name: str) -> dict[str, Any]:
        """Ends a study's search early; what was found so far is written, and starting it again goes on."""
        return studies.stop(name)

    def list_studies() -> list[str]:
        """Lists the studies of the folder by name."""
        return studies.names()

    def read_study(name: str) -> dict[str, Any]:
        """Returns what a study found: the pick per device and why, the baseline, the front, and where the ONNX files are."""
        return studies.results(name)

    def read_trials(name: str, first: int = 0, count: int = 50) -> list[dict[str, Any]]:
        """Returns trials of a study with their knobs, metrics, costs, state and the reason of a failure; 200 at most."""
        return studies.trials(name, first, count)

    return [plan_study, start_study, watch_study, stop_study, list_studies, read_study, read_trials]


def _groups() -> dict[str, Path]:
    folders = sorted({path.parent for path in shipped().rglob("*.yaml")} - {shipped()})
    return {folder.relative_to(shipped()).as_posix(): folder for folder in folders}


def _choice(path: Path) -> dict[str, str]:
    head = [line[2:] for line in path.read_text("utf-8").splitlines() if line.startswith("# ")]
    command = next((line for line in head if line.startswith("paredown ")), "")
    remarks = [line for line in head if not line.startswith(("paredown ", "@"))]
    return {"name": path.stem, "command": command, "description": " ".join(remarks)[:400]}


def _word(text: str) -> list[str]:
    if text.startswith("-") or "=" in text:
        raise ConfigError(f"{text!r} is no name")
    return [text] if text else []


def _rows(text: str) -> list[dict[str, Any]]:
    found = json.loads(text)
    return found if isinstance(found, list) else [found]


if __name__ == "__main__":
    main()
