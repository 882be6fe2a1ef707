"""The config: its schema, and how it becomes plain, checked data."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict

from search.planning.config.instantiate import TRUST_KEY, check_targets
from search.planning.config.trusted import check_config_names_none, trusted_by_file
from spaces.errors import ConfigError, yaml_word
from spaces.units import parse_bytes, parse_seconds

_DEFAULT_DIR = "outputs/${study.name}"
_MOST_NAME_BYTES = 255  # what file systems take


@dataclass
class StudySection:
    """The `study` section, as Hydra checks it."""

    name: str | None = None
    dir: str = _DEFAULT_DIR
    n_trials: int = 24
    time_limit: Any = None
    trial_time_limit: Any = None
    patience: int | None = None
    storage: str | None = None
    report: bool = True
    cost_report: bool = True
    start_with_defaults: bool = True


@dataclass
class RootSchema:
    """The top level of the config, as Hydra checks it. Groups are checked where they are made into objects."""

    seed: int = 0
    dry_run: bool = False
    trusted_modules: list[str] = field(default_factory=list)
    cache_dir: str = "~/.cache/paredown"
    cache_bytes: Any = "2 GiB"
    accelerator: str = "auto"
    study: StudySection = field(default_factory=StudySection)
    model: Any = None
    task: Any = None
    stage: Any = None
    space: Any = None
    criterion: Any = None
    device: Any = None
    evaluator: Any = None
    sampler: Any = None
    allocator: Any = None
    pruner: Any = None
    knowledge: Any = None
    objective: Any = None
    executor: Any = None
    tracker: Any = None
    tabular: Any = None


def register_schema() -> None:
    """Makes the schema known to Hydra under the name that conf/config.yaml's defaults use."""
    ConfigStore.instance().store(name="schema", node=RootSchema)


@dataclass(frozen=True)
class StudySettings:
    """The `study` section, checked and in units."""

    name: str
    folder: Path
    n_trials: int
    time_limit_s: float | None
    trial_time_limit_s: float | None
    patience: int | None
    storage: str | None
    report: bool
    cost_report: bool
    start_with_defaults: bool


@dataclass(frozen=True)
class Config:
    """The whole config as plain data.

    Attributes:
        data: Every section, resolved: dicts, lists and scalars.
        choices: Config group to the name of its chosen file, e.g. `{"sampler": "tpe"}`.
        command: The command that composes this config.
        study: The `study` section.
        search_path: Folders that the config was composed from, in Hydra's order.
        sweep: The name that the studies of a sweep have in common; empty for a study on its own.
    """

    data: Mapping[str, Any]
    choices: Mapping[str, Any]
    command: str
    study: StudySettings
    search_path: tuple[Path, ...] = ()
    sweep: str = ""

    @property
    def seed(self) -> int:
        """The study's seed."""
        return int(self.data["seed"])

    @property
    def trusted(self) -> tuple[str, ...]:
        """Module prefixes that the user trusts, besides our own."""
        return tuple(self.data[TRUST_KEY])

    @property
    def cache_dir(self) -> Path:
        """The folder of the cache that all studies share."""
        return Path(self.data["cache_dir"]).expanduser()

    @property
    def cache_bytes(self) -> int:
        """The maximum size of the stages' cached output, in bytes."""
        return parse_bytes(self.data["cache_bytes"], "cache_bytes")

    def section(self, name: str) -> dict[str, Any]:
        """Returns a section that must be a mapping.

        Raises:
            ConfigError: The section is missing, empty or not a mapping.
        """
        section = self.data.get(name)
        if not isinstance(section, Mapping) or not section:
            raise ConfigError(f"{name} is not given: choose one with {name}=NAME")
        return dict(section)


