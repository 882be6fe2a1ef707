"""`paredown methods [TEXT]`: every method, with its paper, what it needs, its place among the surveys' axes, and the command that tries it.

What is listed comes from the stages, families, criteria, roundings and formats themselves, and from the files of `conf/`: a plug-in appears with its
config (`--config-dir`), and says of itself what it is in `techniques` or `technique`.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from search.cli.verbs.options import VerbParser, add_config_dir, folders_of, indented, words_of
from search.cli.verbs.stages import FoundStage, stages_in
from search.planning.config.group_files import GroupFile, files_of
from search.planning.config.instantiate import factory_of
from search.report.console import PlainConsole
from spaces.candidate import Value, value_text
from spaces.errors import ConfigError, ParedownError
from spaces.knob_spec import PLACES, Technique, cited

OK = 0
AXES = ("quantization", "pruning", "distillation", "low-rank", "architecture", "training", "search")
_SEARCH_GROUPS = ("sampler", "allocator", "pruner")
_DEFAULT_SPACE = "quantize"


@dataclass(frozen=True)
class ListedMethod:
    """A method as it is listed.

    Attributes:
        name: What selects it, e.g. `quantize.rounding=gptq` or `sampler=tpe`.
        description: A sentence.
        technique: What people choose it by.
        run: The command that tries it.
    """

    name: str
    description: str
    technique: Technique
    run: str


def run(arguments: Sequence[str]) -> int:
    """Prints the methods; returns the exit status.

    Raises:
        ConfigError: No method has the text, or an option is wrong.
    """
    parser = VerbParser(
        "paredown methods",
        description="Lists every method: paper, needs, place in the taxonomy, and a command.",
    )
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="list those with this in name, kind, description or paper"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config_dir(parser)
    given = parser.parse_intermixed_args(arguments)
    texts, trusted = words_of(given.texts)
    found = list(methods(folders_of(given), trusted))
    for text in texts:
        found = [method for method in found if text.lower() in _searched(method)]
        if not found:
            raise ConfigError(
                f"no method has {text!r} in its name, kind, description or paper; `paredown methods` lists all"
            )
    if given.json:
        print(json.dumps([_described(method) for method in found], indent=2))  # noqa: T201
        return OK
    console = PlainConsole()
    for axis in AXES:
        of_axis = [method for method in found if method.technique.axis == axis]
        if of_axis:
            console.print(Text(f"{axis} ({len(of_axis)})", style="bold"))
        for method in of_axis:
            _print(console, method)
    return OK


def methods(folders: Sequence[Path], trusted: Sequence[str]) -> Iterator[ListedMethod]:
    """Yields every method that configs of the folders offer.

    Args:
        folders: Where configs are.
        trusted: Packages that the user trusts.
    """
    known: set[str] = set()
    for found in sorted(stages_in(folders, trusted), key=lambda found: found.file.name != found.stage.name):
        if found.model is None:
            new = [method for method in _of_stage(found, folders) if method.name not in known]
            known |= {method.name for method in new}  # another file of a stage adds what is its own
            yield from new
        else:
            family = getattr(found.stage, "family", None)
            technique = getattr(family, "technique", Technique("architecture"))
            yield ListedMethod(
                f"model={found.model.name}", found.model.description, technique, found.model.command
            )
    for group in _SEARCH_GROUPS:
        for file in files_of(group, folders).values():
            if file.name != "none":
                yield _of_file(group, file, trusted)


def _of_stage(found: FoundStage, folders: Sequence[Path]) -> Iterator[ListedMethod]:
    space = files_of("space", folders)[_DEFAULT_SPACE].content()
    stage = found.stage.name
    for knob, value, description, technique in found.stage.techniques():
        run = shlex.join(["paredown", *_overrides(found, knob, value, technique, space)])
        yield ListedMethod(f"{stage}.{knob}={value_text(value)}", description, technique, run)


def _overrides(
    found: FoundStage, knob: str, value: Value, technique: Technique, space: dict[str, Any]
) -> list[str]:
    """Returns what searches a knob's value beside the default study's space, which may search it already."""
    more = technique.overrides
    if any(word.startswith("space=") for word in more):
        return list(more)
    chosen = [*_stages(found, space, more), *more, *_of_knob(found.stage.name, knob, value, space)]
    return chosen or [f"space={_DEFAULT_SPACE}"]


def _stages(found: FoundStage, space: dict[str, Any], more: Sequence[str]) -> list[str]:
    """Returns the override that runs a stage, unless the default study does, or a technique names its stages itself."""
    name, stage = found.file.name, found.stage
    if any(word.startswith("stage=") for word in more) or (stage.name in space and name == stage.name):
        return []
    others = [other for other in ("export", _DEFAULT_SPACE) if other != stage.name]
    return [f"stage=[{','.join([name, *others] if 'torch' in stage.consumes else [*others, name])}]"]


def _of_knob(stage: str, knob: str, value: Value, space: dict[str, Any]) -> list[str]:
    path, section = f"space.{stage}.{knob}", space.get(stage, {})
    if knob not in section:
        return [f"+{path}=[{value_text(value)}]"]
    domain = section[knob]
    choices = (
        domain.get("choices", [])
        if isinstance(domain, dict)
        else domain
        if isinstance(domain, list)
        else [domain]
    )
    return [] if value in choices else [f"{path}=[{','.join(map(value_text, [*choices, value]))}]"]


def _of_file(group: str, file: GroupFile, trusted: Sequence[str]) -> ListedMethod:
    try:
        paper = cited(factory_of(file.content(), group, trusted, ()))
    except ParedownError:  # not trusted, or not installed: choosing it says so
        paper = ""
    return ListedMethod(
        f"{group}={file.name}", file.description, Technique("search", paper=paper), file.command
    )


def _searched(method: ListedMethod) -> str:
    return " ".join((method.name, method.technique.axis, method.description, method.technique.paper)).lower()


def _described(method: ListedMethod) -> dict[str, Any]:
    technique = asdict(method.technique)
    technique["places"] = dict(zip(PLACES, method.technique.places, strict=False))
    return {"name": method.name, "description": method.description, **technique, "run": method.run}


def _print(console: PlainConsole, method: ListedMethod) -> None:
    technique = method.technique
    console.print(Text(f"  {method.name}", style="cyan"), soft_wrap=True)
    for text in (
        method.description,
        technique.paper and f"paper: {technique.paper}",
        _tags(technique),
        _places(technique),
    ):
        if text:
            console.print(indented(text, console.width, 6), soft_wrap=True)
    console.print(f"      run: {method.run}", soft_wrap=True)  # whole, to be copied


def _tags(technique: Technique) -> str:
    if technique.axis == "search":
        return ""
    keeps = "keeps generality" if technique.general else "fits the network to the task"
    return f"needs: {', '.join(technique.needs) or 'nothing'}; tuning: {technique.tuning}; {keeps}"


def _places(technique: Technique) -> str:
    if len(set(technique.places)) == 1:
        return f"{', '.join(PLACES)}: {technique.places[0]}"
    return "; ".join(f"{place}: {what}" for place, what in zip(PLACES, technique.places, strict=False))
