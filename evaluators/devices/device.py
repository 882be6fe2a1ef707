"""Device profiles: one (hardware, runtime) pair each, with the source of every figure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from evaluators.devices.fpga import FpgaDevice

DType = Literal["float32", "float16", "int16", "int8", "int4"]
DTYPES: tuple[DType, ...] = get_args(DType)
Tag = Literal["measured", "stated", "modelled", "estimated"]
TAGS: tuple[Tag, ...] = get_args(Tag)
ANY = "default"  # stands for every kernel class that is not listed

# What a kernel of one dtype runs as where the device has no units of its own for it: 4-bit weights are unpacked
# to 8 bits, half precision is widened. Nothing else is assumed; the cost is absent then.
_RUNS_AS: Mapping[DType, DType] = {"int4": "int8", "float16": "float32"}


@dataclass(frozen=True)
class FigureSource:
    """Where a figure comes from.

    Attributes:
        tag: `measured` on the device by whoever is named, `stated` by the vendor, `modelled` (derived from other
            figures), or `estimated` (somebody's tool or guess).
        text: Who, where, which version.
    """

    tag: Tag
    text: str


@dataclass(frozen=True)
class Deployment:
    """How the runtime lays out memory.

    Attributes:
        weights: Where they live: `flash` (read from there), `ram` (one memory for weights and activations), or
            `stream` (brought into the memory of the activations kernel by kernel).
        order: Execution order of the kernels: as in the `file`, or the `best` found for memory.
        arena: `liveness` (the bound that no placement beats) or `greedy` (TensorFlow Lite Micro's planner).
        in_place: Kernel classes that write over their input.
        alignment_bytes: Buffers begin at multiples of it.
        overhead_bytes: What the runtime keeps in the same memory besides (its own structures).
        kernel_overhead_bytes: What it keeps there for every kernel.
        channel_overhead_bytes: What it keeps there for every output channel of a convolution.
        patches: Splits of the first stage in each direction for patch-based execution (Lin et al. 2021,
            "MCUNetV2", arXiv 2110.15352); 1 runs it whole.
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
    """Energy from operations and memory accesses, for devices that are like an ASIC or an FPGA.

    Attributes:
        scale: Factor to 45 nm's energies (Horowitz 2014).
        on_chip_bytes: Size of the memory beside the arithmetic; decides what an access costs.
        weights_from: Where weights are read from.
    """

    scale: float
    on_chip_bytes: int
    weights_from: Literal["on_chip", "dram"] = "on_chip"


@dataclass(frozen=True)
class Device:
    """A profile of one (hardware, runtime) pair.

    A figure that nobody published is None, and then so is every cost that needs it.

    Attributes:
        name: Name in `cost.<name>.*`.
        description: The hardware, for people.
        runtime: What runs the network there.
        macs_per_s: Dtype of a kernel to kernel class (or `default`) to throughput, multiply-accumulates per second:
            either the dense peak, or what whole networks were seen to reach.
        efficiency: Share of `macs_per_s` that is reached; 1 where `macs_per_s` is what was seen.
        memory_bandwidth_bytes_per_s: Of the memory that holds activations (and weights, if the next is None);
            None leaves the memory term out, which is right where `macs_per_s` was seen on whole networks.
        flash_bandwidth_bytes_per_s: Of the memory that holds weights, where it is another one.
        kernel_overhead_us: Kernel class (or `default`) to the time that each such kernel costs besides its work.
        run_overhead_us: Time that every run costs besides its kernels.
        fusion: Whose rules decide which nodes form one kernel: `common` (what TensorFlow Lite, onnxruntime and
            compilers share), `onnxruntime` (its own optimizer is asked), or `eager` (every node is a kernel, dead
            branches too).
        removes_dead_channels: Whether the runtime takes out channels that are constant because all their weights are
            zero.
        bound: Whether a kernel takes the `max` of its compute and memory time, or their `sum`.
        residual: File of a learned correction of the formula, as `paredown-profile` writes it.
        active_power_mw: Power while the network runs.
        idle_power_mw: Power while nothing runs.
        op_energy: Energy by operations, where `active_power_mw` is not what decides.
        fabric: For field-programmable gate arrays, whose latency and resources follow from the folding.
        ram_bytes: Size of the memory for activations.
        flash_bytes: Size of the memory for weights, where it is another one.
        deployment: How the runtime lays out memory.
        error: Cost (`latency_ms`, `energy_uj`, `peak_sram_bytes`) to the relative error that 8 of 10 comparisons
            with measurements stay within; absent where nothing was compared.
        measured: Whether this device is the machine that runs the search, so that latency is timed, not modelled.
        sources: Figure to where it comes from, and part of a figure (`macs_per_s.int8`) where parts differ; the
            figure itself has the weakest tag then.
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
    error: Mapping[str, float] = field(default_factory=dict)
    measured: bool = False
    sources: Mapping[str, FigureSource] = field(default_factory=dict)

    def throughput(self, dtype: DType, kind: str = ANY) -> float | None:
        """Multiply-accumulates per second of kernels of one dtype and class; None if the device cannot run them."""
        listed = self.macs_per_s.get(dtype)
        if listed is None and dtype in _RUNS_AS:
            listed = self.macs_per_s.get(_RUNS_AS[dtype])
        rate = None if listed is None else listed.get(kind, listed.get(ANY))
        return None if rate is None else rate * self.efficiency

    def overhead_us(self, kind: str) -> float:
        """Time that a kernel of one class costs besides its work; 0 where the profile does not say."""
        return self.kernel_overhead_us.get(kind, self.kernel_overhead_us.get(ANY, 0.0))
