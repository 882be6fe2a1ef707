"""The float operators that simulated functions stand for: what a cost model counts."""

from typing import TYPE_CHECKING

from spaces.quantization.formats.stored import SIMULATING
from spaces.quantization.transformers.kv_cache import CACHES

if TYPE_CHECKING:
    import onnx


def name_float_operators(proto: "onnx.ModelProto") -> None:
    """Gives the nodes of simulated functions, in place, the operators that they stand for; storing keys and values is none.

    The bodies compute in 64 bits what a kernel would keep in registers, so that their tensors say nothing about its memory. The result
    is read, not run: Gelu may be newer than the model's opset.
    """
    for node in proto.graph.node:
        if node.domain == SIMULATING:
            node.domain = ""
            node.op_type = "Identity" if node.op_type in CACHES else node.op_type
            del node.attribute[:]
    kept = [function for function in proto.functions if function.domain != SIMULATING]
    del proto.functions[:]
    proto.functions.extend(kept)
