"""Energy counters of this machine: RAPL for processors, NVML for NVIDIA's accelerators."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from spaces.errors import EvaluationError

_POWERCAP = Path("/sys/class/powercap")


class EnergyCounter(Protocol):
    """A cumulative energy counter.

    Attributes:
        name: What it counts, e.g. `rapl package-0`.
        wraps_at_joules: Value at which it overflows to 0; None if it does not.
    """

    @property
    def name(self) -> str:
        """What it counts."""

    @property
    def wraps_at_joules(self) -> float | None:
        """Value at which it overflows to 0."""

    def joules(self) -> float:
        """Returns the energy since an arbitrary moment, in joules; only differences mean something."""


@dataclass(frozen=True)
class RaplCounter:
    """One domain of Intel's or AMD's Running Average Power Limit (RAPL) in Linux's powercap interface.

    It counts the whole package (or its memory), not one process. Since CVE-2020-8694 only root may read it; virtual
    machines and containers usually lack it.

    Attributes:
        folder: The domain's folder, e.g. `/sys/class/powercap/intel-rapl:0`.
    """

    folder: Path

    @property
    def name(self) -> str:
        """What it counts."""
        return f"rapl {_name(self.folder)}"

    @property
    def wraps_at_joules(self) -> float | None:
        """Value at which it overflows to 0."""
        return int((self.folder / "max_energy_range_uj").read_text()) * 1e-6

    def joules(self) -> float:
        """Returns the counter in joules."""
        return int((self.folder / "energy_uj").read_text()) * 1e-6


@dataclass(frozen=True)
class NvmlCounter:
    """The total energy of one NVIDIA accelerator (Volta and later), through NVML.

    Attributes:
        index: NVML's index of the accelerator.
        handle: NVML's handle.
    """

    index: int
    handle: Any
    wraps_at_joules: float | None = None

    @property
    def name(self) -> str:
        """What it counts."""
        return f"nvml gpu-{self.index}"

    def joules(self) -> float:
        """Returns the counter in joules."""
        import pynvml

        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) * 1e-3


def rapl_counters(root: Path = _POWERCAP) -> tuple[list[RaplCounter], str]:
    """Returns the readable package and DRAM domains, each once, and the reason if there are none."""
    folders = sorted(f.parent for f in root.glob("*rapl*:*/energy_uj"))
    if not folders:
        return [], f"{root} lists no RAPL domain, as in most virtual machines and containers"
    # A package includes its cores and its graphics, so these would be counted twice.
    domains = [f for f in _once_each(folders) if _name(f).startswith(("package", "dram"))]
    try:
        for folder in domains:
            (folder / "energy_uj").read_text()
    except PermissionError:
        return [], f"{domains[0] / 'energy_uj'} may be read by root only (CVE-2020-8694)"
    return [RaplCounter(folder) for folder in domains], "" if domains else f"{root} lists no package domain"


def _once_each(folders: Sequence[Path]) -> list[Path]:
    """Returns one folder of each domain: `intel-rapl:0` and `intel-rapl-mmio:0` are two ways to read one package."""
    by_domain: dict[tuple[str, ...], Path] = {}
    for folder in sorted(folders, key=lambda f: ("mmio" in f.name, f.name)):
        by_domain.setdefault(_domain(folder), folder)
    return sorted(by_domain.values())


def _domain(folder: Path) -> tuple[str, ...]:
    """Returns the names from the package down to the domain: each socket of a server has its own `dram`."""
    control, *numbers = folder.name.split(":")
    above = (folder.with_name(":".join([control, *numbers[:n]])) for n in range(1, len(numbers)))
    return (*(_name(f) if f.is_dir() else f.name.partition(":")[2] for f in above), _name(folder))


def _name(folder: Path) -> str:
    return (folder / "name").read_text().strip()


def nvml_counters() -> tuple[list[NvmlCounter], str]:
    """Returns the GPUs whose energy nvidia-ml-py can read, and the reason if there are none."""
    try:
        import pynvml
    except ImportError:
        return [], "the package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        for handle in handles:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    return [
        NvmlCounter(i, handle) for i, handle in enumerate(handles)
    ], "" if handles else "NVML lists no GPU"


@dataclass
class EnergyMeter:
    """Context manager that reads counters before and after its block.

    ```python
    with EnergyMeter(counters) as meter:
        work()
    meter.joules
    ```

    Attributes:
        counters: The counters to read; at least one.
        joules: Energy during the block, summed over all counters.
        by_counter: Energy during the block by the counter's name, in joules.
    """

    counters: Sequence[EnergyCounter]
    joules: float = 0.0
    by_counter: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.counters:
            raise EvaluationError("an energy meter needs at least one counter")

    def __enter__(self) -> "EnergyMeter":
        self._before = [counter.joules() for counter in self.counters]
        return self

    def __exit__(self, *_: object) -> None:
        after = [counter.joules() for counter in self.counters]
        for counter, before, now in zip(self.counters, self._before, after, strict=True):
            # A smaller value means an overflow; within minutes there is at most one.
            spent = now - before if now >= before else now - before + (counter.wraps_at_joules or 0.0)
            # The `dram` domains of several sockets share their name.
            self.by_counter[counter.name] = self.by_counter.get(counter.name, 0.0) + spent
        self.joules = sum(self.by_counter.values())
