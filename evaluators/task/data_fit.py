"""Checks, once before the first trial, that the model fits the task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.runtime import fixed_batch, open_session, run_session
from evaluators.task.output_choice import choose_output, notes_of, spec_of
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import EvaluationError, InputError
from spaces.stages.artifact import Artifact
from spaces.stages.inputs import Inputs, n_rows
from spaces.stages.output_spec import OutputSpec

BATCH_SIZE = 8


@dataclass(frozen=True)
class Fit:
    """How a model serves a task.

    Attributes:
        output: The output that is judged.
        notes: Remarks on what was taken.
    """

    output: OutputSpec
    notes: tuple[str, ...] = ()


def check_fit(artifact: Artifact, task: Task, splits: Splits) -> Fit:
    """Checks shapes and sizes, runs the float model on the first validation examples, and chooses the output to judge.

    Args:
        artifact: The exported float model.
        task: The task.
        splits: Its splits.

    Raises:
        InputError: The input shapes differ, the model cannot run, its batch is not free, it has too few outputs for
            the task's classes, or its outputs are not finite. The message states both numbers.
        ConfigError: `task.output` names no output of the model.
    """
    _check_shapes(artifact, task)
    if len(splits.calibration) == 0:
        raise InputError("the calibration split has no examples (task.calibration); at least 1 is needed")
    inputs, _ = next(iter(splits.validation.batches(BATCH_SIZE)), (None, None))
    if inputs is None:
        raise InputError("the validation split has no examples (task.validation); at least 1 is needed")
    read = OutputSpec(batch_axis=task.output_batch_axis)
    outputs = {name: read.batch_first(array) for name, array in _outputs(artifact, inputs).items()}
    if not outputs:
        raise InputError("none of the model's outputs is a tensor")
    choice = choose_output(task, outputs, n_rows(inputs))
    if not all(np.isfinite(outputs[name]).all() for name in choice.names):
        raise InputError("the float model's outputs are not finite (NaN or infinite) on validation examples")
    spec = spec_of(task, choice, artifact.proto())
    return Fit(spec, notes_of(choice, spec, outputs))


def _check_shapes(artifact: Artifact, task: Task) -> None:
    spec, given = artifact.input, task.input_shape
    setting = " (task.input_shape)" if task.data_settings == "task" else ""  # loaders state none, or another
    if not isinstance(given, Mapping):
        if spec.others:
            names = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in spec.tensors)
            raise InputError(
                f"the model has several inputs, {names}, but the task yields one array of shape {given}; {task.data_settings}.input_shape "
                "takes a mapping of names to shapes"
            )
        given = {spec.name: given}
    wanted = {tensor.name: tensor.shape for tensor in spec.tensors}
    if wanted.keys() != given.keys():
        raise InputError(
            f"the model has the inputs {', '.join(wanted)}, but the task yields {', '.join(given)}{setting}"
        )
    for name, shape in wanted.items():
        if shape != given[name]:
            which = f"the input {name}" if spec.others else "inputs"
            raise InputError(
                f"the model takes {which} of shape {shape} (model.input_shape), but the task yields "
                f"{given[name]}{setting}{_hint(shape, given[name], task.data_settings)}"
            )


def _outputs(artifact: Artifact, inputs: Inputs) -> dict[str, NDArray[Any]]:
    try:
        session = open_session(artifact.onnx_bytes, threads=1)
        size = fixed_batch(session)
        if size is not None:
            raise InputError(
                f"the model takes batches of {size} only; export it with a free (dynamic) batch axis"
            )
        names = [output.name for output in session.get_outputs()]
        values = run_session(session, inputs, names)
        # an output may be a sequence or a map, which no metric takes
        return {name: v for name, v in zip(names, values, strict=True) if isinstance(v, np.ndarray)}
    except EvaluationError as error:
        raise InputError(f"the float model does not work on the task's inputs: {error}") from error


def _hint(model: tuple[int, ...], task: tuple[int, ...], where: str) -> str:
    if model == (*task[1:], task[0]):
        return f". Set {where}.layout=NHWC if there is such a key"
    if task == (*model[1:], model[0]):
        return f". Set {where}.layout=NCHW if there is such a key"
    return ""
