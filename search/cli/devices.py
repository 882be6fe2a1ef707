"""The `paredown-devices` command: lists the device profiles, or shows one with its sources."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from search.cli.device_tables import listing, sheet
from search.planning.config.device_files import GROUP, Catalogue, catalogue
from search.planning.config.shipped import shipped
from search.report.console import PlainConsole
from spaces.errors import ConfigError

OK, USAGE = 0, 2
_WIDTH = 120


def main() -> None:
    """Runs `paredown-devices` and exits with its status."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit status.

    Returns:
        0, or 2 if an argument or a profile is wrong.
    """
    errors = PlainConsole(stderr=True, soft_wrap=True)
    try:
        options = _options(arguments)
    except SystemExit as stop:  # argparse has printed the error
        return int(stop.code or OK)
    try:
        profiles = catalogue(_folders(options.config_dir))
        for path in profiles.hidden:
            errors.print(
                f"paredown-devices: {path} is never used: an earlier folder has a file of the same name",
                markup=False,
            )
        _show(profiles, options)
    except ConfigError as error:
        errors.print(f"paredown-devices: {error}", markup=False)
        return USAGE
    return OK


def _options(arguments: Sequence[str]) -> Namespace:
    parser = ArgumentParser(
        prog="paredown-devices",
        description="Lists the device profiles for `paredown device=NAME`, or shows one with the source of every figure.",
    )
    parser.add_argument("name", nargs="?", help="show this profile: every figure, its tag and its source")
    parser.add_argument(
        "--match", metavar="TEXT", help="list the profiles with TEXT in their name, hardware or runtime"
    )
    parser.add_argument("--group", metavar="GROUP", help="list the profiles of `device=GROUP`")
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        action="append",
        default=[],
        help=f"add the profiles of DIR/{GROUP}, as with `paredown --config-dir DIR`; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def _folders(config_dirs: Sequence[str]) -> list[Path]:
    folders = [Path(folder).expanduser() for folder in config_dirs]
    for folder in folders:
        if not (folder / GROUP).is_dir():
            raise ConfigError(
                f"--config-dir {folder}: there is no folder {folder / GROUP} with device profiles"
            )
    return [shipped(), *folders]


def _show(found: Catalogue, options: Namespace) -> None:
    if options.name is not None:
        _known("device", options.name, found.devices)
        names = [options.name]
    else:
        names = _chosen(found, options.match, options.group)
    if options.json:
        described = [_described(found, name) for name in names]
        print(json.dumps(described if options.name is None else described[0], indent=2))  # noqa: T201
        return
    console = PlainConsole()
    if not console.is_terminal:
        console = PlainConsole(width=_WIDTH)
    console.print(
        listing(found, names, console.width)
        if options.name is None
        else sheet(found, options.name, console.width)
    )


def _chosen(found: Catalogue, match: str | None, group: str | None) -> list[str]:
    names = sorted(found.devices)
    if group is not None:
        _known("group", group, found.groups)
        names = [name for name in found.groups[group] if name in found.devices]
    if match is not None:
        wanted = match.lower()
        names = [n for n in names if any(wanted in text.lower() for text in _texts(found, n))]
        if not names:
            raise ConfigError(f"--match {match}: no device has this text in its name, hardware or runtime")
    return names


def _texts(found: Catalogue, name: str) -> tuple[str, str, str]:
    device = found.devices[name]
    return name, device.description, device.runtime


def _known(kind: str, name: str, known: Mapping[str, object]) -> None:
    if name in known:
        return
    near = get_close_matches(name, known, n=4, cutoff=0.4) or [k for k in sorted(known) if name.lower() in k]
    hint = f"similar names: {', '.join(near)}" if near else f"known: {', '.join(sorted(known)[:6])}, ..."
    raise ConfigError(f"there is no {kind} {name!r}; {hint}")


def _described(found: Catalogue, name: str) -> dict[str, Any]:
    return {
        **asdict(found.devices[name]),
        "groups": [group for group, members in found.groups.items() if name in members],
        "file": str(found.files[name]),
    }
