"""Device profiles: one (hardware, runtime) pair each, with the source of every figure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from evaluators.devices.fpga import FpgaDevice

DType = Literal["float32", "float16", "int16", "int8", "int4"]
DTYPES: tuple[DType, ...] = get_args(DType)
DYNAMIC = "dynamic_int8"
"""Format of activations whose ranges are found while the network runs."""
Tag = Literal["measured", "stated", "modelled", "estimated"]
TAGS: tuple[Tag, ...] = get_args(Tag)
ANY = "default"  # key for all kernel classes that are not listed

# Fallback dtypes for devices without native support: 4-bit weights are unpacked to 8 bits, half precision is
# widened. Without a fallback the device cannot run the kernel, and its costs are absent.
_RUNS_AS: Mapping[DType, DType] = {"int4": "int8", "float16": "float32"}


@dataclass(frozen=True)
class FigureSource:
    """Where a figure comes from.

    Attributes:
        tag: `measured` on the device, `stated` by the vendor, `modelled` (derived from other figures), or
            `estimated` (by a tool or a guess), from the strongest evidence to the weakest.
        text: Reference: author, publication, version.
    """

    tag: Tag
    text: str


@dataclass(frozen=True)
class Deployment:
    """How the runtime lays out memory.

    Attributes:
        weights: Memory of the weights: `flash` (read in place), `ram` (one memory for weights and
            activations), or `stream` (copied kernel by kernel into the memory of the activations).
        order: Execution order of the kernels: that of the `file`, or the `best` order that is found for peak
            memory.
        arena: Placement of buffers: `liveness` (the lower bound of all placements) or `greedy` (TensorFlow
            Lite Micro's planner).
        in_place: Kernel classes that overwrite their input in place.
        alignment_bytes: Alignment of buffers.
        overhead_bytes: The runtime's own structures in the memory of the activations.
        kernel_overhead_bytes: Further bytes of them per kernel.
        channel_overhead_bytes: Further bytes of them per output channel of a convolution.
        patches: Splits of the first stage in each direction in patch-based inference (Lin et al. 2021,
            "MCUNetV2", arXiv 2110.15352); 1 means without patches.
    """

    weights: Literal["flash", "ram", "stream"] = "flash"
    order: Literal["file", "best"] = "best"
    arena: Literal["liveness", "greedy"] = "liveness"
    in_place: tuple[str, ...] = ("elementwise",)
    alignment_bytes: int = 1
    overhead_bytes: int = 0
    kernel_overhead_bytes: int = 0
    channel_overhead_bytes: int = 0
    patches: int = 1


@dataclass(frozen=True)
class OpEnergy:
    """Parameters of the energy model by operations and memory accesses, for ASIC-like devices and FPGAs.

    Attributes:
        scale: Factor on the energies of the 45 nm process (Horowitz 2014).
        on_chip_bytes: Size of the on-chip memory, which determines the energy per access.
        weights_from: The memory that weights are read from.
    """

    scale: float
    on_chip_bytes: int
    weights_from: Literal["on_chip", "dram"] = "on_chip"


@dataclass(frozen=True)
class Device:
    """A profile of one (hardware, runtime) pair.

    A figure that is not known is None, and every cost that depends on it is absent.

    Attributes:
        name: Name of the device in columns, `cost.<name>.*`.
        description: Description of the hardware for readers.
        runtime: The runtime that executes the network.
        macs_per_s: Throughput in multiply-accumulates per second, by dtype, then by kernel class (or
            `default`): either the dense peak, or the throughput that was measured on whole networks.
        efficiency: Fraction of `macs_per_s` that is reached; 1 if `macs_per_s` was measured on networks.
        memory_bandwidth_bytes_per_s: Bandwidth of the memory of the activations (and of the weights, if
            `flash_bandwidth_bytes_per_s` is None); None omits the memory term, which is right if `macs_per_s`
            was measured on whole networks.
        flash_bandwidth_bytes_per_s: Bandwidth of a separate memory of the weights; None if there is none.
        kernel_overhead_us: Constant time per kernel, by kernel class (or `default`).
        run_overhead_us: Constant time per run.
        fusion: Rules that fuse nodes into kernels: `common` (shared by TensorFlow Lite, onnxruntime and
            compilers), `onnxruntime` (read from its optimized graph), or `eager` (every node is a kernel,
            dead branches included).
        removes_dead_channels: Whether the runtime removes channels that are constant because all their
            weights are zero.
        bound: Whether a kernel takes the `max` of its compute and memory time, or their `sum`.
        residual: File of a learned correction of the kernel times, as `paredown-profile` writes it beside the
            profile; None if there is none.
        active_power_mw: Power while the network runs.
        idle_power_mw: Power while nothing runs.
        op_energy: Parameters of the energy model by operations, which is used if `active_power_mw` is None.
        fabric: Resources of an FPGA, whose latency follows from the folding; None for other devices.
        ram_bytes: Size of the memory of the activations.
        flash_bytes: Size of a separate memory of the weights.
        deployment: How the runtime lays out memory.
        weight_formats: Formats of the weights that the runtime takes, as dtypes; empty where no source says, which
            restricts nothing.
        activation_formats: The same of the activations, and `dynamic_int8`.
        error: Relative error by cost (`latency_ms`, `energy_uj`, `peak_sram_bytes`) that 8 of 10 comparisons
            with measurements stay within; absent without comparisons.
        measured: Whether this device is the machine that runs the search, so that latency is timed, not modelled.
        sources: Source of each figure, and of its parts (`macs_per_s.int8`) if they have different sources;
            the figure itself has the weakest tag of its parts then.
    """

    name: str
    description: str = ""
    runtime: str = ""
    macs_per_s: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    efficiency: float = 1.0
    memory_bandwidth_bytes_per_s: float | None = None
    flash_bandwidth_bytes_per_s: float | None = None
    kernel_overhead_us: Mapping[str, float] = field(default_factory=dict)
    run_overhead_us: float = 0.0
    fusion: Literal["common", "onnxruntime", "eager"] = "common"
    removes_dead_channels: bool = False
    bound: Literal["max", "sum"] = "max"
    residual: str | None = None
    active_power_mw: float | None = None
    idle_power_mw: float | None = None
    op_energy: OpEnergy | None = None
    fabric: FpgaDevice | None = None
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    deployment: Deployment = field(default_factory=Deployment)
    weight_formats: tuple[str, ...] = ()
    activation_formats: tuple[str, ...] = ()
    error: Mapping[str, float] = field(default_factory=dict)
    measured: bool = False
    sources: Mapping[str, FigureSource] = field(default_factory=dict)

    def throughput(self, dtype: DType, kind: str = ANY) -> float | None:
        """Returns MACs per second of kernels of one dtype and class; None if the device cannot run them."""
        listed = self.macs_per_s.get(dtype)
        if listed is None and dtype in _RUNS_AS:
            listed = self.macs_per_s.get(_RUNS_AS[dtype])
        rate = None if listed is None else listed.get(kind, listed.get(ANY))
        return None if rate is None else rate * self.efficiency

    def overhead_us(self, kind: str) -> float:
        """Returns the constant time of a kernel of one class in us; 0 if the profile does not state it."""
        return self.kernel_overhead_us.get(kind, self.kernel_overhead_us.get(ANY, 0.0))
