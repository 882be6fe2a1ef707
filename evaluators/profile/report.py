"""The closing table of `paredown-profile`."""

import numpy as np
from rich import box
from rich.console import Group, JustifyMethod
from rich.table import Table

from evaluators.profile.figures import FASTEST_MACS_PER_S
from evaluators.profile.result import Profile


def summary(profile: Profile, cores: list[int] | None) -> Group:
    """Returns the figures of the device, with the errors on held-out kernels and on held-out networks."""
    device = profile.device
    title = f"{device.name}: {device.runtime}, {device.description}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("kernel class", "dtype", "GMAC/s", "overhead us", "kernels", "error alone", "corrected"):
        side: JustifyMethod = "left" if column in ("kernel class", "dtype") else "right"
        table.add_column(column.replace(" ", "\n"), justify=side, vertical="bottom", overflow="fold")
    for (kind, dtype), (before, after, n) in sorted(profile.class_errors.items()):
        rate = device.macs_per_s.get(dtype, {}).get(kind)
        table.add_row(
            kind,
            dtype,
            _throughput(rate),
            f"{device.overhead_us(kind):.2f}",
            str(n),
            f"{before:.0%}",
            f"{after:.0%}",
        )
    errors = np.abs(profile.network_errors)
    within = f"{np.mean(errors <= 0.1):.0%} within 10 %, {np.median(errors):.1%} median error"
    where = "" if cores is None else f" (core {', '.join(map(str, cores))})"
    bandwidth = device.memory_bandwidth_bytes_per_s or 0.0
    return Group(
        table,
        f"memory {bandwidth / 1e9:.1f} GB/s, {device.run_overhead_us:.1f} us a run{where}. {profile.machine_load}",
        f"Held-out random networks, each predicted from the others: {within} ({profile.samples} networks).",
    )


def _throughput(rate: float | None) -> str:
    """Returns GMAC/s; where bytes and overhead explain all of the time, the fit ends at its limit, which is no figure."""
    if rate is None:
        return ""
    return "by memory" if rate >= FASTEST_MACS_PER_S else f"{rate / 1e9:.1f}"
