"""The size of an ONNX file, as it is and with packed weights."""

from evaluators.base import Measurement
from spaces.quantization.formats.stored import packed_bytes
from spaces.stages.artifact import Artifact


def sizes_of(artifact: Artifact) -> tuple[Measurement, Measurement]:
    """Returns `file_bytes` and `packed_bytes` of an ONNX artifact."""
    model = artifact.onnx_bytes
    return (
        Measurement("file_bytes", len(model), "bytes", "measured"),
        Measurement("packed_bytes", packed_bytes(model), "bytes", "measured"),
    )
