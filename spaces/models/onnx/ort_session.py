"""Opening ONNX models in onnxruntime: the settings that all sessions share, in one place."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

CPU = "CPUExecutionProvider"


def ort_session(
    model: "bytes | onnx.ModelProto",
    threads: int = 1,
    optimize: bool = True,
    provider: str = CPU,
    **options: object,
) -> "ort.InferenceSession":
    """Loads a model, with settings under which it always computes the same.

    Args:
        model: The model, serialized or not.
        threads: Threads within an operator; operators run one after the other. 0 takes every core.
        optimize: False keeps every node and every tensor of the file as it is.
        provider: onnxruntime's name of what executes the model.
        options: Further attributes of `onnxruntime.SessionOptions`, such as `enable_cpu_mem_arena` or
            `log_severity_level`, which is 4 by default: errors come as exceptions and need no log.

    Raises:
        Exception: onnxruntime cannot load the model; its exceptions share no base of their own.
    """
    import onnxruntime as ort

    found = ort.SessionOptions()
    found.intra_op_num_threads = threads
    found.inter_op_num_threads = 1
    found.log_severity_level = 4
    if threads > 1:  # idle threads of one session must not take the cores from another
        found.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimize:
        found.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, value in options.items():
        setattr(found, name, value)
    serialized = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(serialized, found, providers=[provider])
