"""What an ONNX file says of its packed weights, and how many bytes it would have with them.

A file holds weights in the types that onnxruntime runs: 3-bit integers in INT4, 5-bit integers in INT8, and the weights of
formats without an ONNX type as floats. Its metadata says how many bytes each of them really has: one entry, `paredown.weights`, of
JSON, by layer. Weights that recovery trained to fit a format count as packed, too; see `spaces.models.weight_formats`. A stage that makes a file of
another takes their records away before its work, and adds those that still hold afterwards: each tensor counts once, by its last format.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spaces.errors import InputError, unknown_name
from spaces.models.weight_formats import KEY as TRAINED_KEY
from spaces.models.weight_formats import trained_formats
from spaces.quantization.formats.packing.bit_packing import n_packed_bytes
from spaces.quantization.formats.ternary import Ternary

if TYPE_CHECKING:
    import onnx

KEY = "paredown.weights"
SIMULATED = "paredown.simulated"
SIMULATING = "paredown.integer"
"""Domain of the functions that spell out in standard operators what a kernel computes."""
_TRAINED = {
    form.name: form for form in (Ternary(scale_dtype="float32"),)
}  # which recovery trains weights to fit


@dataclass(frozen=True)
class StoredWeight:
    """How a layer's weight is stored.

    Attributes:
        packed_bytes: Bytes of its packed form.
        initializers: The file's tensors that hold it, which the packed form replaces.
        format: Name of the format.
        options: The format's options.
        simulated: Whether the file holds decoded floats, because plain onnxruntime has no kernel for the format: then its
            time on this machine says nothing about the format's.
    """

    packed_bytes: int
    initializers: tuple[str, ...]
    format: str = "uniform"
    options: Mapping[str, Any] = field(default_factory=dict)
    simulated: bool = False


def record_stored(proto: "onnx.ModelProto", weights: Mapping[str, StoredWeight]) -> None:
    """Adds weights, by layer, to a model's metadata, in place."""
    merged = _recorded_weights(proto) | dict(weights)
    text = json.dumps({name: asdict(weight) for name, weight in merged.items()}, sort_keys=True)
    for entry in proto.metadata_props:
        if entry.key == KEY:
            entry.value = text
            return
    proto.metadata_props.add(key=KEY, value=text)


def record_widths(proto: "onnx.ModelProto", widths: Mapping[str, int]) -> None:
    """Adds the true widths of integers that are stored in wider types, in place; scales and zero points stay as they are.

    Args:
        proto: A quantized model.
        widths: Name of the integers' initializer to the bits of an integer.

    Raises:
        InputError: The model has no such initializer.
    """
    sizes = {i.name: _n_elements(i) for i in proto.graph.initializer}
    for name in widths:
        if name not in sizes:
            raise InputError(unknown_name("initializer", name, sizes, "the widths of packed weights"))
    record_stored(
        proto,
        {
            name: StoredWeight(n_packed_bytes(sizes[name], bits), (name,), options={"bits": bits})
            for name, bits in widths.items()
        },
    )


def stored_weights(proto: "onnx.ModelProto") -> dict[str, StoredWeight]:
    """Returns the weights in packed form by layer, those that were trained to fit a format included; empty where none is recorded.

    Raises:
        InputError: An entry is damaged.
    """
    trained = {
        name: StoredWeight(_trained(form).n_bytes(shape), (name,), form, simulated=True)
        for name, (form, shape) in trained_formats(proto).items()
    }
    return trained | _recorded_weights(proto)


def _trained(form: str) -> Ternary:
    if form not in _TRAINED:
        raise InputError(unknown_name("format", form, _TRAINED, f"the model's metadata {TRAINED_KEY!r}"))
    return _TRAINED[form]


def _recorded_weights(proto: "onnx.ModelProto") -> dict[str, StoredWeight]:
    text = next((entry.value for entry in proto.metadata_props if entry.key == KEY), "{}")
    try:
        entries = json.loads(text)
        return {
            name: StoredWeight(**{**entry, "initializers": tuple(entry["initializers"])})
            for name, entry in entries.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"the model's metadata {KEY!r} is damaged: {error}") from error


def packed_bytes(model: bytes) -> int:
    """Returns the bytes of a serialized ONNX model with its recorded weights in packed form.

    That is the file's size, less the data of the tensors that hold these weights, plus their packed bytes, and less the bodies of functions that a
    kernel stands for. Names, shapes, the graph and all other tensors count as in the file; a file without records has its own size.

    Raises:
        InputError: The records are damaged, or name a tensor that the file lacks.
    """
    if not _has_records(model):
        return len(model)
    import onnx

    proto = onnx.load_model_from_string(model)
    sizes = {i.name: _data_bytes(i) for i in proto.graph.initializer}
    total = len(model) - sum(int(f.ByteSize()) for f in proto.functions if f.domain == SIMULATING)
    return total + sum(packed_tensor_bytes(proto, sizes).values()) - sum(sizes.values())


