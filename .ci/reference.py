"""Writes `conf/README.md`: every config group, what it chooses, its options with the command that each file begins with, and their keys.

`python .ci/reference.py` writes it; `python .ci/reference.py --check` exits with 1 if it is out of date. Everything but the sentence of a group
comes from the YAML files.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout's own packages, wherever the script is called from

from search.planning.config.group_files import GroupFile, files_of  # noqa: E402

COMMAND = "python .ci/reference.py"
CHOOSES: Mapping[str, str] = {
    "experiment": "A whole study to start from: it sets several of the groups below.",
    "model": "The network that is compressed.",
    "task": "What labels are, and how outputs are judged.",
    "task/data": "How a task's files are read.",
    "task/decoder": "How a detector's raw outputs become boxes.",
    "stage": "What is done to a network, in order.",
    "space": "The knobs that are searched; `paredown knobs` has all that there are.",
    "device": "For which (hardware, runtime) pairs costs are measured or modelled; `paredown-devices` has their limits, errors and sources.",
    "evaluator": "What is measured or modelled of a candidate.",
    "objective": "What is maximized and minimized, and which limits hold.",
    "sampler": "How the next candidate is proposed.",
    "allocator": "How bits are divided over layers.",
    "criterion": "Pruning criteria of your own, beside the built-in ones.",
    "pruner": "Which trainings end early.",
    "knowledge": "Which earlier studies are learned from.",
    "executor": "Where trials run.",
    "tracker": "Where results are logged, beside the study's folder.",
}
"""Every config group to what it chooses, in the order of the page."""

HEAD = f"""# Configs

