"""The size of an ONNX file, as it is and with packed weights."""

from math import prod

from evaluators.base import Measurement
from spaces.models.weight_formats import recorded_formats
from spaces.quantization.formats.stored import packed_bytes
from spaces.quantization.formats.ternary import Ternary
from spaces.stages.artifact import Artifact

_TRAINED = {"ternary": Ternary(scale_dtype="float32")}  # formats that recovery trains weights to fit
_FLOAT_BYTES = 4


def sizes_of(artifact: Artifact) -> tuple[Measurement, Measurement]:
    """Returns `file_bytes` and `packed_bytes` of an ONNX artifact."""
    model = artifact.onnx_bytes
    saved = sum(
        _FLOAT_BYTES * prod(shape) - trained_bytes(form, shape)
        for form, shape in recorded_formats(model).values()
    )
    return (
        Measurement("file_bytes", len(model), "bytes", "measured"),
        Measurement("packed_bytes", packed_bytes(model) - saved, "bytes", "measured"),
    )


def trained_bytes(form: str, shape: tuple[int, ...]) -> int:
    """Returns the packed bytes of a weight that was trained to fit a format."""
    return _TRAINED[form].n_bytes(shape)