def packed_tensor_bytes(proto: "onnx.ModelProto", sizes: Mapping[str, int]) -> dict[str, int]:
    """Returns the bytes of a model's tensors, where those of a recorded weight have its packed bytes together.

    Args:
        proto: The model.
        sizes: Name of each initializer to its bytes in the file.

    Raises:
        InputError: The records are damaged, or name a tensor that the file lacks.
    """
    found = dict(sizes)
    for layer, weight in stored_weights(proto).items():
        for name in weight.initializers:
            if name not in sizes:
                raise InputError(f"the model's metadata {KEY!r}: {layer} has no tensor {name!r}")
        found |= dict.fromkeys(weight.initializers, 0) | {weight.initializers[0]: weight.packed_bytes}
    return found


def without_records(proto: "onnx.ModelProto") -> None:
    """Takes the records of packed weights out of a model, in place, before a stage changes weights."""
    for i in reversed(range(len(proto.metadata_props))):
        if proto.metadata_props[i].key in (KEY, TRAINED_KEY):
            del proto.metadata_props[i]


def with_records_of(made: bytes, source: bytes) -> bytes:
    """Returns a serialized model with the records of the one that it was made from, as far as they still hold.

    A record holds if all its tensors are in the new model with the same values, which may be cast to another type, and no record of the new
    model's own is about one of them.
    """
    if not any(key.encode() in source for key in (KEY, TRAINED_KEY)):
        return made
    import onnx
    from onnx import numpy_helper

    proto, before = onnx.load_model_from_string(made), onnx.load_model_from_string(source)
    ours, theirs = ({i.name: i for i in p.graph.initializer} for p in (proto, before))
    taken = {name for weight in stored_weights(proto).values() for name in weight.initializers}

    def same(name: str) -> bool:
        if name in taken or name not in ours:
            return False
        new, old = numpy_helper.to_array(ours[name]), numpy_helper.to_array(theirs[name])
        return new.shape == old.shape and np.array_equal(new, old.astype(new.dtype))

    holding = {layer: w for layer, w in stored_weights(before).items() if all(map(same, w.initializers))}
    if holding:
        record_stored(proto, holding)
    return bytes(proto.SerializeToString(deterministic=True))


def _has_records(model: bytes) -> bool:
    """Whether a serialized model may have records, which parsing a large file would take long to find."""
    return any(key.encode() in model for key in (KEY, TRAINED_KEY, SIMULATED))


def record_simulated(proto: "onnx.ModelProto", nodes: Mapping[str, str]) -> None:
    """Adds, in place, layers and other nodes whose arithmetic only simulates a kernel, each with the knob's value that asks for it."""
    text = json.dumps(_recorded_nodes(proto) | dict(nodes), sort_keys=True)
    for entry in proto.metadata_props:
        if entry.key == SIMULATED:
            entry.value = text
            return
    proto.metadata_props.add(key=SIMULATED, value=text)


def simulated_layers(model: bytes) -> dict[str, str]:
    """Returns the layers of a serialized model that only simulate what they stand for, each with what that is.

    Their weights are decoded floats (`weight_format=gwq`), their inputs are rounded to a width without a kernel (`activation_bits=4`), or
    standard operators compute what an integer kernel would (`integer_functions=true`).

    Raises:
        InputError: The records are damaged.
    """
    if not _has_records(model):
        return {}
    import onnx

    proto = onnx.load_model_from_string(model)
    weights = {layer: w for layer, w in stored_weights(proto).items() if w.simulated}
    return _recorded_nodes(proto) | {
        layer: f"weight_format={weight.format}" for layer, weight in weights.items()
    }


def _recorded_nodes(proto: "onnx.ModelProto") -> dict[str, str]:
    text = next((entry.value for entry in proto.metadata_props if entry.key == SIMULATED), "{}")
    try:
        return {str(node): str(what) for node, what in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"the model's metadata {SIMULATED!r} is damaged: {error}") from error


def simulated_text(layers: Mapping[str, str]) -> str:
    """Returns why a model with simulated layers, as `simulated_layers` gives them, has no latency."""
    first, what = next(iter(layers.items()))
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return f"the file computes {first}{more} in standard operators, which simulates {what}; the time is not that of such a kernel"


def _n_elements(tensor: "onnx.TensorProto") -> int:
    n = 1
    for size in tensor.dims:
        n *= size
    return n


def _data_bytes(tensor: "onnx.TensorProto") -> int:
    """Returns the bytes of a tensor's values in the file."""
    import onnx

    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    bare = onnx.TensorProto()
    bare.CopyFrom(tensor)
    for name in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        bare.ClearField(name)
    return int(tensor.ByteSize() - bare.ByteSize())
