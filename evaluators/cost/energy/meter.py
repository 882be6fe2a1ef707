"""Energy counters of this machine: RAPL for processors, NVML for NVIDIA's accelerators."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from spaces.errors import EvaluationError

_POWERCAP = Path("/sys/class/powercap")


class EnergyCounter(Protocol):
    """A counter that only grows.

    Attributes:
        name: What it counts, e.g. `rapl package-0`.
        wraps_at_joules: Where it begins again at 0; None if it does not.
    """

    @property
    def name(self) -> str:
        """What it counts."""

    @property
    def wraps_at_joules(self) -> float | None:
        """Where it begins again at 0."""

    def joules(self) -> float:
        """Returns the energy since some moment, in joules."""


@dataclass(frozen=True)
class RaplCounter:
    """One domain of Intel's or AMD's Running Average Power Limit, as Linux shows it.

    It counts the whole package (or its memory), not one process. Since CVE-2020-8694 only root may read it; virtual
    machines and containers usually lack it.

    Attributes:
        folder: e.g. `/sys/class/powercap/intel-rapl:0`.
    """

    folder: Path

    @property
    def name(self) -> str:
        """What it counts."""
        return f"rapl {_name(self.folder)}"

    @property
    def wraps_at_joules(self) -> float | None:
        """Where it begins again at 0."""
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
    """Returns the domains that can be read, each once (packages, and memory beside them), or why there is none."""
    found = sorted(f.parent for f in root.glob("*rapl*:*/energy_uj"))
    if not found:
        return [], f"{root} lists no RAPL domain, as in most virtual machines and containers"
    # A package holds its cores and its graphics, so these would be counted twice.
    wanted = [f for f in _once_each(found) if _name(f).startswith(("package", "dram"))]
    try:
        for folder in wanted:
            (folder / "energy_uj").read_text()
    except PermissionError:
        return [], f"{wanted[0] / 'energy_uj'} may be read by root only (CVE-2020-8694)"
    return [RaplCounter(folder) for folder in wanted], "" if wanted else f"{root} lists no package domain"


def _once_each(folders: Sequence[Path]) -> list[Path]:
    """Returns one folder of each domain: `intel-rapl:0` and `intel-rapl-mmio:0` are two ways to read one package."""
    by_domain: dict[tuple[str, ...], Path] = {}
    for folder in sorted(folders, key=lambda f: ("mmio" in f.name, f.name)):
        by_domain.setdefault(_domain(folder), folder)
    return sorted(by_domain.values())


def _domain(folder: Path) -> tuple[str, ...]:
    """Returns the names from the package down to the domain: each socket of a server has a `dram` of its own."""
    control, *numbers = folder.name.split(":")
    above = (folder.with_name(":".join([control, *numbers[:n]])) for n in range(1, len(numbers)))
    return (*(_name(f) if f.is_dir() else f.name.partition(":")[2] for f in above), _name(folder))


def _name(folder: Path) -> str:
    return (folder / "name").read_text().strip()


def nvml_counters() -> tuple[list[NvmlCounter], str]:
    """Returns the accelerators whose energy can be read, or why there is none; needs the package nvidia-ml-py."""
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
    """Reads counters before and after a piece of work.

    ```python
    with EnergyMeter(counters) as meter:
        work()
    meter.joules
    ```

    Attributes:
        counters: What to read; at least one.
        joules: Energy of all counters while the work ran.
        by_counter: The same, one by one.
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
            # A counter that wrapped is behind where it was; work of minutes wraps it once at most.
            spent = now - before if now >= before else now - before + (counter.wraps_at_joules or 0.0)
            # Every socket of a server calls its memory `dram`.
            self.by_counter[counter.name] = self.by_counter.get(counter.name, 0.0) + spent
        self.joules = sum(self.by_counter.values())
