"""Writes a profile: the YAML file of the device and the JSON file of its correction, each atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.cost.latency.residual.kernel import KernelResidual
from evaluators.devices.config import device_from_config
from evaluators.devices.device import Device
from evaluators.devices.yaml_text import yaml_text
from spaces.stages.cache import write_atomic

_HEAD = """\
# @package device
# paredown --config-dir {folder} device={name}
# Measured by paredown-profile{options} on {when}: {n_networks} random networks ({n_kernels} kernels) in {minutes:.1f} minutes.
# {machine_load}
# Latency is predicted from these figures and the correction in the residual file; the figures alone are for comparison.
"""


def write_profile(
    folder: Path,
    device: Device,
    residual: KernelResidual,
    sources: Mapping[str, str],
    notes: Mapping[str, Any],
) -> tuple[Path, Path]:
    """Writes `folder/device/<name>.yaml` and `<name>.residual.json` beside it; returns both paths.

    Args:
        folder: The folder for `paredown --config-dir`.
        device: The figures; their `residual` is set here.
        residual: The correction.
        sources: By figure, how it was measured.
        notes: Values of the YAML file's header: `options`, `when`, `n_networks`, `n_kernels`, `minutes`, `machine_load`.

    Raises:
        OSError: A file cannot be written.
    """
    device_folder = folder.expanduser() / "device"
    json_file, yaml_file = (
        device_folder / f"{device.name}.residual.json",
        device_folder / f"{device.name}.yaml",
    )
    head = _HEAD.format(folder=folder, name=device.name, **notes)
    text = head + yaml_text({device.name: _section(device, json_file.name, sources)})
    # The YAML file is written last, because it refers to the JSON file.
    write_atomic(json_file, json.dumps(residual.to_json(), separators=(",", ":")).encode())
    write_atomic(yaml_file, text.encode())
    return yaml_file, json_file


def _section(device: Device, residual: str, sources: Mapping[str, str]) -> dict[str, Any]:
    section = {
        "description": device.description,
        "runtime": device.runtime,
        "macs_per_s": {dtype: dict(rates) for dtype, rates in device.macs_per_s.items()},
        "memory_bandwidth_bytes_per_s": device.memory_bandwidth_bytes_per_s,
        "kernel_overhead_us": dict(device.kernel_overhead_us),
        "run_overhead_us": device.run_overhead_us,
        "fusion": device.fusion,
        "bound": device.bound,
        "residual": residual,
        "error": dict(device.error),
        "sources": {figure: {"measured": text} for figure, text in sources.items()},
    }
    device_from_config(
        device.name, section, f"device.{device.name}"
    )  # raises if the section cannot be read back
    return section
