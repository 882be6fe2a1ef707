"""Reads objectives and constraints from the config, and checks them against the columns that are measured."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evaluators.base import Measurement
from evaluators.column import Column
from evaluators.metric import Direction
from search.record.results import Constraint, Objective
from spaces.errors import ConfigError, unknown_name
from spaces.units import parse_bytes, parse_seconds

_DIRECTIONS: tuple[Direction, ...] = ("maximize", "minimize")
_KEYS = (*_DIRECTIONS, "constraints")
_CONSTRAINT_KEYS = ("measure", "device", "max", "min", "margin")
_BARE = re.compile(r"[\d.\s]+")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_LEAST_POINTS = (
    0.1  # a smaller loss of a percentage, without a unit, is likelier meant as a share of 1: 0.02 for 2 %
)
_OF_DEVICE = "device"  # `max: device` takes the memory size in the device's profile
_OF_ERROR = "error"  # `margin: error` takes the cost's error bar


@dataclass(frozen=True)
class Measured:
    """What a study measures, which names in limits and objectives refer to.

    Attributes:
        metric: Name of the task's metric.
        devices: Names of the devices.
        columns: What is measured of the baseline, or the columns of a table: only these can be objectives.
        sizes: Column to the limit in the device's profile, for the limit `device`.
        direction: Whether higher or lower values of the metric are better.
        baseline: The uncompressed model's measurements by column, for limits in per cent of them.
        guess: The metric of a guess that is the same for all examples; None where there is no such, or it is no error.
    """

    metric: str
    devices: Sequence[str]
    columns: Collection[str]
    sizes: Mapping[str, float] = field(default_factory=dict)
    direction: Direction = "maximize"
    baseline: Mapping[str, Measurement] = field(default_factory=dict)
    guess: float | None = None


def read_objectives(
    config: Mapping[str, Any], measured: Measured, source: str = ""
) -> tuple[tuple[Objective, ...], tuple[Constraint, ...]]:
    """Reads the `objective` section.

    Names are those of measurements (`top1`, `file_bytes`, `latency_ms`) or columns (`metric.top1`, `cost.host.latency_ms`);
    `metric` is the task's own metric, and `metric_drop` by how much it is worse than the uncompressed model's. To maximize
    `metric` means the better, whichever way the metric goes. A cost becomes one axis per device.

    Args:
        config: The section, with `maximize`, `minimize` and `constraints`.
        measured: What is measured.
        source: The file that it comes from, for messages; empty where it is measured here.

    Raises:
        ConfigError: A name is not measured, a limit is missing or not a number, or there is no objective.
    """
    _check_keys(config, _KEYS, "objective")
    reader = _Reader(measured, source)
    objectives: list[Objective] = []
    for key in _DIRECTIONS:
        for name in _names(config.get(key), f"objective.{key}"):
            named = reader.columns_of(name, None, f"objective.{key}")
            better = measured.direction if name == "metric" and key == "maximize" else key
            objectives += [Objective(column, better) for column in named]
    if not objectives:
        raise ConfigError("objective: `maximize` or `minimize` must name at least one measurement")
    _check_distinct(objectives)
    limits = read_limits(config.get("constraints") or {}, "objective.constraints", measured, source)
    return tuple(objectives), limits


def check_names(config: Mapping[str, Any], measured: Measured) -> None:
    """Checks the names in the `objective` section before anything is measured; limits are checked by `read_objectives`.

    Args:
        config: The section.
        measured: What can be measured.

    Raises:
        ConfigError: A name is none of these, or a key is unknown.
    """
    _check_keys(config, _KEYS, "objective")
    reader = _Reader(measured)
    for key in _DIRECTIONS:
        for name in _names(config.get(key), f"objective.{key}"):
            reader.columns_of(name, None, f"objective.{key}")
    for name, rule in _rules(config.get("constraints") or {}, "objective.constraints").items():
        reader.limited(name, rule, f"objective.constraints.{name}")


def _check_keys(section: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = next((key for key in section if key not in known), None)
    if unknown is not None:
        raise ConfigError(unknown_name("key", unknown, known, where))


def _check_distinct(objectives: Sequence[Objective]) -> None:
    columns = [o.column for o in objectives]
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise ConfigError(f"objective: {twice} is named twice among `maximize` and `minimize`; name it once")


def read_columns(given: Any, where: str, measured: Measured, source: str = "") -> tuple[str, ...]:
    """Reads a list of measurements, by names as in `read_objectives`; returns their columns, each once.

    Raises:
        ConfigError: A name is not measured, or no name.
    """
    reader = _Reader(measured, source)
    return tuple(
        dict.fromkeys(c for name in _names(given, where) for c in reader.columns_of(name, None, where))
    )


def read_limits(
    rules: Mapping[str, Any], where: str, measured: Measured, source: str = ""
) -> tuple[Constraint, ...]:
    """Reads a section of limits, name to `measure`, `device`, `max`, `min` and `margin`.

    Args:
        rules: The section; a limit of None is removed, as by `objective.constraints.drop=null`.
        where: The section's path.
        measured: What is measured.
        source: The file that it comes from, for messages; empty where it is measured here.

    Raises:
        ConfigError: A name is not measured, or a limit is missing or not a number.
    """
    reader = _Reader(measured, source)
    return tuple(
        constraint
        for name, rule in _rules(rules, where).items()
        for constraint in reader.constraints(name, rule, where)
    )


def _rules(rules: Any, where: str) -> dict[str, Any]:
    """Returns the limits by name, without those that are removed."""
    if not isinstance(rules, Mapping):
        raise ConfigError(
            f"{where} must map names to limits, e.g. {{file_bytes: {{max: 64 KiB}}}}, not {rules!r}"
        )
    return {str(name): rule for name, rule in rules.items() if rule is not None}


def _names(given: Any, where: str) -> list[str]:
    names = [given] if isinstance(given, str) else list(given or [])
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{where} must be a list of measurement names, not {given!r}")
    return names


class _Reader:
    def __init__(self, measured: Measured, source: str = "") -> None:
        self._among = f", among the columns of {source}, line 1" if source else ""
        self._metric, self._devices, self._columns = measured.metric, measured.devices, measured.columns
        self._sizes, self._baseline, self._guess = measured.sizes, measured.baseline, measured.guess

    def columns_of(self, name: str, device: str | None, where: str) -> list[str]:
        if device is None and name in self._columns:
            return [name]
        resolved = name.replace("metric", self._metric, 1) if name.partition("_")[0] == "metric" else name
        if device is not None and device not in self._devices:
            raise ConfigError(unknown_name("device", device, self._devices, where))
        wanted = [device] if device is not None else list(self._devices)
        metrics = [str(Column.of(resolved))] if device is None else []
        costs = [str(Column.of(resolved, d)) for d in wanted]
        columns = [c for c in (*metrics, *costs) if c in self._columns]
        if not columns:
            known = {Column.parse(c).name for c in self._columns}
            known |= {f"metric{end}" for end in ("", "_drop") if self._metric + end in known}
            place = f" for device {device}" if device else ""
            raise ConfigError(
                unknown_name("measurement", name, known, f"{where}{self._among}")
                + (f" ({resolved} is absent{place})" if place else "")
            )
        return columns

    def limited(self, name: str, rule: Any, where: str) -> list[str]:
        """Returns the columns that a rule limits."""
        if not isinstance(rule, Mapping):
            raise ConfigError(f"{where} must have `max` or `min`, e.g. {{max: 1.0}}, not {rule!r}")
        _check_keys(rule, _CONSTRAINT_KEYS, where)
        if not _kinds(rule):
            raise ConfigError(f"{where} must have `max` or `min`")
        return self.columns_of(str(rule.get("measure", name)), rule.get("device"), where)

    def constraints(self, name: str, rule: Any, section: str) -> list[Constraint]:
        where = f"{section}.{name}"
        columns, kinds = self.limited(name, rule, where), _kinds(rule)
        measure = str(rule.get("measure", name))
        return [
            constraint
            for kind in kinds
            for column in self._with_limit(columns, rule[kind], f"{where}.{kind}")
            for constraint in [
                self._constraint(
                    _constraint_name(name, kind, kinds, column, columns), column, kind, rule, measure, where
                )
            ]
        ]

    def _with_limit(self, columns: list[str], limit: Any, where: str) -> list[str]:
        """Returns the columns to which a rule applies: for the limit `device` those with a limit."""
        if limit != _OF_DEVICE:
            return columns
        limited = [column for column in columns if column in self._sizes]
        if not limited:
            raise ConfigError(
                f"{where}: no device of the study states its limit for {Column.parse(columns[0]).name}; write the limit "
                "itself, or give the profile ram_bytes or flash_bytes"
            )
        return limited

    def _constraint(
        self,
        name: str,
        column: str,
        kind: Literal["max", "min"],
        rule: Mapping[str, Any],
        measure: str,
        where: str,
    ) -> Constraint:
        of_device = rule[kind] == _OF_DEVICE
        limit = (
            self._sizes[column] if of_device else self._limit(rule[kind], column, measure, f"{where}.{kind}")
        )
        margin = rule.get("margin")
        if margin == _OF_ERROR:
            return Constraint(name, self._error_bar(column, kind, f"{where}.margin"), kind, limit)
        return Constraint(name, column, kind, limit, _margin(margin, limit, measure, f"{where}.margin"))

    def _limit(self, value: Any, column: str, measure: str, where: str) -> float:
        """Returns a limit in the column's unit; per cent are points of a percentage, else a share of the baseline's value.

        Of a float model without a notable error, e.g. where its own outputs are the labels, no error can be a share: then the
        candidate's may reach that share of a guess's error.
        """
        share = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
        if share is None:
            self._check_unit(value, column, where)
            return _limit(value, measure, where)
        stem = column.removesuffix("_drop")
        of = self._baseline.get(stem)
        if of is None:
            raise ConfigError(f"{where}: the float model has no {stem} that {value!r} could be a share of")
        if of.unit == "%":
            return float(share[1])
        part = float(share[1]) / 100
        is_drop = self._guess is not None and column == str(Column.of(f"{self._metric}_drop"))
        least = part * (self._guess or 0.0) - of.value if is_drop else 0.0
        return max(part * abs(of.value), least)

    def _check_unit(self, value: Any, column: str, where: str) -> None:
        """Raises ConfigError if a bare limit of a percentage looks like a share of 1."""
        stem = column.removesuffix("_drop")
        of = self._baseline.get(stem)
        largest = _LEAST_POINTS if stem != column else 1.0
        if of is None or of.unit != "%" or isinstance(value, bool) or not isinstance(value, int | float):
            return
        if 0 < value < largest:
            raise ConfigError(
                f'{where}: {column} is in %, so {value:g} without a unit is {value:g} %, but looks like a share of 1. Write "{100 * value:g} %" '
                f'if that is what you mean, else "{value:g} %"'
            )

    def _error_bar(self, column: str, kind: str, where: str) -> str:
        """Returns the column of the error bar's end that is nearer to the limit."""
        end = f"{column}_{'high' if kind == 'max' else 'low'}"
        if end not in self._columns:
            raise ConfigError(f'{where}: {column} has no error bar; write the margin itself, e.g. "10 %"')
        return end


