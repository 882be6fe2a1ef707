"""The studies of a sweep as one table: what each of them ships to each device, whatever was swept."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from search.cli.fleet_units import unit_of_name
from search.record.results import BASELINE, model_path, number_label
from spaces.errors import InputError

_BOOKKEEPING = re.compile(
    r"study\.(name|dir|storage|report)$|tracker|knowledge|cache_|dry_run|hydra|trusted_modules|executor"
)
_COSTS = ("latency_ms", "energy_uj", "peak_sram_bytes", "flash_bytes", "weight_bytes")
_COMPANIONS = ("_low", "_high", "_drop", "_partial", "_partial_error", "_partial_images")
_ABSENT = "(default)"


@dataclass(frozen=True)
class Shipped:
    """What one study ships to one device.

    Attributes:
        folder: The study's folder.
        settings: What its command sets, by config key, without names, folders and loggers.
        sampler: Name of its sampler.
        device: The device; empty if the study has none.
        values: Metrics and costs of the model by name; empty if no candidate met the constraints.
        baseline: The same of the uncompressed model.
        study: Hypervolume, numbers of trials and seconds of the study.
        number: The model's trial; None if no candidate met the constraints.
        knobs: The model's knobs.
        units: Units of the metrics, by name.
    """

    folder: Path
    settings: Mapping[str, str]
    sampler: str
    device: str
    values: Mapping[str, float]
    baseline: Mapping[str, float]
    study: Mapping[str, float] = field(default_factory=dict)
    number: int | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Path | None:
        """The ONNX file to ship; None where the study has none."""
        path = None if self.number is None else model_path(self.folder, self.number)
        return path if path is not None and path.exists() else None


@dataclass(frozen=True)
class Line:
    """One line of the table: equal settings but for the seed, on one device.

    Attributes:
        settings: The settings in which the studies of the sweep differ, in the order of `Fleet.settings`.
        device: The device; empty if there is none.
        shipped: One for each seed.
    """

    settings: tuple[str, ...]
    device: str
    shipped: tuple[Shipped, ...]

    def values(self, name: str) -> list[float]:
        """Returns a value of those studies that have it."""
        return [v for s in self.shipped if (v := s.values.get(name, s.study.get(name))) is not None]

    def ends(self, name: str) -> tuple[float, float] | None:
        """Returns the interval of the value of a single study; None if it has none, or if there are several."""
        ends = [self.values(f"{name}{end}") for end in ("_low", "_high")]
        return (ends[0][0], ends[1][0]) if len(self.shipped) == 1 and all(ends) else None

    def unit(self, name: str) -> str:
        """Returns the unit of a value; empty if it has none, or if it is unknown."""
        return unit_of_name(name) or next((s.units[name] for s in self.shipped if name in s.units), "")

    def baselines(self, name: str) -> list[float]:
        """Returns the uncompressed models' values."""
        return [s.baseline[name] for s in self.shipped if name in s.baseline]


@dataclass(frozen=True)
class Fleet:
    """The table.

    Attributes:
        settings: Config keys in which the studies differ, without the seed.
        names: Names of the values that some line has, the metric first.
        lines: The lines, sorted by settings and device.
    """

    settings: tuple[str, ...]
    names: tuple[str, ...]
    lines: tuple[Line, ...]


def fleet(shipped: Sequence[Shipped]) -> Fleet:
    """Returns the table of studies."""
    keys = dict.fromkeys(key for s in shipped for key in s.settings)
    varied = [
        key
        for key in keys
        if key not in ("seed", "device") and len({s.settings.get(key) for s in shipped}) > 1
    ]
    if _collide(shipped, varied):
        varied += [key for key in ("device",) if len({s.settings.get(key) for s in shipped}) > 1]
    if _collide(shipped, varied):  # studies that were named by hand
        shipped = [replace(s, settings={**s.settings, "study": s.folder.name}) for s in shipped]
        varied.append("study")
    groups: dict[tuple[tuple[str, ...], str], list[Shipped]] = {}
    for s in shipped:
        groups.setdefault((tuple(s.settings.get(k, _ABSENT) for k in varied), s.device), []).append(s)
    lines = tuple(
        Line(settings, device, tuple(group)) for (settings, device), group in sorted(groups.items())
    )
    return Fleet(tuple(varied), _names(shipped), lines)


