"""Reads device profiles from a config; every error message names the key."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from evaluators.devices.device import ANY, DTYPES, DYNAMIC, Deployment, Device, OpEnergy
from evaluators.devices.fpga import FpgaDevice
from evaluators.devices.kinds import KINDS
from evaluators.devices.sources import COSTS_WITH_ERROR, read_sources
from evaluators.devices.values import (
    Reader,
    at_least_one,
    boolean,
    built,
    keyed,
    names_of,
    number,
    one_of,
    positive,
    rate,
    read_section,
    section,
    share,
    size,
    text,
)
from spaces.errors import ConfigError
from spaces.units import parse_bytes

_KEYS = tuple(f.name for f in fields(Device) if f.name != "name")
_CLASSES = (*KINDS, ANY)


def devices_from_config(cfg: Mapping[str, Any]) -> dict[str, Device]:
    """Reads the `device` section of a config.

    Args:
        cfg: Profiles by device name; the keys of a profile are the attributes of `Device`. Sizes are bytes,
            or text such as "320 KiB". `macs_per_s` may give one number per dtype instead of one per kernel
            class, `kernel_overhead_us` one number for all classes. A source is `{tag: text}`, or one such
            mapping for each part of the figure, e.g.
            `macs_per_s: {int8: {measured: ...}, float32: {stated: ...}}`.

    Raises:
        ConfigError: No device, an unknown key, or a missing or invalid figure.
    """
    if not isinstance(cfg, Mapping) or not cfg:
        raise ConfigError(
            "device: at least one device is needed, e.g. device=host or device=[host,stm32l4r5]"
        )
    return {
        str(name): device_from_config(str(name), profile, f"device.{name}") for name, profile in cfg.items()
    }


def device_from_config(name: str, profile: object, where: str) -> Device:
    """Reads one profile.

    Args:
        name: The device's name.
        profile: The profile's mapping.
        where: Beginning of every error message: a config key or a file.

    Raises:
        ConfigError: An unknown key, or a missing or invalid figure.
    """
    given = section(profile, _KEYS, where)
    device = Device(
        name=name, **{key: _READERS[key](value, f"{where}.{key}") for key, value in given.items()}
    )
    if not device.runtime:
        raise ConfigError(
            f"{where}.runtime is missing: name the runtime that executes the network, e.g. TensorFlow Lite"
        )
    if not device.measured and not device.macs_per_s and device.fabric is None:
        raise ConfigError(
            f"{where}.macs_per_s is missing: a device that is not this machine (measured: true) needs the "
            f"throughput of at least one of {', '.join(DTYPES)}, e.g. macs_per_s: {{int8: 7.0e+7}}"
        )
    return device


def _throughputs(value: object, where: str) -> dict[str, dict[str, float]]:
    given = keyed(value, "dtype", DTYPES, "multiply-accumulates per second", where)
    return {dtype: _by_class(entry, f"{where}.{dtype}", rate) for dtype, entry in given.items()}


def _by_class(value: object, where: str, read: Reader) -> dict[str, float]:
    """Reads one number for all kernel classes, or a mapping with one per class."""
    if not isinstance(value, Mapping):
        return {ANY: read(value, where)}
    given = keyed(value, "kernel class", _CLASSES, "a number", where)
    if not given:
        raise ConfigError(f"{where}: expected a number, or one for each kernel class, got {{}}")
    return {kind: read(entry, f"{where}.{kind}") for kind, entry in given.items()}


def _overheads(value: object, where: str) -> dict[str, float]:
    return _by_class(value, where, number)


def _errors(value: object, where: str) -> dict[str, float]:
    given = keyed(value, "cost", COSTS_WITH_ERROR, "relative error, e.g. 0.2", where)
    return {cost: number(entry, f"{where}.{cost}") for cost, entry in given.items()}


def _deployment(value: object, where: str) -> Deployment:
    readers: dict[str, Reader] = {
        "weights": one_of("flash", "ram", "stream"),
        "order": one_of("file", "best"),
        "arena": one_of("liveness", "greedy"),
        "in_place": names_of("kernel class", KINDS),
        "alignment_bytes": at_least_one,
        "overhead_bytes": parse_bytes,
        "kernel_overhead_bytes": parse_bytes,
        "channel_overhead_bytes": parse_bytes,
        "patches": at_least_one,
    }
    return Deployment(**read_section(value, readers, where))


def _op_energy(value: object, where: str) -> OpEnergy:
    readers: dict[str, Reader] = {
        "scale": positive,
        "on_chip_bytes": size,
        "weights_from": one_of("on_chip", "dram"),
    }
    return built(OpEnergy, value, readers, where)


def _fabric(value: object, where: str) -> FpgaDevice:
    readers: dict[str, Reader] = {
        "luts": at_least_one,
        "dsps": at_least_one,
        "clock_hz": rate,
        "brams": at_least_one,
        "lut_fraction": share,
        "dsp_fraction": share,
        "bram_fraction": share,
    }
    return built(FpgaDevice, value, readers, where)


_READERS: Mapping[str, Reader] = {
    "description": text,
    "runtime": text,
    "macs_per_s": _throughputs,
    "efficiency": share,
    "memory_bandwidth_bytes_per_s": rate,
    "flash_bandwidth_bytes_per_s": rate,
    "kernel_overhead_us": _overheads,
    "run_overhead_us": number,
    "fusion": one_of("common", "onnxruntime", "eager"),
    "removes_dead_channels": boolean,
    "bound": one_of("max", "sum"),
    "residual": text,
    "active_power_mw": positive,
    "idle_power_mw": number,
    "op_energy": _op_energy,
    "fabric": _fabric,
    "ram_bytes": size,
    "flash_bytes": size,
    "deployment": _deployment,
    "weight_formats": names_of("format", DTYPES),
    "activation_formats": names_of("format", (*DTYPES, DYNAMIC)),
    "error": _errors,
    "measured": boolean,
    "sources": read_sources,
}
