"""Device profiles: one (hardware, runtime) pair each, with the source of every figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from spaces.errors import ConfigError, unknown_name
from spaces.units import parse_bytes

DType = Literal["float32", "float16", "int16", "int8", "int4"]
_Number = TypeVar("_Number", int, float)
DTYPES: tuple[DType, ...] = get_args(DType)

# What a kernel of one dtype runs as where the device has no units of its own for it: 4-bit weights are unpacked
# to 8 bits, half precision is widened. Nothing else is assumed; the cost is absent then.
_RUNS_AS: Mapping[DType, DType] = {"int4": "int8", "float16": "float32"}


@dataclass(frozen=True)
class Device:
    """A profile of one (hardware, runtime) pair.

    A figure that nobody published is None, and then so is every cost that needs it.

    Attributes:
        name: Name in `cost.<name>.*`.
        description: The hardware, for people.
        runtime: What runs the network there.
        macs_per_s: Dtype of a kernel to its throughput, multiply-accumulates per second: either the dense peak,
            or what whole networks were seen to reach.
        efficiency: Share of `macs_per_s` that is reached; 1 where `macs_per_s` is what was seen.
        memory_bandwidth_bytes_per_s: Of the memory that holds activations (and weights, if the next is None);
            None leaves the memory term out, which is right where `macs_per_s` was seen on whole networks.
        flash_bandwidth_bytes_per_s: Of the memory that holds weights, where it is another one.
        kernel_overhead_us: Time that every kernel costs besides its work; None leaves it out.
        ram_bytes: Size of the memory for activations.
        flash_bytes: Size of the memory for weights, where it is another one.
        measured: Whether this device is the machine that runs the search, so that latency is timed, not modelled.
        sources: Figure to where it comes from.
    """

    name: str
    description: str = ""
    runtime: str = ""
    macs_per_s: Mapping[str, float] = field(default_factory=dict)
    efficiency: float = 1.0
    memory_bandwidth_bytes_per_s: float | None = None
    flash_bandwidth_bytes_per_s: float | None = None
    kernel_overhead_us: float | None = None
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    measured: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)

    def throughput(self, dtype: DType) -> float | None:
        """Multiply-accumulates per second that kernels of `dtype` reach; None if the device cannot run them."""
        listed = self.macs_per_s.get(dtype)
        if listed is None and dtype in _RUNS_AS:
            listed = self.macs_per_s.get(_RUNS_AS[dtype])
        return None if listed is None else listed * self.efficiency


_KEYS = tuple(f.name for f in fields(Device) if f.name != "name")
_TEXTS = ("description", "runtime")
_RATES = ("memory_bandwidth_bytes_per_s", "flash_bandwidth_bytes_per_s")
_SIZES = ("ram_bytes", "flash_bytes")
FIGURES = ("macs_per_s", "efficiency", *_RATES, "kernel_overhead_us", *_SIZES)


def devices_from_config(cfg: Mapping[str, Any]) -> dict[str, Device]:
    """Reads the `device` section of a config.

    Args:
        cfg: Device name to its profile; the keys of a profile are the attributes of `Device`. Sizes are bytes, or
            text such as "320 KiB".

    Raises:
        ConfigError: No device, an unknown key, a missing figure, or one that makes no sense.
    """
    if not isinstance(cfg, Mapping) or not cfg:
        raise ConfigError(
            "device: at least one device is needed, e.g. device=host or device=[host,stm32l4r5]"
        )
    return {str(name): _device(str(name), profile) for name, profile in cfg.items()}


def _device(name: str, profile: object) -> Device:
    where = f"device.{name}"
    if not isinstance(profile, Mapping):
        raise ConfigError(f"{where}: expected a profile with the keys {', '.join(_KEYS)}, got {profile!r}")
    for key in profile:
        if key not in _KEYS:
            raise ConfigError(unknown_name("key", key, _KEYS, where))
    given = {key: value for key, value in profile.items() if value is not None}
    checked: dict[str, Any] = {key: _checked(key, value, f"{where}.{key}") for key, value in given.items()}
    device = Device(name=name, **checked)
    if not device.runtime:
        raise ConfigError(
            f"{where}.runtime is missing: name what runs the network there, e.g. TensorFlow Lite"
        )
    if not device.measured and not device.macs_per_s:
        raise ConfigError(
            f"{where}.macs_per_s is missing: a device that is not this machine (measured: true) needs the "
            f"throughput of at least one of {', '.join(DTYPES)}, e.g. macs_per_s: {{int8: 7.0e+7}}"
        )
    return device


def _checked(key: str, value: Any, where: str) -> object:
    if key in _TEXTS:
        return str(value)
    if key == "measured":
        return _boolean(value, where)
    if key == "macs_per_s":
        return _throughputs(value, where)
    if key == "sources":
        return _sources(value, where)
    if key in _SIZES:
        return _positive(parse_bytes(value, where), where)
    if key == "efficiency":
        return _share(value, where)
    return _number(value, where) if key == "kernel_overhead_us" else _positive(_number(value, where), where)


def _throughputs(value: object, where: str) -> dict[str, float]:
    given = _keyed(value, "dtype", DTYPES, "multiply-accumulates per second", where)
    return {d: _positive(_number(v, f"{where}.{d}"), f"{where}.{d}") for d, v in given.items()}


def _sources(value: object, where: str) -> dict[str, str]:
    given = _keyed(value, "figure", FIGURES, "where it comes from", where)
    return {figure: str(text) for figure, text in given.items()}


def _keyed(value: object, kind: str, known: Sequence[str], meaning: str, where: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected {kind}: {meaning}, got {value!r}")
    for key in value:
        if key not in known:
            raise ConfigError(unknown_name(kind, key, known, where))
    return {str(key): entry for key, entry in value.items()}


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where}: expected a number, got {value!r}")
    if value < 0:
        raise ConfigError(f"{where}: must not be negative, got {value!r}")
    return float(value)


def _positive(value: _Number, where: str) -> _Number:
    if value == 0:
        raise ConfigError(f"{where}: must be above zero; leave the figure out where it is not known")
    return value


def _share(value: object, where: str) -> float:
    number = _positive(_number(value, where), where)
    if number > 1:
        raise ConfigError(f"{where}: is a share of macs_per_s, so it must be at most 1, got {value!r}")
    return number


def _boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: expected true or false, got {value!r}")
    return value
