"""The chosen model's costs on each device: memory over time, and time, bytes and MACs of every kernel."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.cost.memory import Step
from evaluators.devices.device import Device
from search.record.results import DevicePick, StudyRecord
from search.report.findings import numbers
from search.report.page.markup import Charts, Section, details, esc, source_tag, table, trial_link
from spaces.errors import ParedownError
from spaces.stages.artifact import Artifact, InputSpec

if TYPE_CHECKING:
    from evaluators.cost.cost import DeviceCosts

_MOST_DEVICES = 6


def section(results: StudyRecord, charts: Charts) -> Section | None:
    """Returns the section, or None if no model was chosen or its file is not there."""
    picks = [(pick, costs) for pick in results.picks if (costs := _costs(results, pick)) is not None]
    if not picks:
        return None
    parts = [_device(results, charts, pick, costs) for pick, costs in picks[:_MOST_DEVICES]]
    left_out = [pick.device for pick, _ in picks[_MOST_DEVICES:]]
    if left_out:
        parts.append(f"<p>Devices that are not drawn: {esc(numbers.listing(left_out))}.</p>")
    lead = (
        "Memory while the chosen model runs, and the costs of each kernel. A kernel is what the runtime executes at "
        "once: a layer with its activation, bias and rescaling."
    )
    return Section("hardware", "On the device", lead, "".join(parts))


def _costs(results: StudyRecord, pick: DevicePick) -> "DeviceCosts | None":
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


def _device(results: StudyRecord, charts: Charts, pick: DevicePick, costs: "DeviceCosts") -> str:
    device = costs.device
    chart = _memory(charts, costs.memory.timeline, device, costs)
    heading = f"<h3>{esc(device.name)}: {trial_link(pick.number)}</h3>"
    return f'{heading}<p class="finding">{_finding(costs)}</p>{chart}{_kernels(costs)}{_unknown(costs)}'


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


def _memory(charts: Charts, timeline: Sequence[Step], device: Device, costs: "DeviceCosts") -> str:
    """Returns a chart of the memory that each kernel uses, that later kernels need, and that the runtime uses."""
    used_by = {kernel.name: {*kernel.inputs, *kernel.outputs} for kernel in costs.graph.kernels}
    now = [sum(n for t, n in s.live.items() if _is_used(t, s.kernel, used_by)) for s in timeline]
    later = [s.total_bytes - n for s, n in zip(timeline, now, strict=True)]
    size, unit = _scale(max([s.total_bytes for s in timeline], default=0))
    hover = [_hover(step) for step in timeline]
    layout: dict[str, Any] = {
        "barmode": "stack",
        "bargap": 0.08,
        "xaxis": {
            "title": {"text": "kernels, in the order of execution"},
            "showticklabels": len(timeline) <= 40,
        },
        "yaxis": {"title": {"text": f"memory ({unit})"}, "rangemode": "tozero"},
    }
    if device.ram_bytes and device.ram_bytes < 4 * costs.memory.peak_sram_bytes:
        layout["shapes"] = [_limit(device.ram_bytes / size)]
    traces = [
        _bars("read or written by the kernel", timeline, [n / size for n in now], hover, "var(--accent)"),
        _bars("kept for later kernels", timeline, [n / size for n in later], hover, "var(--faint)"),
    ]
    if costs.memory.runtime_bytes:
        share = [costs.memory.runtime_bytes / size] * len(timeline)
        traces.append(_bars("used by the runtime", timeline, share, hover, "var(--rule)"))
    return charts.add(traces, layout, f"Memory over time on {device.name}", height=300)


def _is_used(tensor: str, kernel: str, used_by: dict[str, set[str]]) -> bool:
    return tensor in used_by.get(kernel, ()) or tensor.startswith(f"{kernel} (")


def _bars(
    name: str, timeline: Sequence[Step], heights: list[float], hover: list[str], colour: str
) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "x": [esc(step.kernel) for step in timeline],
        "y": heights,
        "text": hover,
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour},
    }


def _hover(step: Step) -> str:
    largest = sorted(step.live.items(), key=lambda item: -item[1])[:6]
    lines = [f"{esc(tensor)}: {numbers.quantity(n, 'bytes')}" for tensor, n in largest]
    more = [f"and {len(step.live) - 6} more"] if len(step.live) > 6 else []
    head = f"<b>{esc(step.kernel)}</b>: {numbers.quantity(step.total_bytes, 'bytes')}"
    return "<br>".join([head, *lines, *more])


def _limit(at: float) -> dict[str, Any]:
    line = {"color": "var(--bad)", "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": at, "y1": at, "line": line}


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
    body = table(heads, rows, numeric=range(3, len(heads))) + _left_out(costs)
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
