"""Where the figures of a device profile come from."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from evaluators.devices.device import ANY, DTYPES, TAGS, Deployment, Device, FigureSource, OpEnergy
from evaluators.devices.fpga import FpgaDevice
from evaluators.devices.kinds import KINDS
from evaluators.devices.values import keyed
from spaces.errors import ConfigError, unknown_name

_NO_FIGURES = (
    *("name", "description", "runtime", "measured", "sources"),
    *("fusion", "removes_dead_channels", "bound", "residual"),
)
# What a source can be given for: everything that is a number, or holds some.
FIGURES = tuple(f.name for f in fields(Device) if f.name not in _NO_FIGURES)
COSTS_WITH_ERROR = ("latency_ms", "energy_uj", "peak_sram_bytes")
# What a source can be given for within a figure, where one does not fit all.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "macs_per_s": DTYPES,
    "kernel_overhead_us": (*KINDS, ANY),
    "op_energy": tuple(f.name for f in fields(OpEnergy)),
    "fabric": tuple(f.name for f in fields(FpgaDevice)),
    "deployment": tuple(f.name for f in fields(Deployment)),
    "error": COSTS_WITH_ERROR,
}


def read_sources(value: object, where: str) -> dict[str, FigureSource]:
    """Reads figures' sources, `{tag: text}`, and those of their parts (`macs_per_s.int8`) where they have their own.

    Raises:
        ConfigError: A figure or a tag is unknown, or there is no text.
    """
    given = keyed(value, "figure", FIGURES, "where it comes from", where)
    read: dict[str, FigureSource] = {}
    for figure, entry in given.items():
        place = f"{where}.{figure}"
        if isinstance(entry, Mapping) and entry and all(key in _PARTS.get(figure, ()) for key in entry):
            parts = {str(part): _source(source, f"{place}.{part}") for part, source in entry.items()}
            read.update({f"{figure}.{part}": source for part, source in parts.items()})
            read[figure] = _together(parts)
        else:
            read[figure] = _source(entry, place)
    return read


def given_figures(device: Device) -> tuple[str, ...]:
    """Returns the figures that a device's profile gives: those that are not the default."""
    bare = Device(device.name)
    return tuple(figure for figure in FIGURES if getattr(device, figure) != getattr(bare, figure))


def unsourced(device: Device) -> tuple[str, ...]:
    """Returns the figures, and parts of figures, that a device's profile gives without saying where they come from."""
    lacking = [figure for figure in given_figures(device) if figure not in device.sources]
    parted = dict.fromkeys(key.split(".")[0] for key in device.sources if "." in key)
    for figure in parted:
        parts = [f"{figure}.{part}" for part in _parts(getattr(device, figure))]
        lacking += [part for part in parts if part not in device.sources]
    return tuple(lacking)


def _parts(value: Any) -> list[str]:
    """The parts of a figure that are given."""
    if isinstance(value, Mapping):
        return list(value)
    if not is_dataclass(value):
        return []
    return [f.name for f in fields(value) if getattr(value, f.name) != f.default]


def _together(parts: Mapping[str, FigureSource]) -> FigureSource:
    """The weakest tag, and every part's text."""
    tag = max((source.tag for source in parts.values()), key=TAGS.index)
    texts = dict.fromkeys(source.text for source in parts.values())
    named = {said: ", ".join(part for part, source in parts.items() if source.text == said) for said in texts}
    return FigureSource(tag, "; ".join(f"{names}: {said}" for said, names in named.items()))


def _source(value: object, where: str) -> FigureSource:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ConfigError(
            f"{where}: expected one of {', '.join(TAGS)} and the source, e.g. "
            f"{{measured: MLPerf Tiny v1.2, board NUCLEO-L4R5ZI}}, got {value!r}"
        )
    ((tag, said),) = value.items()
    if tag not in TAGS:
        raise ConfigError(unknown_name("tag", str(tag), TAGS, where))
    if not isinstance(said, str) or not said.strip():
        raise ConfigError(f"{where}.{tag}: expected where the figure comes from, got {said!r}")
    return FigureSource(tag, said.strip())
