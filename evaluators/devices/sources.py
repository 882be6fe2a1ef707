"""Sources of the figures of a device profile."""

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
# Attributes of `Device` that can have a source: numbers, and mappings or dataclasses of numbers.
FIGURES = tuple(f.name for f in fields(Device) if f.name not in _NO_FIGURES)
COSTS_WITH_ERROR = ("latency_ms", "energy_uj", "peak_sram_bytes")
# Parts of figures that can have their own source.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "macs_per_s": DTYPES,
    "kernel_overhead_us": (*KINDS, ANY),
    "op_energy": tuple(f.name for f in fields(OpEnergy)),
    "fabric": tuple(f.name for f in fields(FpgaDevice)),
    "deployment": tuple(f.name for f in fields(Deployment)),
    "error": COSTS_WITH_ERROR,
}


def read_sources(value: object, where: str) -> dict[str, FigureSource]:
    """Reads the sources of figures, and of parts of figures (`macs_per_s.int8`) that have their own.

    Args:
        value: Source `{tag: text}` by figure, or a mapping from its parts to such sources.
        where: Beginning of every error message.

    Raises:
        ConfigError: A figure or a tag is unknown, or the text is missing.
    """
    given = keyed(value, "figure", FIGURES, "where it comes from", where)
    sources: dict[str, FigureSource] = {}
    for figure, entry in given.items():
        place = f"{where}.{figure}"
        if isinstance(entry, Mapping) and entry and all(key in _PARTS.get(figure, ()) for key in entry):
            parts = {str(part): _source(source, f"{place}.{part}") for part, source in entry.items()}
            sources.update({f"{figure}.{part}": source for part, source in parts.items()})
            sources[figure] = _combined(parts)
        else:
            sources[figure] = _source(entry, place)
    return sources


def given_figures(device: Device) -> tuple[str, ...]:
    """Returns the names of the figures that a device's profile states, i.e. that differ from the default."""
    bare = Device(device.name)
    return tuple(figure for figure in FIGURES if getattr(device, figure) != getattr(bare, figure))


def unsourced(device: Device) -> tuple[str, ...]:
    """Returns the names of figures and parts of figures that a profile states without a source."""
    missing = [figure for figure in given_figures(device) if figure not in device.sources]
    with_parts = dict.fromkeys(key.split(".")[0] for key in device.sources if "." in key)
    for figure in with_parts:
        parts = [f"{figure}.{part}" for part in _parts(getattr(device, figure))]
        missing += [part for part in parts if part not in device.sources]
    return tuple(missing)


def _parts(value: Any) -> list[str]:
    """Returns the names of a figure's parts that the profile states."""
    if isinstance(value, Mapping):
        return list(value)
    if not is_dataclass(value):
        return []
    return [f.name for f in fields(value) if getattr(value, f.name) != f.default]


def _combined(parts: Mapping[str, FigureSource]) -> FigureSource:
    """Combines the sources of a figure's parts: the weakest tag, and the text of every part."""
    tag = max((source.tag for source in parts.values()), key=TAGS.index)
    texts = dict.fromkeys(source.text for source in parts.values())
    names_of = {
        text: ", ".join(part for part, source in parts.items() if source.text == text) for text in texts
    }
    return FigureSource(tag, "; ".join(f"{names}: {text}" for text, names in names_of.items()))


def _source(value: object, where: str) -> FigureSource:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ConfigError(
            f"{where}: expected one of {', '.join(TAGS)} and the source, e.g. "
            f"{{measured: MLPerf Tiny v1.2, board NUCLEO-L4R5ZI}}, got {value!r}"
        )
    ((tag, text),) = value.items()
    if tag not in TAGS:
        raise ConfigError(unknown_name("tag", str(tag), TAGS, where))
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{where}.{tag}: expected where the figure comes from, got {text!r}")
    return FigureSource(tag, text.strip())
