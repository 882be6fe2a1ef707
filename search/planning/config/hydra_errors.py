"""Hydra's and OmegaConf's errors as one message that names groups and keys of the user's config."""

import re
from collections.abc import Callable, Sequence

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException, ValidationError

from search.planning.config.renamed import renamed_key
from search.planning.config.shipped import shipped
from search.planning.config.unknown_keys import unknown_key_text, unknown_part_text
from spaces.errors import unknown_name, yaml_word

_MISFIT = re.compile(
    r"Cannot merge DictConfig with ListConfig|Key '(choices|int|float|value|step)' is not in struct"
)  # an override that does not replace what is there, but does not fit in there either
_OTHER_KIND = (
    "a list stands where a file of its defaults list has a section, e.g. `depth: [1, 2]` where a space has `depth: {int: [1, 3]}`. Files are merged: "
    "write the same kind, e.g. `depth: {int: [1, 2]}`, give a list of values on the command line, or choose a space of your own"
)
_KINDS = ("choices", "int", "float", "value")
_REFUSED = re.compile(
    r"(?:Error merging override |use \+)(?P<override>(?P<key>space\.[\w.]+)=[\[{].*)", re.DOTALL
)

_ABSENT = re.compile(
    r"Could not override '(?P<key>[^']+)'\.\nTo append to your config use \+(?P<override>.*)", re.DOTALL
)
_MERGED = re.compile(r"Error merging override (?P<override>.*)", re.DOTALL)
_IN_FILE = re.compile(r"^In '(?P<file>[^']+)': \w+ raised while composing config")
_INTERNAL = re.compile(
    r"object_type=|reference_type=|full_key:"
)  # of lines that speak of the libraries' own classes


def replacing(overrides: Sequence[str], error: Exception) -> list[str] | None:
    """Returns overrides under which a list or a domain of a knob replaces a domain of another kind.

    Hydra merges `space.prune.keep=[0.5]` into what is there, e.g. `{float: [0.2, 1.0], step: 0.1}`, which is an error.

    Args:
        overrides: Those of a command that Hydra refused.
        error: Its error.

    Returns:
        None if the error has another cause.
    """
    refused = _REFUSED.search(str(error).strip())
    if refused is None or not _MISFIT.search(f"{error} {error.__cause__}"):
        return None
    override, key = refused["override"], refused["key"]
    if override not in overrides or f"{key}=null" in overrides:
        return None
    at, wanted = list(overrides).index(override), override
    knob, _, kind = key.rpartition(".")
    if kind in _KINDS:
        key, wanted = knob, f"{knob}={{{kind}:{override.partition('=')[2]}}}"
    return [*overrides[:at], f"{key}=null", wanted, *overrides[at + 1 :]]


def hydra_text(error: Exception, trusted: Sequence[str] = ()) -> str:
    """Returns an error of Hydra or OmegaConf as one message: what was wrong, where, and what would be right.

    Args:
        error: The error.
        trusted: Packages that the user trusts.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_file(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, InterpolationKeyError):
        return _unresolved(error)
    return _composition_text(error, trusted)


def _composition_text(error: Exception, trusted: Sequence[str]) -> str:
    text, cause = str(error).strip(), error.__cause__
    if (given := _ABSENT.search(text)) and isinstance(cause, OmegaConfBaseException):
        renamed = renamed_key(given["key"].rpartition(".")[2])
        root = None if cause.parent_node is None else cause.parent_node._get_root()
        if root is not None and str(cause.full_key).startswith(f"{given['key']}."):
            return unknown_part_text(given["key"], str(cause.key), cause.parent_node)
        if root is not None:
            return unknown_key_text(given["override"], given["key"], root, trusted) + renamed
    if (given := _MERGED.search(text)) and isinstance(cause, ValidationError):
        return _wrong_type(given["override"], str(cause).splitlines()[0])
    if (given := _IN_FILE.search(text)) and isinstance(error.__context__, OmegaConfBaseException):
        return f"{given['file']}.yaml: {_in_file(error.__context__, trusted)}"
    for pattern, answer in _ANSWERS:
        if given := pattern.search(text):
            return answer(given)
    return _shortened(text, cause)


def _in_file(error: OmegaConfBaseException, trusted: Sequence[str]) -> str:
    """Returns what is wrong with a key of a config file, or with its value."""
    key, reason = str(error.full_key or ""), str(error).strip().splitlines()[0]
    if isinstance(error.key, bool):
        return yaml_word(error.key)
    if not key and _MISFIT.search(reason):
        return _OTHER_KIND
    if isinstance(error, ValidationError):
        given = re.search(r"[Vv]alue:? '?(.*?)'?(?: of type| is not|$)", reason)
        return _wrong_type(f"{key or 'a section'}={given[1] if given else ''}", reason)
    root = None if error.parent_node is None else error.parent_node._get_root()
    return reason if root is None else unknown_key_text(key, key, root, trusted)


def _shortened(text: str, cause: BaseException | None) -> str:
    """Returns a message and that of its cause, without the libraries' own types and URL schemes."""
    more = "" if cause is None else str(cause).strip()
    lines = [line for part in (text, "" if more in text else more) for line in part.splitlines() if line]
    lines = [line for line in lines if not _INTERNAL.search(line)]
    if re.search(r"override '?\+*space\.", lines[0]) and any(_MISFIT.search(line) for line in lines):
        lines.append(
            "A list in place of a knob's values replaces them, without `+`: e.g. space.prune.keep=[0.5]"
        )
    unknown = re.search(r"Key '(\w+)' is not in struct", "\n".join(lines))
    if unknown and (renamed := renamed_key(unknown[1])):
        lines.append(renamed.strip())
    return "\n".join(lines).replace("pkg://", "").replace("file://", "")


