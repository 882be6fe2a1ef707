"""Half precision: weights and activations in float16, through onnxruntime's converter.

Inputs and outputs stay float32, with a Cast at either end. onnxruntime's CPU computes most float16 operators in float32, with more
casts between them, so there the file is half as large but not faster.
"""

import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from spaces.errors import StageError
from spaces.models.layers import layer_names, layers, recurrent_layers

if TYPE_CHECKING:
    import onnx


def to_float16(proto: "onnx.ModelProto", keep_float: Collection[str] = ()) -> "onnx.ModelProto":
    """Returns a float model in half precision.

    Args:
        proto: A checked float32 model.
        keep_float: Layers, by the names of their weights, that stay float32.

    Raises:
        StageError: A layer's weight is beyond float16, or the model cannot be converted.
    """
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    _check_range(proto, keep_float)
    found = (*layers(proto), *recurrent_layers(proto))
    kept = [layer.node for layer in found if layer.name in keep_float]
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for every tensor with a value that becomes 0
            made: onnx.ModelProto = convert_float_to_float16(copied, keep_io_types=True, node_block_list=kept)
        ONNXModel(made).topological_sort()  # the converter puts the casts of inputs last
        onnx.checker.check_model(made, full_check=True)
    except Exception as error:  # the converter and the checker raise errors of any type
        raise StageError(
            f"onnxruntime's converter cannot make a float16 model of this one: {error}"
        ) from error
    return made


def _check_range(proto: "onnx.ModelProto", keep_float: Collection[str]) -> None:
    """Raises StageError if a layer's weight is too large; of other constants, e.g. of a mask, the converter limits the values."""
    from onnx import numpy_helper

    names, most = set(layer_names(proto)).difference(keep_float), float(np.finfo(np.float16).max)
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
            if largest > most:
                raise StageError(
                    f"precision=float16: the weight {tensor.name} has a value of {largest:.3g}, but float16 ends at {most:.0f}"
                )
