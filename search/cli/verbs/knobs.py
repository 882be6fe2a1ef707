"""`paredown knobs [STAGE ...]`: every knob of every stage, with its default, its range and its description."""

import json
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from search.cli.verbs.options import VerbParser, add_config_dir, folders_of, indented, words_of
from search.cli.verbs.stages import FoundStage, stages_in
from search.planning.config.group_files import files_of
from search.report.console import PlainConsole
from spaces.candidate import value_text
from spaces.errors import ConfigError, unknown_name
from spaces.knob_spec import KnobSpec

OK = 0


def run(arguments: Sequence[str]) -> int:
    """Prints the knobs; returns the exit status.

    Raises:
        ConfigError: There is no such stage, or an option is wrong.
    """
    parser = VerbParser(
        "paredown knobs", description="Prints every knob of a stage: default, valid values, description."
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="stages, e.g. quantize; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config_dir(parser)
    given = parser.parse_intermixed_args(arguments)
    folders, (names, trusted) = folders_of(given), words_of(given.stages)
    known = files_of("stage", folders)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(unknown_name("stage", unknown[0], known))
    found = list(stages_in(folders, trusted, names))
    if given.json:
        print(json.dumps([_described(each, knob) for each in found for knob in each.stage.knobs], indent=2))  # noqa: T201
        return OK
    console = PlainConsole()
    for each in found:
        _print(console, each)
    return OK


def _described(found: FoundStage, knob: KnobSpec) -> dict[str, Any]:
    model = {} if found.model is None else {"model": found.model.name}
    return {
        "stage": found.stage.name, **model, "knob": knob.name, "default": knob.default, "values": knob.range_text,
        "per_layer": knob.per_layer, "description": knob.description,
    }  # fmt: skip


def _print(console: PlainConsole, found: FoundStage) -> None:
    name = found.stage.name
    head = f"{name}: {found.file.description}"
    if found.model is not None:
        head = f"{name} with model={found.model.name}: {found.model.description}"
    console.print(Text(indented(head, console.width, 0), style="bold"), soft_wrap=True)
    for knob in found.stage.knobs:
        layers = "; a value for each layer, too" if knob.per_layer else ""
        path = Text(f"  space.{name}.{knob.name}", style="cyan")
        console.print(path.append(f" = {value_text(knob.default)}", style="default"), soft_wrap=True)
        for text in (f"{knob.range_text}{layers}", knob.description):
            console.print(indented(text, console.width, 6), soft_wrap=True)
    console.print("" if found.stage.knobs else "  no knobs\n")
