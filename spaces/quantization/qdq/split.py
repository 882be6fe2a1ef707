"""Splits the tool's file into slots, which follow from the grids, and bytes that all candidates share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from spaces.models.onnx import protobuf_encoding as protobuf
from spaces.quantization.plan.bias_correction import bias_name
from spaces.quantization.plan.plan import Plan
from spaces.quantization.plan.source import Source
from spaces.quantization.qdq.slots import FloatBiases, Slot, initializer_head

_ACTIVATION = ("scale", "zero_point")
_WEIGHT = ("quantized", "scale", "zero_point")


@dataclass(frozen=True)
class Names:
    """The initializers of the tool's file, by name.

    Attributes:
        slots: Initializers that follow from the plan.
        own: Initializers of the float model.
        zeros: Zero points of int32 biases, with their numbers of elements.
    """

    slots: Mapping[str, Slot]
    own: frozenset[str]
    zeros: Mapping[str, int]


def names_of(source: Source, plan: Plan, corrected: FloatBiases | None) -> Names | None:
    """Predicts the initializers from the plan; returns None if two of them would have the same name."""
    own = source.initializers
    scales = {
        bias_name(layer): plan.weights[layer.name].scale.size
        for layer in source.network.layers
        if layer.name in plan.weights
    }
    slots = [
        *((f"{t}_{part}", Slot(f"activation {part}", t)) for t in plan.activations for part in _ACTIVATION),
        *((f"{w}_{part}", Slot(f"weight {part}", w)) for w in plan.weights for part in _WEIGHT),
        *((f"{b}_quantized", Slot("bias quantized", b)) for b in scales),
        *((f"{b}_quantized_scale", Slot("bias scale", b)) for b in scales),
    ]
    zeros = {f"{b}_quantized_zero_point": n for b, n in scales.items()}
    by_name = dict(slots)
    if len(by_name) < len(slots) or own & (by_name.keys() | zeros.keys()) or by_name.keys() & zeros.keys():
        return None
    if corrected is not None:
        by_name |= {b: Slot("float bias", b) for b in corrected}
    return Names(by_name, own, zeros)


@dataclass(frozen=True)
class Cut:
    """A serialized model, cut at its slots.

    Attributes:
        before: The bytes before the graph.
        graph: The pieces of the graph; those of slots are empty.
        slots: For each kind of slot, pairs of its index in `graph` and its name.
        after: The bytes after the graph.
        unknown: Initializers of the tool that do not follow from the plan: name to bytes.
    """

    before: bytes
    graph: tuple[bytes, ...]
    slots: Mapping[str, tuple[tuple[int, str], ...]]
    after: bytes
    unknown: Mapping[str, bytes]


def cut(data: bytes, names: Names, source: Source, biases: FloatBiases) -> Cut:
    """Cuts a file at its slots.

    Args:
        data: The tool's file of this source, or of its outline.
        names: The initializers.
        source: The float model, whose weights and biases replace those in the file.
        biases: Float biases by name, corrected if bias correction is on.

    Raises:
        ValueError: The file is not an ONNX model.
    """
    pieces = [b""]
    slots, unknown = dict[str, list[tuple[int, str]]](), dict[str, bytes]()
    _, start, first, last = next(f for f in protobuf.fields(data, 0, len(data)) if f[0] == protobuf.GRAPH)
    for number, begin, content, end in protobuf.fields(data, first, last):
        name = (
            protobuf.text(data, content, end, protobuf.TENSOR_NAME) if number == protobuf.INITIALIZER else ""
        )
        slot = names.slots.get(name)
        if slot is not None:
            pieces[-1] += _before_slot(data[begin:end], slot, names, biases)
            slots.setdefault(slot.kind, []).append((len(pieces), slot.name))
            pieces += [b"", b""]
            continue
        if name and name not in names.own and name not in names.zeros:
            unknown[name] = data[content:end]
        if name in source.sized:
            pieces[-1] += source.field(name)
        elif name in names.zeros:
            pieces[-1] += _zeros(name, names.zeros[name])
        else:
            pieces[-1] += data[begin:end]
    by_kind = {kind: tuple(pairs) for kind, pairs in slots.items()}
    return Cut(data[:start], tuple(pieces), by_kind, data[last:], unknown)


def _before_slot(field: bytes, slot: Slot, names: Names, biases: FloatBiases) -> bytes:
    """Returns the bytes of an initializer before the content of its slot."""
    from onnx import TensorProto

    if slot.kind.startswith("weight "):
        return b""  # the slot is the whole initializer, since its type depends on the bits
    if slot.kind == "bias quantized":
        return _head_of_32_bit(f"{slot.name}_quantized", biases[slot.name].shape, TensorProto.INT32)
    if slot.kind == "bias scale":
        shape = (names.zeros[f"{slot.name}_quantized_zero_point"],)
        return _head_of_32_bit(f"{slot.name}_quantized_scale", shape, TensorProto.FLOAT)
    if slot.kind == "float bias":
        return _head_of_32_bit(slot.name, biases[slot.name].shape, TensorProto.FLOAT)
    (_, _, content, end) = next(protobuf.fields(field, 0, len(field)))
    return field[: protobuf.span(field, content, end, protobuf.RAW_DATA)[0]]


def _zeros(name: str, n: int) -> bytes:
    from onnx import TensorProto

    return _head_of_32_bit(name, (n,) if n > 1 else (), TensorProto.INT32) + bytes(4 * n)


def _head_of_32_bit(name: str, shape: tuple[int, ...], kind: int) -> bytes:
    return initializer_head(name, shape, kind, 4 * math.prod(shape))
