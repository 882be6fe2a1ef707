"""Reads measured networks from a CSV file and writes fitted profiles to a YAML file.

Columns of the CSV: `model` (an ONNX file, relative to the CSV), `latency_ms`, and optionally `energy_uj`,
`power_mw`, `dtype` (the dtype that a float file was run in, e.g. `int8`), `name` (equal for rows of one
network; default the file's stem).
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.cost.fit.costs import MeasuredNetwork, recast
from evaluators.cost.graph import op_graph
from evaluators.cost.graph.dead_channels import without_dead_channels
from evaluators.devices.config import device_from_config
from evaluators.devices.device import DTYPES, Device, DType
from evaluators.devices.yaml_text import yaml_text
from spaces.errors import ConfigError, EvaluationError, InputError, unknown_name
from spaces.models.onnx_file import read_onnx
from spaces.stages.artifact import Artifact, InputSpec

if TYPE_CHECKING:
    from evaluators.cost.fit.profile import FittedProfile

_REQUIRED = ("model", "latency_ms")
COLUMNS = (*_REQUIRED, "energy_uj", "power_mw", "dtype", "name")
_WRITTEN = (
    "description",
    "runtime",
    "macs_per_s",
    "memory_bandwidth_bytes_per_s",
    "flash_bandwidth_bytes_per_s",
    "kernel_overhead_us",
    "run_overhead_us",
    "fusion",
    "removes_dead_channels",
    "bound",
    "residual",
    "active_power_mw",
    "error",
)


def read_measurements(path: Path) -> list[MeasuredNetwork]:
    """Reads measured networks.

    Raises:
        ConfigError: The file or a column is missing, or a value is invalid; with file, row and column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [column.strip() for column in reader.fieldnames or ()]
            lines = [{(k or "").strip(): v for k, v in line.items()} for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read as a CSV of measurements: {reason}") from error
    for column in _REQUIRED:
        if column not in header:
            raise ConfigError(
                f"{path}: column {column!r} is missing; found {', '.join(header) or 'no header'}"
            )
    for column in header:
        if column not in COLUMNS:
            raise ConfigError(unknown_name("column", column, COLUMNS, str(path)))
    graphs: dict[tuple[Path, DType | None], MeasuredNetwork] = {}
    # Row 1 is the header, as in a spreadsheet.
    return [_row(line, f"{path}, row {i}", path.parent, graphs) for i, line in enumerate(lines, 2)]


def _row(
    line: Mapping[str, Any],
    where: str,
    folder: Path,
    graphs: dict[tuple[Path, DType | None], MeasuredNetwork],
) -> MeasuredNetwork:
    latency_ms = _number(line, "latency_ms", where)
    model = str(line.get("model") or "").strip()
    if latency_ms is None or not model:
        raise ConfigError(f"{where}, column {'model' if not model else 'latency_ms'!r}: is empty")
    dtype = _dtype(line, where)
    file = folder / model
    if (file, dtype) not in graphs:
        graphs[file, dtype] = _network(file, dtype, f"{where}, column 'model'")
    return replace(
        graphs[file, dtype],
        name=str(line.get("name") or "").strip() or Path(model).stem,
        latency_ms=latency_ms,
        energy_uj=_number(line, "energy_uj", where),
        power_mw=_number(line, "power_mw", where),
    )


def _number(line: Mapping[str, Any], column: str, where: str) -> float | None:
    text = str(line.get(column) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{where}, column {column!r}: expected a number above zero, got {text!r}")
    return value


def _dtype(line: Mapping[str, Any], where: str) -> DType | None:
    text = str(line.get("dtype") or "").strip()
    dtype = next((dtype for dtype in DTYPES if dtype == text), None)
    if text and dtype is None:
        raise ConfigError(unknown_name("dtype", text, DTYPES, f"{where}, column 'dtype'"))
    return dtype


def _network(file: Path, dtype: DType | None, where: str) -> MeasuredNetwork:
    try:
        proto = read_onnx(file)
        artifact = Artifact.onnx(proto, InputSpec.of_graph(proto.graph))
        graph, eager = op_graph(artifact), op_graph(artifact, "eager")
    except (InputError, EvaluationError) as error:
        raise ConfigError(f"{where}: {error}") from error
    lean = without_dead_channels(graph, artifact)
    as_run = (lambda g: g) if dtype is None else (lambda g: recast(g, dtype))
    return MeasuredNetwork(
        file.stem,
        as_run(graph),
        1.0,
        without_dead=None if lean is graph else as_run(lean),
        eager=as_run(eager),
    )


def write_profile(fitted: "FittedProfile", rows: Sequence[MeasuredNetwork], path: Path, source: str) -> str:
    """Writes the profile, and next to it the learned residual if there is one; returns the YAML text.

    Raises:
        ConfigError: The file cannot be written.
    """
    device = fitted.device
    try:
        if fitted.residual is not None:
            beside = path.with_suffix(".residual.json")
            fitted.residual.write(beside)
            device = replace(device, residual=beside.name)
        text = _text(fitted, device, rows, path, source)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return text


def _text(
    fitted: "FittedProfile", device: Device, rows: Sequence[MeasuredNetwork], path: Path, source: str
) -> str:
    profile = _figures(device, source)
    device_from_config(device.name, profile, str(path))  # raises if the profile could not be read back
    comments = [
        "# @package device",
        f"# paredown {_folder(path)}device={device.name}",
        f"# Fitted to {len(rows)} measurements: {fitted.method}. Mean relative error of networks held out: "
        f"{np.mean(np.abs(fitted.latency_errors)):.1%}.",
        *(
            f"#   {key}: {value:.1%}"
            for key, value in fitted.errors_by_method.items()
            if len(fitted.errors_by_method) > 1
        ),
    ]
    return "\n".join(comments) + "\n" + yaml_text({device.name: profile})


def _folder(path: Path) -> str:
    """Returns the option that finds a profile in a folder of configs."""
    return f"--config-dir {path.parent.parent} " if path.parent.name == "device" else ""


def _figures(device: Device, source: str) -> dict[str, Any]:
    given = {key: _plain(getattr(device, key)) for key in _WRITTEN}
    given["sources"] = {figure: {s.tag: f"{source}; {s.text}"} for figure, s in device.sources.items()}
    return {key: value for key, value in given.items() if value not in (None, "", {}, False)}


def _plain(value: Any) -> Any:
    """Returns mappings as dictionaries, which YAML can write."""
    return {str(key): _plain(entry) for key, entry in value.items()} if isinstance(value, Mapping) else value
