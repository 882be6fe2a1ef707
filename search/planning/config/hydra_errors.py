"""Hydra's and OmegaConf's errors as one message that names groups and keys of the user's config."""

import re

from hydra.errors import MissingConfigException, OverrideParseException

from search.planning.config.renamed import renamed_key
from search.planning.config.shipped import shipped
from spaces.errors import unknown_name


def hydra_text(error: Exception) -> str:
    """Returns Hydra's message and that of its cause, without Hydra's own object types and URL schemes."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return unknown_name(group or "config", name, error.options or _files_of(group), f"{group}={name}")
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r} on the command line: {error.message}"
    parts = [str(error).strip()]
    cause = error.__cause__
    if cause is not None and str(cause).strip() and str(cause).strip() not in parts[0]:
        parts.append(str(cause).strip())
    lines = [line for part in parts for line in part.splitlines() if "object_type=" not in line]
    if any("Cannot merge DictConfig with ListConfig" in line for line in lines):
        lines.append(
            "This knob is a mapping: set its `choices`, e.g. space.quantize.percentile.choices=[99.9]"
        )
    unknown = re.search(r"Key '(\w+)' is not in struct", "\n".join(lines))
    if unknown and (renamed := renamed_key(unknown[1])):
        lines.append(renamed.strip())
    return "\n".join(lines).replace("pkg://", "").replace("file://", "")


def _files_of(group: str) -> list[str]:
    return [path.stem for path in sorted((shipped() / group).glob("*.yaml"))]