def _kinds(rule: Mapping[str, Any]) -> list[Literal["max", "min"]]:
    kinds: tuple[Literal["max", "min"], ...] = ("max", "min")
    return [kind for kind in kinds if rule.get(kind) is not None]


def _constraint_name(name: str, kind: str, kinds: Sequence[str], column: str, columns: Sequence[str]) -> str:
    """Returns a unique name: a rule for several devices, or with both limits, becomes several constraints."""
    parts = [name]
    if len(columns) > 1:
        of = Column.parse(column)
        parts.append(of.device or of.name)
    if len(kinds) > 1:
        parts.append(kind)
    return ".".join(parts)


def _margin(given: Any, limit: float, measure: str, where: str) -> float:
    """Returns the margin in the limit's unit. It must have a unit, because 10 could be per cent or bytes."""
    if given is None:
        return 0.0
    unit = "KiB" if _is_bytes(measure) else "ms" if measure.endswith("_ms") else ""
    if not isinstance(given, str) or _BARE.fullmatch(given):
        other = f', "{given} {unit}"' if unit else ""
        raise ConfigError(
            f'{where}: "{given}" has no unit; write "{given} %" (of the limit){other} or `error` (the cost\'s own error bar)'
        )
    share = _PERCENT.fullmatch(given.strip())
    margin = abs(limit) * float(share[1]) / 100 if share else _limit(given, measure, where)
    if not 0 <= margin < abs(limit):
        raise ConfigError(f"{where}: {given!r} leaves nothing of the limit of {limit:g}")
    return margin


def _limit(value: Any, measure: str, where: str) -> float:
    if _is_bytes(measure):
        return float(parse_bytes(value, where))
    if measure.endswith("_ms") and isinstance(value, str):
        return parse_seconds(value, where) * 1000
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}: the limit must be a number, not {value!r}")
    return float(value)


def _is_bytes(measure: str) -> bool:
    return "bytes" in measure.split("_")  # packed_bytes, bytes_per_token
