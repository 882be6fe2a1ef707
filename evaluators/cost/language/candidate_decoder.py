"""The decoder of a candidate: the layers of a compressed network, which reads windows, in a decoder with a key-value cache."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.errors import EvaluationError
from spaces.models.layers import layers
from spaces.quantization.transformers.kv_cache import FLOAT_BITS, cache_bits, cached_operands, with_cache_bits

if TYPE_CHECKING:
    import onnx

_PREFIX = "candidate/"
_ROUNDING = ("DequantizeLinear", "QuantizeLinear", "Clip")  # from a layer's input backwards


def decoder_template(checkpoint: str | None) -> "onnx.ModelProto":
    """Returns the decoder of a checkpoint, whose weights `with_layers_of` replaces.

    Raises:
        EvaluationError: There is no checkpoint of llama2.c.
        InputError: It is missing, damaged or of another format.
    """
    from spaces.models.zoo.language.decoder import LlamaDecoder, export_decoder
    from spaces.models.zoo.language.llama import LlamaModel
    from spaces.models.zoo.language.llama2c import read_weights

    path = checkpoint_path(checkpoint)
    decoder = LlamaDecoder(LlamaModel(str(path)).sizes)
    decoder.load_state_dict(read_weights(path))
    return export_decoder(decoder.eval())


def checkpoint_path(checkpoint: str | None) -> Path:
    """Returns the path of a checkpoint of llama2.c. Raises EvaluationError if it is none by its name."""
    if checkpoint is None or not checkpoint.endswith(".bin"):
        raise EvaluationError(
            f"a decoder needs model=llama with a .bin file in model.checkpoint, not {checkpoint}"
        )
    return Path(checkpoint).expanduser()


def with_layers_of(candidate: "onnx.ModelProto", decoder: "onnx.ModelProto") -> "onnx.ModelProto":
    """Returns the decoder with the weights of a candidate, and with its rounding of the layers' weights and inputs and of the cache.

    What the candidate rounds elsewhere, e.g. between other operators, is float in the decoder.

    Raises:
        EvaluationError: The candidate lacks a layer, or has one of another form: not as Quantize and Dequantize nodes, in half
            precision, or of another shape.
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(decoder)
    nodes = {node.name: node for node in candidate.graph.node}
    source = _Source(candidate)
    of_weight = {layer.name: layer for layer in layers(made)}
    rebuilt: list[onnx.NodeProto] = []
    for node in made.graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        if node.op_type == "MatMul" and name in of_weight:
            theirs = nodes.get(name.removesuffix(".weight"))
            if theirs is None or theirs.op_type != "MatMul":
                raise EvaluationError(
                    f"the candidate has no layer {name} that is a MatMul: its decoder cannot be built"
                )
            rebuilt += source.rounded(node, theirs, name)
        rebuilt.append(node)
    del made.graph.node[:]
    made.graph.node.extend(rebuilt)
    _copy_weights(made, source)
    bits = cache_bits(candidate)
    return with_cache_bits(made, cached_operands(made, causal=False), bits) if bits != FLOAT_BITS else made


class _Source:
    """What a candidate's layers are made of."""

    def __init__(self, candidate: "onnx.ModelProto") -> None:
        self.initializers = {tensor.name: tensor for tensor in candidate.graph.initializer}
        self._producers = {output: node for node in candidate.graph.node for output in node.output}
        self.copied: dict[str, str] = {}  # names of constants by their names in the candidate

    def rounded(
        self, node: "onnx.NodeProto", theirs: "onnx.NodeProto", name: str
    ) -> "Iterator[onnx.NodeProto]":
        """Yields the nodes that round a layer's input and restore its weight, and lets the layer read them."""
        rounding = self._rounding_before(theirs.input[0])
        for i, part in enumerate(rounding):
            last = part is rounding[-1]
            output = f"{_PREFIX}{name}.input" + ("" if last else f".{i}")
            yield self._copy(part, node.input[0], output)
            node.input[0] = output
        restored = self._producers.get(theirs.input[1])
        if restored is not None:
            if not _is(restored, "DequantizeLinear") or restored.input[0] not in self.initializers:
                raise EvaluationError(
                    f"the weight of the candidate's layer {name} is no constant of integers: its decoder cannot be built"
                )
            yield self._copy(restored, self._constant(restored.input[0]), f"{_PREFIX}{name}")
            node.input[1] = f"{_PREFIX}{name}"

    def _rounding_before(self, tensor: str) -> "list[onnx.NodeProto]":
        """Returns the nodes that round a layer's input, in their order; below 8 bits, a Clip before them makes the integers saturate."""
        found: list[onnx.NodeProto] = []
        for op_type in _ROUNDING:
            node = self._producers.get(tensor)
            if not _is(node, op_type):
                break
            assert node is not None
            found.insert(0, node)
            tensor = node.input[0]
        return found if len(found) > 1 else []

    def _copy(self, node: "onnx.NodeProto", value: str, output: str) -> "onnx.NodeProto":
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name, copy.output[0], copy.input[0] = output, output, value
        for i, name in enumerate(node.input[1:], 1):
            copy.input[i] = self._constant(name)
        return copy

    def _constant(self, name: str) -> str:
        self.copied[name] = f"{_PREFIX}{name}"
        return self.copied[name]


def _copy_weights(made: "onnx.ModelProto", source: _Source) -> None:
    """Replaces float weights by the candidate's, removes those that are integers now, and adds these."""
    import onnx

    read = {name for node in made.graph.node for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in read]
    lacking = {name for name in source.initializers if name.endswith(".weight")} - {
        tensor.name for tensor in kept
    }
    if lacking:
        raise EvaluationError(f"the decoder has no weight {min(lacking)}, which the candidate has")
    for tensor in kept:
        theirs = source.initializers.get(tensor.name)
        if theirs is not None and "weight" in tensor.name:
            if [*theirs.dims] != [*tensor.dims]:
                raise EvaluationError(
                    f"{tensor.name} is {[*theirs.dims]} in the candidate, not {[*tensor.dims]}: a decoder of layers that were cut cannot be "
                    "built"
                )
            if theirs.data_type != tensor.data_type:
                have, want = (onnx.TensorProto.DataType.Name(t.data_type) for t in (theirs, tensor))
                raise EvaluationError(
                    f"{tensor.name} is {have} in the candidate, not {want}: a decoder computes in float32, so that of a candidate of another "
                    "precision cannot be built"
                )
            tensor.CopyFrom(theirs)
    for name, copied in source.copied.items():
        constant = source.initializers[name]
        kept.append(type(constant)())
        kept[-1].CopyFrom(constant)
        kept[-1].name = copied
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)


def _is(node: "onnx.NodeProto | None", op_type: str) -> bool:
    return node is not None and node.op_type == op_type
