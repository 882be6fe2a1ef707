"""Puts the integer-only functions into a file, as model-local functions that plain onnxruntime inlines.

::

    x ──Softmax──> y        becomes        x ──paredown.integer.Softmax──> y

Each is one node. Its body rounds the float input to integers, computes with integers of standard operators alone, and scales the result back to
float at the end, as a QuantizeLinear and a DequantizeLinear around an integer kernel do. No runtime has these kernels, so they are recorded as simulated.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from spaces.models.onnx.subgraphs import names_read
from spaces.quantization.formats.stored import SIMULATING as DOMAIN
from spaces.quantization.formats.stored import record_simulated
from spaces.quantization.transformers import gelu, layer_norm, shift_exp, softmax
from spaces.quantization.transformers.functions import add_functions
from spaces.quantization.transformers.graph_index import FloatFunction, Index
from spaces.quantization.transformers.spans import Span

if TYPE_CHECKING:
    import onnx

WHAT = "integer_functions=true"
BODIES = MappingProxyType({"Softmax": softmax.BODY, "Gelu": gelu.BODY, "LayerNormalization": layer_norm.BODY})


def with_integer_functions(
    model: bytes, functions: Mapping[FloatFunction, Span], gelu_limit: float = 0.0
) -> bytes:
    """Returns a serialized model with these functions in integers.

    Args:
        model: A quantized model, whose nodes have the float model's names.
        functions: The functions, each with the span of its input.
        gelu_limit: Largest magnitude that a GELU tells from others; 0 for none.
    """
    import onnx

    if not functions:
        return model
    proto = onnx.load_model_from_string(model)
    nodes = {node.name: node for node in proto.graph.node}
    removed, made = set[str](), dict[str, onnx.NodeProto]()
    for function, span in functions.items():
        made[function.name] = _node(proto, nodes, function, span, gelu_limit)
        removed.update(function.nodes)
    kept = [made.get(n.name, n) for n in proto.graph.node if n.name in made or n.name not in removed]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    _drop_unread(proto)
    add_functions(proto, texts_of({f.kind for f in functions}))
    record_simulated(proto, dict.fromkeys(made, WHAT))
    return bytes(proto.SerializeToString(deterministic=True))


def texts_of(kinds: set[str]) -> list[str]:
    """Returns the bodies of functions of these kinds, and of those that they call, as ONNX's text."""
    called = [shift_exp.BODY] if kinds & {"Softmax", "Gelu"} else []
    return [*(BODIES[kind] for kind in sorted(kinds)), *called]


def _node(
    proto: "onnx.ModelProto",
    nodes: "Mapping[str, onnx.NodeProto]",
    function: FloatFunction,
    span: Span,
    gelu_limit: float,
) -> "onnx.NodeProto":
    from onnx import helper

    reader, position = function.reader
    inputs, (low, high, least) = [nodes[reader].input[position]], span
    if function.kind == "Softmax":
        start, scale = softmax.grid(low, high, least)
        attributes = softmax.attributes(start, scale, function.axes)
    elif function.kind == "Gelu":
        attributes = gelu.attributes(low, high, gelu_limit)
    else:
        attributes = layer_norm.attributes(low, high, function.axes, function.size, function.epsilon)
        names, step = _parameters(proto, function)
        inputs, attributes = [*inputs, *names], {**attributes, "step": step}
    output = nodes[function.name].output[0]
    return helper.make_node(function.kind, inputs, [output], name=function.name, domain=DOMAIN, **attributes)


def _parameters(proto: "onnx.ModelProto", function: FloatFunction) -> tuple[list[str], float]:
    """Adds the integers of a layer normalization's factors and biases; returns their names and the result's scale."""
    from onnx import numpy_helper

    index = Index(proto)
    given = [None if name is None else index.constant(name) for name in (function.weight, function.bias)]
    weight = np.ones((), np.float32) if given[0] is None else given[0].astype(np.float32)
    bias = np.zeros((), np.float32) if given[1] is None else given[1].astype(np.float32)
    weights, biases, step = layer_norm.parameters(weight, bias, function.size)
    names = [f"{function.name}_weight_quantized", f"{function.name}_bias_quantized"]
    for name, values in zip(names, (weights, biases), strict=True):
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return names, step


def _drop_unread(proto: "onnx.ModelProto") -> None:
    """Removes initializers and types of tensors that are no more."""
    read = {name for node in proto.graph.node for name in names_read(node)}
    read |= {output.name for output in proto.graph.output}
    written = {name for node in proto.graph.node for name in node.output}
    for field, wanted in ((proto.graph.initializer, read), (proto.graph.value_info, read | written)):
        kept = [item for item in field if item.name in wanted]
        del field[:]
        field.extend(kept)
