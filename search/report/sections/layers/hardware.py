"""The chosen model's costs on each device: memory over time, and time, bytes and MACs of every kernel."""

from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.cost.memory import Step
from search.record.results import DevicePick, StudyRecord
from search.report.findings import numbers
from search.report.page.bars import Stack, stacked
from search.report.page.markup import details, esc, source_tag, table
from spaces.errors import ParedownError
from spaces.stages.artifact import Artifact, InputSpec

if TYPE_CHECKING:
    from evaluators.cost.cost import DeviceCosts


def device_costs(results: StudyRecord, pick: DevicePick) -> "DeviceCosts | None":
    """Returns the costs of a pick on its device; None if its file or the device's profile is not there."""
    from evaluators.cost.cost import DeviceCosts, Graphs
    from evaluators.devices.config import device_from_config

    path = results.model_path(pick.number)
    profile = (results.config.get("device") or {}).get(pick.device)
    if profile is None or not path.exists():
        return None
    try:
        device = device_from_config(pick.device, profile, f"device.{pick.device}")
        return DeviceCosts(Graphs(_artifact(path)).on(device), device)
    except ParedownError:  # a file or a profile from an older version: the report leaves the section out
        return None


def _artifact(path: Path) -> Artifact:
    """Reads a model file of a study; only the batch axis of its inputs may be free."""
    import onnx

    data = path.read_bytes()
    return Artifact.onnx(data, InputSpec.of_graph(onnx.load_model_from_string(data).graph))


def hardware(costs: "DeviceCosts") -> str:
    """Returns what a model needs on a device: memory over time, and every kernel."""
    return f'<p class="finding">{_finding(costs)}</p>{_memory(costs)}{_kernels(costs)}{_unknown(costs)}'


def _finding(costs: "DeviceCosts") -> str:
    memory, device = costs.memory, costs.device
    text = (
        f"Memory peaks at <strong>{esc(memory.peak_kernel or 'the input')}</strong>: "
        f"{esc(numbers.quantity(memory.peak_sram_bytes, 'bytes'))}"
    )
    if device.ram_bytes:
        share = 100 * memory.peak_sram_bytes / device.ram_bytes
        text += (
            f", {share:.3g} % of the {esc(numbers.quantity(device.ram_bytes, 'bytes'))} that the device has"
        )
    return f"{text}. {source_tag('modelled')}"


def _memory(costs: "DeviceCosts") -> str:
    """Returns a chart of the memory that each kernel uses, that later kernels need, and that the runtime uses."""
    timeline, device, runtime = costs.memory.timeline, costs.device, costs.memory.runtime_bytes
    used_by = {kernel.name: {*kernel.inputs, *kernel.outputs} for kernel in costs.graph.kernels}
    size, unit = _scale(max([s.total_bytes for s in timeline], default=0))
    stacks = []
    for step in timeline:
        now = sum(n for tensor, n in step.live.items() if _is_used(tensor, step.kernel, used_by))
        parts = [now, step.total_bytes - now, *([runtime] if runtime else [])]
        stacks.append(Stack([n / size for n in parts], _tip(step)))
    names = [
        "read or written by the kernel",
        "kept for later kernels",
        *(["used by the runtime"] if runtime else []),
    ]
    limit = device.ram_bytes
    near = limit / size if limit and limit < 4 * costs.memory.peak_sram_bytes else None
    note = f"The peak is at {costs.memory.peak_kernel or 'the input'}."
    return stacked(f"Memory over time on {device.name}", stacks, names, f"memory ({unit})", near, note)


def _is_used(tensor: str, kernel: str, used_by: dict[str, set[str]]) -> bool:
    return tensor in used_by.get(kernel, ()) or tensor.startswith(f"{kernel} (")


def _tip(step: Step) -> str:
    largest = sorted(step.live.items(), key=lambda item: -item[1])[:6]
    lines = [f"{tensor}: {numbers.quantity(n, 'bytes')}" for tensor, n in largest]
    more = [f"and {len(step.live) - 6} more"] if len(step.live) > 6 else []
    return "\n".join([f"{step.kernel}: {numbers.quantity(step.total_bytes, 'bytes')}", *lines, *more])


def _scale(n_bytes: float) -> tuple[float, str]:
    return next(((float(s), u) for s, u in ((2**20, "MiB"), (2**10, "KiB")) if n_bytes >= s), (1.0, "bytes"))


def _kernels(costs: "DeviceCosts") -> str:
    times_ms = costs.kernel_ms()
    total_ms = sum(times_ms) if times_ms is not None else 0.0
    heads = ["kernel", "class", "dtype", "MACs", "weights", "reads", "writes"]
    rows = []
    for i, k in enumerate(costs.graph.kernels):
        sizes = [
            numbers.quantity(n, "bytes") if n else "–"
            for n in (k.weight_bytes, k.input_bytes, k.output_bytes)
        ]
        row = [f"<code>{esc(k.name)}</code>", esc(k.kind.replace("_", " ")), esc(k.dtype)]
        row += [f"{k.macs:,}" if k.macs else "–", *map(esc, sizes)]
        if times_ms is not None:
            share = 100 * times_ms[i] / total_ms if total_ms else 0.0
            row += [esc(numbers.plain(times_ms[i])), f"{share:.1f} %"]
        rows.append(row)
    if times_ms is not None:
        heads += ["time\nms, modelled", "share"]
    body = table(heads, rows, numeric=range(3, len(heads)), name="Kernels") + _left_out(costs)
    return details(f"Every kernel on {costs.device.name} ({len(rows)})", body)


def _left_out(costs: "DeviceCosts") -> str:
    """Returns a note on why kernels without multiply-accumulates have no time, if that is so."""
    left_out = costs.explained().get("left_out", ())
    if "kernel_overhead_us" not in left_out:
        return ""
    figures = numbers.listing([f"<code>{esc(figure)}</code>" for figure in left_out])
    return (
        f"<p>The profile has no {figures}: its throughput was measured on whole networks, so the time of kernels "
        "that only move bytes is included in that of the others.</p>"
    )


def _unknown(costs: "DeviceCosts") -> str:
    unknown = costs.graph.unknown
    if not unknown:
        return ""
    operators = numbers.listing([f"{op} ({count} times)" for op, count in unknown.items()])
    return (
        f"<p><strong>Not known to the cost models:</strong> {esc(operators)}. Their bytes are counted, their "
        "arithmetic is not, so the latency is underestimated.</p>"
    )
