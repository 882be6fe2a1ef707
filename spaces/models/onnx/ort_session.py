"""Opens ONNX models in onnxruntime, with the settings that all sessions share."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spaces.errors import InputError
from spaces.stages.artifact import InputSpec, TensorSpec

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

CPU = "CPUExecutionProvider"
_DTYPES = {"float": "float32", "double": "float64"}  # types that onnxruntime names otherwise than numpy


def ort_session(
    model: "bytes | onnx.ModelProto",
    threads: int = 1,
    optimize: bool = True,
    provider: str = CPU,
    entries: Mapping[str, str] | None = None,
    **options: object,
) -> "ort.InferenceSession":
    """Loads a model, with settings under which its outputs are reproducible.

    Args:
        model: The model, serialized or not.
        threads: Threads within an operator; operators run one after the other. 0 uses every core.
        optimize: False disables graph optimization, which keeps every node and tensor of the file.
        provider: Name of onnxruntime's execution provider.
        entries: Entries of onnxruntime's session configuration.
        options: Further attributes of `onnxruntime.SessionOptions`, such as `enable_cpu_mem_arena` or
            `log_severity_level`, which is 4 by default: errors are raised as exceptions.

    Raises:
        Exception: onnxruntime cannot load the model; its exceptions have no common base class.
    """
    import onnxruntime as ort

    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = 4
    if threads > 1:  # otherwise idle threads of a session spin and slow down other sessions
        session_options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, value in (entries or {}).items():
        session_options.add_session_config_entry(key, value)
    if not optimize:
        session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, option in options.items():
        setattr(session_options, name, option)
    serialized = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(serialized, session_options, providers=[provider])


def declared_inputs(session: "ort.InferenceSession") -> InputSpec:
    """Returns a session's inputs; a dynamic size of an example is 0.

    Raises:
        InputError: The model has no input, or one that is no tensor of numbers.
    """
    specs = []
    for value in session.get_inputs():
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        if kind == value.type or kind in ("string", "bfloat16"):
            raise InputError(f"the model's input {value.name!r} must hold numbers, but is a {value.type}")
        shape = tuple(size if isinstance(size, int) else 0 for size in value.shape[1:])
        specs.append(TensorSpec(shape, value.name, _DTYPES.get(kind, kind)))
    if not specs:
        raise InputError("the model has no input")
    first = specs[0]
    return InputSpec(first.shape, first.name, first.dtype, others=tuple(specs[1:]))
