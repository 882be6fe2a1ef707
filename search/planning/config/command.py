"""The command line that composes a config again, for a study's report and its record."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.types import Quote, QuotedString

from search.planning.config.shipped import shipped

BASE = "study.name=digits"
"""An override that changes nothing of `conf/config.yaml`, since without any `paredown` runs its first study."""
_SPECIAL_IN_KEY = re.compile(r"([\\()\[\]{}:=, \t])")


def command_text(overrides: Sequence[str], options: Sequence[str] = ()) -> str:
    """Returns the command, quoted for a shell."""
    return shlex.join(["paredown", *([*options, *overrides] or [BASE])])


def options_of(job: HydraConf) -> list[str]:
    """Returns Hydra's options that decide what a job is composed from: `--config-path`, `--config-name`, `--config-dir`."""
    options: list[str] = []
    for source in job.runtime.config_sources:
        if source.provider == "main" and Path(source.path) != shipped():
            options += ["--config-path", source.path]
        if source.provider == "command-line":
            options += ["--config-dir", source.path]
    name = job.job.config_name
    return options if name in (None, "config") else [*options, "--config-name", str(name)]


def overrides_of(job: HydraConf) -> list[str]:
    """Returns a job's overrides, with those of Hydra's own that decide where configs are found."""
    search_path = [o for o in job.overrides.hydra if o.partition("=")[0].lstrip("+~") == "hydra.searchpath"]
    return [*search_path, *job.overrides.task]


def section_overrides(name: str, before: Any, after: Mapping[str, Any]) -> list[str]:
    """Returns the overrides that replace a composed section as a whole.

    Args:
        name: The section, e.g. `space`.
        before: The section as composed without these overrides: a mapping, or None.
        after: The section that replaces it.
    """
    if not isinstance(before, Mapping):
        return [f"+{name}={value_text(after)}"]
    removed = [key for key in before if key not in after or before[key] != after[key]]
    added = [key for key in after if key not in before or before[key] != after[key]]
    return [
        *(f"~{name}.{key}" for key in removed),
        *(f"+{name}.{key}={value_text(after[key])}" for key in added),
    ]


def value_text(value: Any) -> str:
    """Returns a plain value in the grammar of Hydra's overrides."""
    if isinstance(value, Mapping):
        keys = (_SPECIAL_IN_KEY.sub(r"\\\1", str(key)) for key in value)
        pairs = (f"{key}:{value_text(item)}" for key, item in zip(keys, value.values(), strict=True))
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, str):
        return QuotedString(value, Quote.double).with_quotes()
    return "null" if value is None else str(value)
