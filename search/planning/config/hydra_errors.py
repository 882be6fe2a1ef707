"""Hydra's and OmegaConf's errors as one message that names groups and keys of the user's config."""

import re
from collections.abc import Sequence

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationKeyError

from search.planning.config.renamed import renamed_key
from search.planning.config.shipped import shipped
from spaces.errors import unknown_name

_MISFIT = re.compile(
    r"Cannot merge DictConfig with ListConfig|Key '(choices|int|float|value|step)' is not in struct"
)  # an override that does not replace what is there, but does not fit in there either
_KINDS = ("choices", "int", "float", "value")
_REFUSED = re.compile(
    r"(?:Error merging override |use \+)(?P<override>(?P<key>space\.[\w.]+)=[\[{].*)", re.DOTALL
)


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


def hydra_text(error: Exception) -> str:
    """Returns Hydra's message and that of its cause, without Hydra's own object types and URL schemes."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return unknown_name(group or "config", name, error.options or _files_of(group), f"{group}={name}")
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r} on the command line: {error.message}"
    if isinstance(error, InterpolationKeyError):
        return _unresolved(error)
    parts = [str(error).strip()]
    cause = error.__cause__
    if cause is not None and str(cause).strip() and str(cause).strip() not in parts[0]:
        parts.append(str(cause).strip())
    lines = [line for part in parts for line in part.splitlines() if "object_type=" not in line]
    if re.search(r"override '?\+*space\.", lines[0]) and any(_MISFIT.search(line) for line in lines):
        lines.append(
            "A list in place of a knob's values replaces them, without `+`: e.g. space.prune.keep=[0.5]"
        )
    unknown = re.search(r"Key '(\w+)' is not in struct", "\n".join(lines))
    if unknown and (renamed := renamed_key(unknown[1])):
        lines.append(renamed.strip())
    return "\n".join(lines).replace("pkg://", "").replace("file://", "")


def _unresolved(error: InterpolationKeyError) -> str:
    """Returns which key takes its value from one that the chosen configs lack, such as a key of another task."""
    lacking = re.search(r"Interpolation key '([^']+)'", str(error))
    if lacking is None or not error.full_key:
        return str(error)
    group, name = lacking[1].split(".")[0], error.full_key
    return f"{name} takes its value from {lacking[1]}, which this config has not: set {name}=..., or choose another {group} that has it"


def _files_of(group: str) -> list[str]:
    return [path.stem for path in sorted((shipped() / group).glob("*.yaml"))]