def read_config(
    composed: DictConfig,
    choices: Mapping[str, Any],
    command: str,
    suffix: str = "",
    search_path: tuple[Path, ...] = (),
    trusted: Sequence[str] = (),
) -> Config:
    """Turns what Hydra composed into plain data.

    Args:
        composed: The composed config.
        choices: Hydra's choices by group.
        command: The command that composes the config again.
        suffix: Appended to `study.name`, so that each study of a sweep has a folder of its own.
        search_path: Folders that the config was composed from, for messages about their files.
        trusted: Packages that the user trusts by the command line; those of the user's own file are added.

    Raises:
        ConfigError: A value is wrong, or a `_target_` is outside the allow-list.
    """
    _check_complete(composed)
    if composed.study.name is None:
        composed.study.name = _own_name(composed)
    sweep = str(composed.study.name) if suffix else ""
    if suffix:
        _rename(composed, suffix)
    data = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    assert isinstance(data, dict)
    data.pop("hydra", None)
    _check_keys(data, "the config")
    plain = {str(key): value for key, value in data.items()}
    trusted = tuple(dict.fromkeys((*trusted, *trusted_by_file())))
    check_config_names_none(plain, trusted)
    plain[TRUST_KEY] = list(trusted)
    check_targets(plain, trusted)
    if plain["seed"] < 0:
        raise ConfigError(f"seed must not be negative, but is {plain['seed']}")
    parse_bytes(plain["cache_bytes"], "cache_bytes")
    return Config(plain, dict(choices), command, _study(plain["study"]), search_path, sweep)


def _check_complete(composed: DictConfig) -> None:
    """Raises ConfigError if a key was removed, e.g. by `~seed` on the command line."""
    for key in (f.name for f in fields(RootSchema)):
        if key not in composed:
            raise ConfigError(f"{key} must not be removed")


def _check_keys(node: Any, where: str) -> None:
    """Raises ConfigError if a key was read as true or false, as YAML does with a bare `on`."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(key, bool):
            raise ConfigError(f"{where} has the key {key}: {yaml_word(key)}, e.g. 'on':")
        _check_keys(value, str(key) if where == "the config" else f"{where}.{key}")


def _own_name(composed: DictConfig) -> str:
    """Returns the name of a study whose config gives none: that of the network's file or class, else of the task."""
    for key in ("model.checkpoint", "model.cls"):
        if isinstance(value := OmegaConf.select(composed, key), str):
            return study_name(value if key == "model.checkpoint" else value.rpartition(".")[2])
    task = OmegaConf.select(composed, "task._target_")
    return study_name(str(task).split(".")[-2]) if task and "." in str(task) else "study"


def study_name(model: str) -> str:
    """Returns the name of a study of a model: that of the file, with characters that a folder can have."""
    return re.sub(r"[^\w.+-]+", "_", Path(model).stem).strip("._") or "study"


def _rename(composed: DictConfig, suffix: str) -> None:
    raw = OmegaConf.to_container(composed.study, resolve=False)
    assert isinstance(raw, dict)
    with open_dict(composed):
        if raw["dir"] != _DEFAULT_DIR:
            composed.study.dir = f"{raw['dir']}/{suffix}"
        composed.study.name = f"{composed.study.name}-{suffix}"


def _study(section: Mapping[str, Any]) -> StudySettings:
    _check_name(section["name"])
    for key in ("n_trials", "patience"):
        if section[key] is not None and section[key] < 1:
            raise ConfigError(f"study.{key} must be at least 1, not {section[key]}")
    limits = {
        key: None if section[key] is None else parse_seconds(section[key], f"study.{key}")
        for key in ("time_limit", "trial_time_limit")
    }
    return StudySettings(
        name=section["name"],
        folder=Path(section["dir"]).expanduser(),
        n_trials=section["n_trials"],
        time_limit_s=limits["time_limit"],
        trial_time_limit_s=limits["trial_time_limit"],
        patience=section["patience"],
        storage=section["storage"],
        report=section["report"],
        cost_report=section["cost_report"],
        start_with_defaults=section["start_with_defaults"],
    )


def _check_name(name: str) -> None:
    """Raises ConfigError if a name is not one that a folder can have: `study.dir` is `outputs/NAME` by default."""
    wrong = [c for c in name if c in "/\\" or not c.isprintable()]
    if not name.strip():
        problem = "is empty"
    elif wrong:
        problem = f"contains {wrong[0]!r}"
    elif name.startswith(".") or name != name.strip():
        problem = "begins with a dot" if name.startswith(".") else "begins or ends with a space"
    elif len(name.encode()) > _MOST_NAME_BYTES:
        problem = f"is longer than {_MOST_NAME_BYTES} bytes"
    else:
        return
    shown = name if len(name) <= 60 else f"{name[:60]}..."
    raise ConfigError(
        f"study.name={shown!r} {problem}. It names a folder: choose e.g. {_like(name)!r}, and study.dir=PATH for "
        "another place"
    )


def _like(name: str) -> str:
    """Returns a valid name that resembles an invalid one."""
    return re.sub(r"[^\w.,=+-]+", "_", name).strip("._")[:40] or "study"
