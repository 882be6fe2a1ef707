"""Checks, once before the first trial, that the model fits the task."""

import numpy as np

from evaluators.runtime import fixed_batch, open_session, run_session
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import EvaluationError, InputError
from spaces.stages.artifact import Artifact

BATCH_SIZE = 8


def check_fit(artifact: Artifact, task: Task, splits: Splits) -> None:
    """Checks shapes and sizes, and runs the float model on the first validation examples.

    Args:
        artifact: The exported float model.
        task: The task.
        splits: Its splits.

    Raises:
        InputError: The input shapes differ, the model cannot run, its batch is not free, it has too few outputs for
            the task's classes, or its outputs are not finite. The message states both numbers.
    """
    if artifact.input.shape != task.input_shape:
        raise InputError(
            f"the model takes inputs of shape {artifact.input.shape} (model.input_shape), but the task yields "
            f"{task.input_shape} (task.input_shape){_hint(artifact.input.shape, task.input_shape)}"
        )
    if len(splits.calibration) == 0:
        raise InputError("the calibration split has no examples (task.calibration); at least 1 is needed")
    inputs, _ = next(iter(splits.validation.batches(BATCH_SIZE)), (None, None))
    if inputs is None:
        raise InputError("the validation split has no examples (task.validation); at least 1 is needed")
    outputs = _outputs(artifact, inputs)
    if outputs.ndim != 2 or len(outputs) != len(inputs):
        raise InputError(
            f"the model yields {outputs.shape} for {len(inputs)} examples; one row of outputs for each is needed"
        )
    if outputs.shape[1] < task.n_classes:
        raise InputError(
            f"the model has {outputs.shape[1]} outputs, but the task has {task.n_classes} classes (task.n_classes)"
        )
    if not np.isfinite(outputs).all():
        raise InputError("the float model's outputs are not finite (NaN or infinite) on validation examples")


def _outputs(artifact: Artifact, inputs: "np.ndarray") -> "np.ndarray":
    try:
        session = open_session(artifact.onnx_bytes, threads=1)
        size = fixed_batch(session)
        if size is not None:
            raise InputError(
                f"the model takes batches of {size} only; export it with a free (dynamic) batch axis"
            )
        return run_session(session, inputs, [session.get_outputs()[0].name])[0]
    except EvaluationError as error:
        raise InputError(f"the float model does not work on the task's inputs: {error}") from error


def _hint(model: tuple[int, ...], task: tuple[int, ...]) -> str:
    if model == (*task[1:], task[0]):
        return ". Set task.layout=NHWC if the task has a layout"
    if task == (*model[1:], model[0]):
        return ". Set task.layout=NCHW if the task has a layout"
    return ""
