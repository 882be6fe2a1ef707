"""Takes the tool's file apart: what in it follows from the grids, and what is the same for all candidates."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from spaces.models.onnx import protobuf_encoding as protobuf
from spaces.quantization.plan.bias_correction import bias_name
from spaces.quantization.plan.plan import Plan
from spaces.quantization.plan.source import Source
from spaces.quantization.qdq.slots import FloatBiases, Place, before_numbers

_ACTIVATION = ("scale", "zero_point")
_WEIGHT = ("quantized", "scale", "zero_point")


@dataclass(frozen=True)
class Names:
    """What the initializers of the tool's file are.

    Attributes:
        places: Those that follow from the plan.
        own: Those of the float model.
        zeros: The zero points of int32 biases, and how many there are of each.
    """

    places: Mapping[str, Place]
    own: frozenset[str]
    zeros: Mapping[str, int]


def names_of(source: Source, plan: Plan, corrected: FloatBiases | None) -> Names | None:
    """Reads off the plan what the initializers will be; None if two of them would have the same name."""
    own = source.initializers
    scales = {
        bias_name(layer): plan.weights[layer.name].scale.size
        for layer in source.network.layers
        if layer.name in plan.weights
    }
    places = [
        *((f"{t}_{part}", Place(f"activation {part}", t)) for t in plan.activations for part in _ACTIVATION),
        *((f"{w}_{part}", Place(f"weight {part}", w)) for w in plan.weights for part in _WEIGHT),
        *((f"{b}_quantized", Place("bias quantized", b)) for b in scales),
        *((f"{b}_quantized_scale", Place("bias scale", b)) for b in scales),
    ]
    zeros = {f"{b}_quantized_zero_point": n for b, n in scales.items()}
    found = dict(places)
    if len(found) < len(places) or own & (found.keys() | zeros.keys()) or found.keys() & zeros.keys():
        return None
    if corrected is not None:
        found |= {b: Place("float bias", b) for b in corrected}
    return Names(found, own, zeros)


@dataclass(frozen=True)
class Cut:
    """A file in pieces.

    Attributes:
        before: The bytes before the graph.
        graph: The pieces of the graph; a hole is empty.
        slots: For each kind of hole, where in `graph` it is and what its number is named after.
        after: The bytes after the graph.
        unknown: Initializers that the tool has made of something else than the plan: name to bytes.
    """

    before: bytes
    graph: tuple[bytes, ...]
    slots: Mapping[str, tuple[tuple[int, str], ...]]
    after: bytes
    unknown: Mapping[str, bytes]


def cut(data: bytes, names: Names, source: Source, biases: FloatBiases) -> Cut:
    """Cuts a file at its holes, for the numbers of a source.

    Args:
        data: The tool's file of this source, or of its outline.
        names: What the initializers are.
        source: Its weights and biases take the places of those in the file.
        biases: Its biases, corrected if that is asked for.

    Raises:
        ValueError: The file is no ONNX model.
    """
    pieces = [b""]
    slots, unknown = dict[str, list[tuple[int, str]]](), dict[str, bytes]()
    _, start, first, last = next(f for f in protobuf.fields(data, 0, len(data)) if f[0] == protobuf.GRAPH)
    for number, begin, content, end in protobuf.fields(data, first, last):
        name = (
            protobuf.text(data, content, end, protobuf.TENSOR_NAME) if number == protobuf.INITIALIZER else ""
        )
        place = names.places.get(name)
        if place is not None:
            pieces[-1] += _before_slot(data[begin:end], place, names, biases)
            slots.setdefault(place.kind, []).append((len(pieces), place.name))
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
    rows = {kind: tuple(found) for kind, found in slots.items()}
    return Cut(data[:start], tuple(pieces), rows, data[last:], unknown)


def _before_slot(field: bytes, place: Place, names: Names, biases: FloatBiases) -> bytes:
    """Returns what stands before the numbers of an initializer."""
    from onnx import TensorProto

    if place.kind.startswith("weight "):
        return b""  # all of it is a hole, for its type follows from its bits
    if place.kind == "bias quantized":
        return _before_words(f"{place.name}_quantized", biases[place.name].shape, TensorProto.INT32)
    if place.kind == "bias scale":
        shape = (names.zeros[f"{place.name}_quantized_zero_point"],)
        return _before_words(f"{place.name}_quantized_scale", shape, TensorProto.FLOAT)
    if place.kind == "float bias":
        return _before_words(place.name, biases[place.name].shape, TensorProto.FLOAT)
    (_, _, content, end) = next(protobuf.fields(field, 0, len(field)))
    return field[: protobuf.span(field, content, end, protobuf.RAW_DATA)[0]]


def _zeros(name: str, n: int) -> bytes:
    from onnx import TensorProto

    return _before_words(name, (n,) if n > 1 else (), TensorProto.INT32) + bytes(4 * n)


def _before_words(name: str, shape: tuple[int, ...], kind: int) -> bytes:
    return before_numbers(name, shape, kind, 4 * math.prod(shape))