Written by `{COMMAND}`; do not edit. `paredown GROUP=OPTION` chooses an option, `paredown GROUP.KEY=VALUE` sets a key of it, and
`--config-dir DIR` adds files of your own. `paredown knobs` and `paredown methods` explain what a space can search.
"""
_KEY = re.compile(r"^( *)(\w+):(?: +(?!#)(.*?))?(?: +# *(.*))?$")
_LONGEST_COMMENT, _LONGEST_VALUE = 110, 40


def page(conf: Path) -> str:
    """Returns the text of the page.

    Args:
        conf: The folder of the configs.

    Raises:
        SystemExit: A folder of configs has no sentence in `CHOOSES`, or the other way round.
    """
    found = {str(file.parent.relative_to(conf).as_posix()) for file in conf.rglob("*.yaml")} - {"."}
    if wrong := found ^ CHOOSES.keys():
        raise SystemExit(f"groups of {conf} and of CHOOSES in {__file__} differ: {', '.join(sorted(wrong))}")
    chosen = _defaults(conf)
    groups = {group: files_of(group, [conf]) for group in CHOOSES}
    parts = [HEAD, *_overview(groups, chosen), *_study(conf / "config.yaml")]
    for group, files in groups.items():
        parts += [f"## {group}\n", f"{CHOOSES[group]}{_default_text(chosen.get(group))}\n"]
        parts += _devices(files) if group == "device" else _options(group, files)
    return "\n".join(parts)


def _defaults(conf: Path) -> dict[str, str]:
    entries = OmegaConf.to_container(OmegaConf.load(conf / "config.yaml"), resolve=False)["defaults"]
    chosen = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    return {
        group: ",".join(name) if isinstance(name, list) else name
        for group, name in chosen
        if name is not None
    }


def _default_text(chosen: str | None) -> str:
    return "" if chosen is None else f" Default: `{chosen}`."


def _overview(groups: Mapping[str, Mapping[str, GroupFile]], chosen: Mapping[str, str]) -> Iterator[str]:
    rows = [
        (
            f"[`{group}`](#{group.replace('/', '')})",
            CHOOSES[group],
            str(len(files)),
            _code(chosen.get(group, "")),
        )
        for group, files in groups.items()
    ]
    yield from _table(("group", "chooses", "options", "default"), rows)


def _study(path: Path) -> Iterator[str]:
    """Yields the keys of the config itself, outside the groups."""
    yield "## Keys outside groups\n"
    lines = path.read_text(encoding="utf-8").splitlines()
    top = [key for key in _keys(lines, 0) if key[0] not in ("defaults", "hydra", "study")]
    study = [(f"study.{name}", *rest) for name, *rest in _keys(lines, 2, within="study")]
    yield from _table(
        ("key", "default", "what it says"), [(_code(n), _code(v), _prose(c)) for n, v, c in [*top, *study]]
    )


def _options(group: str, files: Mapping[str, GroupFile]) -> Iterator[str]:
    rows = [(_code(file.name), _prose(file.description), _code(file.command)) for file in files.values()]
    yield from _table(("option", "what it is", "command"), rows)
    keys = [line for file in files.values() for line in _keys_of(file)]
    if keys and group not in ("space", "experiment"):
        yield "<details><summary>Keys</summary>\n"
        yield from keys
        yield "\n</details>\n"


def _devices(files: Mapping[str, GroupFile]) -> Iterator[str]:
    contents = {name: file.content() for name, file in files.items()}
    profiles = {
        name: content.get(name) or {} for name, content in contents.items() if "defaults" not in content
    }
    rows = [
        (_code(f"device={name}"), str(profile.get("description", "")), str(profile.get("runtime", "")))
        for name, profile in profiles.items()
    ]
    yield from _table(("command", "hardware", "runtime"), rows)
    yield "Groups of them; `device=[NAME,NAME]` makes another one:\n"
    rows = [
        (_code(f"device={name}"), files[name].description, ", ".join(map(_code, content["defaults"])))
        for name, content in contents.items()
        if "defaults" in content
    ]
    yield from _table(("command", "what they are", "devices"), rows)


def _keys_of(file: GroupFile) -> Iterator[str]:
    """Yields one line with the keys of a file, if it has any; what another section sets by itself is left out."""
    text = file.path.read_text(encoding="utf-8")
    packaged = re.match(r"# @package (?!_global_)", text) is not None
    keys = _keys(text.splitlines(), 2 if packaged else 0, within=file.name if packaged else None)
    shown = [
        f"`{name}{value and f'={value}'}`{comment and f' {_prose(comment)}'}"
        for name, value, comment in keys
        if name not in ("_target_", "defaults") and (comment or not value.startswith("${"))
    ]
    if shown:
        yield f"- **{file.name}**: {'; '.join(shown)}"


def _keys(lines: Sequence[str], indent: int, within: str | None = None) -> list[tuple[str, str, str]]:
    """Returns keys at an indentation: name, default (empty if it is long or a section), and the comment beside or above it (empty if long).

    Args:
        lines: Those of a YAML file.
        indent: Columns of blanks before the keys.
        within: The top-level section whose keys they are; None for the top level.
    """
    body = lines[
        next(i for i, line in enumerate(lines) if not line.startswith("#")) :
    ]  # without the file's own words
    found, section, above = [], None, ""
    for line in body:
        match = _KEY.match(line)
        if match and not match[1]:
            section = match[2]
        if match and len(match[1]) == indent and (within is None or (section == within and indent > 0)):
            found.append((match[2], _value(match[3] or ""), _comment(match[4] or above)))
        above = f"{above} {line.strip(' #')}".strip() if line.lstrip().startswith("#") else ""
    return found


def _value(text: str) -> str:
    return "REQUIRED" if text == "???" else text.strip() if len(text) <= _LONGEST_VALUE else ""


def _comment(text: str) -> str:
    """Returns a comment, its first sentence if it is long, or nothing if that is long, too."""
    first = re.split(r"[.!?;]\s", text, maxsplit=1)[0] if len(text) > _LONGEST_COMMENT else text
    return first if len(first) <= _LONGEST_COMMENT else ""


def _prose(text: str) -> str:
    """Escapes what Markdown would read as emphasis or as a tag, outside code."""
    return re.sub(r"(`[^`]*`)|([*<]|(?<!\w)_|_(?!\w))", lambda m: m[1] or f"\\{m[2]}", text)


def _code(text: Any) -> str:
    return f"`{text}`" if text else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def main(arguments: Sequence[str], conf: Path = ROOT / "conf") -> int:
    """Writes the page, or checks it; returns the exit status."""
    file, text = conf / "README.md", page(conf)
    if "--check" in arguments:
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            print(f"{file} is out of date: run {COMMAND}")
            return 1
        return 0
    file.write_text(text, encoding="utf-8")
    print(f"{file}: {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
