"""How a model is used: its file, what it takes and returns, and code that runs it."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from search.record.results import StudyRecord
from search.report.findings import numbers
from search.report.findings.figures import headline_metric
from search.report.page.markup import details, esc

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, ValueInfoProto

_OWN = "evaluators.task.tasks."
_MOST_CHARACTERS = 2000  # e.g. the means of a table's columns
_LAYOUTS = {3: "NCW: batch, channels, time", 4: "NCHW: batch, channels, height, width"}
_SNIPPET = """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{path}", providers=["CPUExecutionProvider"])
feeds = {{{feeds}}}
{outputs} = session.run(None, feeds)"""


def deploy(results: StudyRecord, number: int, device: str | None) -> str:
    """Returns the part of a card that says how to use the model, HTML; empty if its file is not there."""
    path = results.model_path(number)
    if not path.exists():
        return ""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError):
        return ""
    relative = f"models/{path.name}"
    items = "".join(f"<dt>{esc(k)}</dt><dd>{v}</dd>" for k, v in _contract(results, graph))
    code = _code(_snippet(relative, graph), f"run-{number}-{device or 'all'}")
    python = details("Run it in Python (onnxruntime)", code)
    return f'<h4>Deploy</h4><dl class="contract">{items}</dl>{python}{_as_array(results, relative, device)}'


def download(results: StudyRecord, number: int) -> str:
    """Returns a link to a model's file, relative to the page; empty if it is not there."""
    path = results.model_path(number)
    name = esc(path.name)
    return f'<a class="download" href="models/{name}" download>Download {name}</a>' if path.exists() else ""


def _code(text: str, name: str) -> str:
    anchor = "".join(c if c.isalnum() else "-" for c in name)
    return (
        f'<div class="command"><pre id="{anchor}">{esc(text)}</pre>'
        f'<button type="button" data-copy="{anchor}">Copy</button></div>'
    )


def _as_array(results: StudyRecord, relative: str, device: str | None) -> str:
    """Returns how the file becomes an array in C, for devices other than the machine that timed it."""
    profile = (results.config.get("device") or {}).get(device) or {}
    if device is None or profile.get("measured"):
        return ""
    runtime = f" The figures are for the runtime {profile['runtime']}." if profile.get("runtime") else ""
    array = f"The file as an array in C: <code>xxd -i {esc(relative)}</code>."
    return f'<p class="quiet">{array}{esc(runtime)}</p>'


# -- what it takes and returns -------------------------------------------------------------------------------


def _contract(results: StudyRecord, graph: "GraphProto") -> list[tuple[str, str]]:
    """Returns names and texts, HTML, of inputs, their preparation and outputs."""
    items = []
    for value in _inputs(graph):
        layout = _layout(graph, value)
        items.append(("input", _described(value) + (f", {esc(layout)}" if layout else "")))
        if ends := _range(graph, value.name):
            low, high = map(numbers.plain, ends)
            items.append(("range", f"values from {low} to {high}; the first quantizer clips what is beyond"))
    items += _preparation(results)
    metric = headline_metric(results) or ""
    classes = "; the index of the largest value is the class" if metric.endswith(".top1") else ""
    items += [("output", _described(value) + esc(classes)) for value in graph.output]
    return items


def _inputs(graph: "GraphProto") -> "list[ValueInfoProto]":
    stored = {initializer.name for initializer in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def _shape(value: "ValueInfoProto") -> list[int | str]:
    axes = value.type.tensor_type.shape.dim
    return [axis.dim_value or ("batch" if i == 0 else axis.dim_param or "?") for i, axis in enumerate(axes)]


def _dtype(value: "ValueInfoProto") -> str:
    from onnx import helper

    return str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _described(value: "ValueInfoProto") -> str:
    shape = " × ".join(map(str, _shape(value)))
    return f"<code>{esc(value.name)}</code>, {esc(_dtype(value))}, {esc(shape)}"


def _layout(graph: "GraphProto", value: "ValueInfoProto") -> str:
    """Returns the layout of an input that a convolution reads, which ONNX defines; else nothing."""
    names = {value.name}
    for node in graph.node:  # in topological order
        if node.input and node.input[0] in names:
            if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):
                return _LAYOUTS.get(len(_shape(value)), "")
            if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity"):
                names.update(node.output)
    return ""


def _range(graph: "GraphProto", name: str) -> tuple[float, float] | None:
    """Returns the ends of what an input's quantizer represents; None if it is not quantized as a whole."""
    from onnx import numpy_helper

    node = next((n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == name), None)
    if node is None or len(node.input) < 3:
        return None
    stored = {i.name: i for i in graph.initializer if i.name in node.input[1:3]}
    if len(stored) < 2:
        return None
    step, zero = (numpy_helper.to_array(stored[n]) for n in node.input[1:3])
    if step.size != 1 or zero.dtype.kind not in "iu":
        return None
    return _represented(node, float(step), zero)


def _represented(node: "NodeProto", step: float, zero: Any) -> tuple[float, float]:
    import numpy as np

    kind = np.iinfo(zero.dtype)
    return step * (int(kind.min) - int(zero)), step * (int(kind.max) - int(zero))


def _preparation(results: StudyRecord) -> list[tuple[str, str]]:
    """Returns what the study's task says of itself, how it makes inputs, and which classes there are."""
    task = results.config.get("task")
    told = _first_sentence(str(task.get("_target_", ""))) if isinstance(task, Mapping) else ""
    texts = {"task": told, **results.preparation}
    return [(name, esc(_shortened(text))) for name, text in texts.items() if text]


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _first_sentence(target: str) -> str:
    """Returns the first sentence of the docstring of one of Paredown's own tasks."""
    module, _, name = target.rpartition(".")
    if not target.startswith(_OWN):
        return ""
    try:
        document = getattr(import_module(module), name).__doc__ or ""
    except (ImportError, AttributeError):  # a config of another version
        return ""
    return " ".join(document.split("\n\n")[0].split()).rstrip(".")


def _snippet(relative: str, graph: "GraphProto") -> str:
    feeds = []
    for value in _inputs(graph):
        shape = tuple(1 if not isinstance(n, int) else n for n in _shape(value))
        feeds.append(f"{value.name!r}: np.zeros({shape}, np.{_dtype(value)})")
    names = [f"output_{i}" for i in range(len(graph.output))] if len(graph.output) > 1 else ["output"]
    outputs = f"({names[0]},)" if len(names) == 1 else ", ".join(names)
    return _SNIPPET.format(path=relative, feeds=", ".join(feeds), outputs=outputs)
