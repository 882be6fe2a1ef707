"""The closing table of `paredown-profile`."""

import numpy as np
from rich.console import Group
from rich.table import Table

from evaluators.profile.result import Profile


def summary(profile: Profile, cores: list[int] | None) -> Group:
    """Returns the figures of the device, with the errors on held-out kernels and on held-out networks."""
    device = profile.device
    table = Table(title=f"{device.name}: {device.runtime}, {device.description}", title_justify="left")
    for column in ("kernel class", "dtype", "GMAC/s", "overhead us", "kernels", "error alone", "corrected"):
        table.add_column(column, justify="left" if column in ("kernel class", "dtype") else "right")
    for (kind, dtype), (before, after, n) in sorted(profile.class_errors.items()):
        rate = device.macs_per_s.get(dtype, {}).get(kind)
        table.add_row(
            kind,
            dtype,
            "" if rate is None else f"{rate / 1e9:.1f}",
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