def _no_file(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    known = error.options or _files_of(group)
    outer, _, inner = group.rpartition("/")
    if outer and not known and _files_of(inner):
        return f"the defaults list of a file of {outer} names {inner}: write `- override /{inner}: {name}`"
    more = " `paredown-devices` describes them." if group == "device" else ""
    where = f"{group}={name}" if group else f"--config-name {name}"
    return unknown_name(group or "config", name, known, where) + more


def _unreadable(error: OverrideParseException) -> str:
    given = error.override
    if "=" not in given and not given.startswith("~"):
        return f"cannot read {given!r} on the command line: an override is written with `=`, e.g. study.n_trials=12"
    if given.count("[") != given.count("]") or given.count("{") != given.count("}"):
        return f"cannot read {given!r} on the command line: write a list without spaces, or in quotes, e.g. 'stage=[export, quantize]'"
    reason = str(error.message).partition("\nSee https://hydra.cc")[0]
    key, _, value = given.partition("=")
    return f"""cannot read {given!r} on the command line: {reason}\nA text with special characters is quoted twice: '{key}="{value}"'"""


def _wrong_type(override: str, reason: str) -> str:
    """Returns which type a key takes, of an override whose value has another one."""
    key, _, value = override.lstrip("+").partition("=")
    for words, wanted in _TYPES.items():
        if words in reason:
            return f"{key} must be {wanted}, not {value!r}"
    return f"{key}: {value!r} does not fit: {reason}"


def _without_group(given: re.Match[str]) -> str:
    """Returns which configs have a group that the chosen ones lack, e.g. of `task/data=csv` with `task=digits`."""
    outer, _, inner = given["group"].partition("/")
    having = [
        path.stem
        for path in sorted((shipped() / outer).glob("*.yaml"))
        if re.search(rf"^ +- {inner}:", path.read_text(), re.M)
    ]
    if not inner or not having:
        return unknown_name(
            "config group",
            given["group"],
            sorted(
                p.name for p in shipped().iterdir() if p.is_dir() and "." not in p.name and "_" not in p.name
            ),
        )
    return f"{given['group']}: the chosen {outer} has no such part. Those that have it: {outer}={', '.join(having)}"


def _ambiguous(given: re.Match[str]) -> str:
    key, _, values = given["override"].partition("=")
    return f"{given['override']}: a list is written {key}=[{values}]; to run a study for each value, add --multirun"


_TYPES = {
    "to Integer": "a whole number",
    "to Float": "a number",
    "to Boolean": "true or false",
    "valid bool": "true or false",
    "to string": "a text",
    "not a ListConfig, list or tuple": "a list, e.g. [a,b]",
    "is not a subclass of": "a section with keys of its own, e.g. study.n_trials=12",
}
"""Words of OmegaConf's message to what would be right."""
_ANSWERS: Sequence[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = (
    (re.compile(r"Could not override '(?P<group>[^']+)'\. No match in the defaults list"), _without_group),
    (re.compile(r"Ambiguous value for argument '(?P<override>.*)'"), _ambiguous),
    (
        re.compile(
            r"Multiple values for (?P<group>\S+)\. To override a value use 'override \S+: (?P<name>.*)'"
        ),
        lambda given: (
            f"+{given['group']}={given['name']}: one is chosen already: write {given['group']}={given['name']}, without `+`"
        ),
    ),
    (
        re.compile(r"An item is already at '(?P<key>[^']+)'"),
        lambda given: f"+{given['key']}: the config has this key: write {given['key']}=VALUE, without `+`",
    ),
    (
        re.compile(r"Could not delete from config\. '(?P<key>[^']+)' does not exist"),
        lambda given: f"~{given['key']}: the config has no such key, so there is nothing to remove",
    ),
)


def _unresolved(error: InterpolationKeyError) -> str:
    """Returns which key takes its value from one that the chosen configs lack, such as a key of another task."""
    lacking = re.search(r"Interpolation key '([^']+)'", str(error))
    if lacking is None or not error.full_key:
        return str(error)
    group, name = lacking[1].split(".")[0], error.full_key
    return f"{name} takes its value from {lacking[1]}, which this config has not: set {name}=..., or choose another {group} that has it"


def _files_of(group: str) -> list[str]:
    return [path.stem for path in sorted((shipped() / group).glob("*.yaml"))]