def _collide(shipped: Sequence[Shipped], keys: Sequence[str]) -> bool:
    """Whether two studies differ in nothing, not even in the seed."""
    kinds = [(*(s.settings.get(key) for key in (*keys, "seed")), s.device) for s in shipped]
    return len(set(kinds)) < len(kinds)


def _names(shipped: Sequence[Shipped]) -> tuple[str, ...]:
    """Returns the headline metrics, their test values, and the main costs, as far as a study has them."""
    present = dict.fromkeys(name for s in shipped for name in (*s.baseline, *s.values))
    firsts = dict.fromkeys(m for s in shipped if (m := _headline(s)) is not None)
    wanted = [name for first in firsts for name in (first, f"test_{first}")]
    costs = [name for name in ("file_bytes", *_COSTS) if name in present]
    if "flash_bytes" in costs and "weight_bytes" in costs:
        costs.remove("weight_bytes")  # what flash holds
    compared = ["hypervolume"] if len({s.sampler for s in shipped}) > 1 else []
    return (*(name for name in dict.fromkeys(wanted) if name in present), *costs, *compared)


def _headline(shipped: Shipped) -> str | None:
    """Returns the study's metric: the first of its quantities that is no cost and qualifies no other."""
    names = shipped.baseline or shipped.values
    plain = (n for n in names if n not in _COSTS and not n.endswith("_bytes") and not n.startswith("test_"))
    return next((n for n in plain if not n.endswith(_COMPANIONS)), None)


def read_shipped(path: Path, summary: Mapping[str, Any]) -> Iterator[Shipped]:
    """Yields what a study ships to each of its devices.

    Args:
        path: Its `summary.json`.
        summary: The content.

    Raises:
        InputError: The content is no study's.
    """
    try:
        yield from _shipped(path.parent, summary)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} lacks what a study writes: {error!r}") from error


def _shipped(folder: Path, summary: Mapping[str, Any]) -> Iterator[Shipped]:
    baseline, best = summary.get("baseline") or {}, summary.get("best") or {}
    own = {name: entry["best"] for name, entry in (summary.get("devices") or {}).items()}
    devices = dict.fromkeys((*own, *(baseline.get("costs") or {}), *(best.get("costs") or {}))) or {"": None}
    about = {
        key: float(summary[key])
        for key in ("hypervolume", "n_trials", "n_complete", "n_failed", "wall_s")
        if summary.get(key) is not None
    }
    settings = _settings(folder, str(summary["study"]))
    settings = {**settings, "sampler": str(summary["sampler"])}
    if summary.get("seed") is not None:
        settings["seed"] = str(summary["seed"])
    units = {str(name): str(unit) for name, unit in (summary.get("units") or {}).items()}
    for device in devices:
        entry = own.get(device, best) or {}
        values, before = _values(entry, device), _values(baseline, device)
        number = BASELINE if entry.get("number") == number_label(BASELINE) else entry.get("number")
        knobs = dict(entry.get("knobs") or {})
        yield Shipped(
            folder,
            settings,
            str(summary["sampler"]),
            str(device),
            values,
            before,
            about,
            number,
            knobs,
            units,
        )


def _values(entry: Mapping[str, Any], device: str) -> dict[str, float]:
    values = {**(entry.get("metrics") or {}), **((entry.get("costs") or {}).get(device) or {})}
    return {str(name): float(value) for name, value in values.items() if value is not None}


def _settings(folder: Path, study: str) -> dict[str, str]:
    """Returns what the study's command sets; where config.yaml is absent, what a sweep writes into the study's name."""
    overrides = _command(folder / "config.yaml") or _suffix(study)
    pairs = (text.partition("=") for text in overrides if "=" in text and not text.startswith("-"))
    settings = {key.lstrip("+~"): value.strip("'\"") for key, _, value in pairs}
    return {key: value for key, value in settings.items() if not _BOOKKEEPING.match(key)}


def _command(path: Path) -> list[str]:
    try:
        record = yaml.load(
            path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
        return shlex.split(str(record["command"]))[1:]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, RecursionError):
        return []


def _suffix(study: str) -> list[str]:
    """Returns the overrides in the name of a sweep's study: `net-model=a,device=[b,c]` has two."""
    start = re.search(r"-(?=[\w.+/]+=)", study)
    return [] if start is None else re.split(r",(?=[\w.+/]+=)", study[start.end() :])


def read_summary(path: Path) -> Any:
    """Returns the content of a `summary.json`.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
