"""Device profiles as tables for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evaluators.devices.device import ANY, DTYPES, TAGS, Device
from evaluators.devices.sources import given_figures
from search.cli.verbs.options import indented
from search.planning.config.device_files import Catalogue

_SHORT = {"float32": "f32", "float16": "f16", "int16": "i16", "int8": "i8", "int4": "i4"}
_NOT_GIVEN = "-"
_WIDE = 110  # columns from which on all figures fit into a line


def listing(found: Catalogue, names: Sequence[str], width: int) -> RenderableType:
    """Returns a table of the profiles, a line each.

    Args:
        found: The profiles.
        names: Those to list.
        width: Columns of the terminal; narrow ones get no hardware, runtime and power.
    """
    wide = width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), expand=wide)
    table.add_column("device", no_wrap=True)
    for heading in ("hardware", "runtime") if wide else ():
        table.add_column(heading, ratio=1, no_wrap=True, overflow="ellipsis")  # only these are cut
    table.add_column("MAC/s", no_wrap=True)
    for heading in ("RAM", "flash", *(("power",) if wide else ()), "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("speed is", no_wrap=True)
    for name in names:
        table.add_row(*map(Text, _row(found.devices[name], wide)))
    lines = [f"{len(names)} profiles; `paredown-devices NAME` shows one with every figure and its source."]
    lines += [
        "MAC/s are those of the fastest type. RAM is for activations, and for weights too where no flash is given."
    ]
    lines += ["error: 8 of 10 predicted latencies had at most this relative error; - if none was compared."]
    if found.groups:
        lines.append(f"groups: {', '.join(sorted(found.groups))}")
    return Group(table, *map(Text, lines))


def _row(device: Device, wide: bool) -> tuple[str, ...]:
    error = device.error.get("latency_ms")
    power = _NOT_GIVEN if device.active_power_mw is None else f"{_si(1e-3 * device.active_power_mw)}W"
    return (
        device.name,
        *((device.description, device.runtime) if wide else ()),
        _speed(device),
        _bytes(device.ram_bytes),
        _bytes(device.flash_bytes),
        *((power,) if wide else ()),
        _NOT_GIVEN if error is None else f"{100 * error:.0f} %",
        _tag(device),
    )


def _speed(device: Device) -> str:
    """Returns the throughput of the fastest dtype: the range over the kernel classes."""
    if device.measured:
        return "timed"
    if device.fabric is not None and not device.macs_per_s:
        return f"{device.fabric.dsps} DSPs"
    rates = {
        d: [device.efficiency * rate for rate in device.macs_per_s[d].values()]
        for d in DTYPES
        if d in device.macs_per_s
    }
    dtype = max(rates, key=lambda d: max(rates[d]))
    return f"{_SHORT[dtype]} {_range(min(rates[dtype]), max(rates[dtype]))}"


def _tag(device: Device) -> str:
    """Returns the least reliable tag among the figures that determine the speed."""
    if device.measured:
        return "measured"
    tags = [
        device.sources[key].tag for key in ("macs_per_s", "efficiency", "fabric") if key in device.sources
    ]
    return max(tags, key=TAGS.index) if tags else "no source"


def sheet(found: Catalogue, name: str, width: int) -> RenderableType:
    """Returns one profile with every figure, its tag and its source: a table, or where that would be narrow, one figure after the other."""
    device = found.devices[name]
    groups = [group for group, members in found.groups.items() if name in members]
    head = [
        device.name,
        f"  hardware  {device.description or _NOT_GIVEN}",
        f"  runtime   {device.runtime}",
        *([f"  groups    {', '.join(groups)}"] if groups else []),
        f"  file      {found.files[name]}",
        f"  use it    paredown device={name}",
    ]
    if device.measured:
        head.append("  The machine that runs the search: its latency is timed.")
    lines = [Text(indented(line, width, 2)) for line in head[1:]]
    if width < _WIDE:
        return Group(
            Text(head[0]), *lines, *(Text(line) for row in _figures(device) for line in _lines(row, width))
        )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("figure", no_wrap=True)
    table.add_column("value", max_width=34)
    table.add_column("is", no_wrap=True)
    table.add_column("source", overflow="fold")
    for row in _figures(device):
        table.add_row(*map(Text, row))
    return Group(*map(Text, head), table) if table.row_count else Group(*map(Text, head))


def _lines(row: tuple[str, str, str, str], width: int) -> list[str]:
    """Returns a figure, and below it its source, which is empty where it is that of the figure above."""
    figure, value, tag, source = row
    head = indented(f"{figure} = {', '.join(value.splitlines())}{f' ({tag})' if tag else ''}", width, 2)
    return [head, *([indented(source, width, 6)] if source else [])]


def _figures(device: Device) -> list[tuple[str, str, str, str]]:
    rows = []
    for figure in given_figures(device):
        value = getattr(device, figure)
        parts = _given_parts(value)
        for part, part_value in parts.items() if isinstance(parts, Mapping) else [("", parts)]:
            source = device.sources.get(f"{figure}.{part}") or device.sources.get(figure)
            label = f"{figure}.{part}" if part else figure
            rows.append(
                (
                    label,
                    _value(figure, part, part_value),
                    source.tag if source else "",
                    source.text if source else "no source",
                )
            )
    return _without_repeats([r for r in rows if r[1] != ""])


def _given_parts(value: Any) -> Any:
    """Returns the fields of a section that differ from their defaults, by name; any other value unchanged."""
    if not is_dataclass(value):
        return value
    parts = {f.name: getattr(value, f.name) for f in fields(value)}
    return {f.name: parts[f.name] for f in fields(value) if parts[f.name] != f.default}


def _without_repeats(rows: Sequence[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """Returns the rows, with tag and source empty where they repeat those of the same figure above."""
    printed = []
    for above, row in zip([None, *rows], rows, strict=False):
        same = above is not None and above[2:] == row[2:] and above[0].split(".")[0] == row[0].split(".")[0]
        printed.append((row[0], row[1], "", "") if same else row)
    return printed


def _value(figure: str, part: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "\n".join(f"{'any class' if k == ANY else k}: {_si(v)}" for k, v in value.items())
    if figure == "error":
        return f"{100 * value:.0f} %"
    name = part or figure
    if name.endswith("_bytes"):
        return _bytes(value)
    if isinstance(value, tuple | list):
        return ", ".join(value) or "none"
    if isinstance(value, float) and value >= 1000:
        return _si(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bytes(value: int | None) -> str:
    """Returns a size with up to six digits, in the unit (powers of 1024 or 1000) with the shortest text."""
    if value is None:
        return _NOT_GIVEN
    units = ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("GB", 10**9), ("MB", 10**6), ("B", 1)
    return min(
        (f"{value / scale:.6g} {unit}" for unit, scale in units if value >= scale), key=len, default="0 B"
    )


def _range(least: float, most: float) -> str:
    low, high = _si(least, 2).split(), _si(most, 2).split()
    if low == high:
        return " ".join(high)
    return f"{low[0]}-{' '.join(high)}" if low[1:] == high[1:] else f"{' '.join(low)}-{' '.join(high)}"


def _si(value: float, digits: int = 3) -> str:
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0)):
        if value >= scale:
            return f"{value / scale:.{max(digits, len(str(int(value / scale))))}g} {unit}"
    return f"{1e3 * value:.3g} m"
