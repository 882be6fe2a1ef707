"""Which output of a model a task judges, and how it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from evaluators.task.tasks.task import Task
from spaces.errors import ConfigError, InputError
from spaces.stages.output_spec import Binary, OutputSpec, squeezed_size

if TYPE_CHECKING:
    import onnx

Outputs = Mapping[str, NDArray[Any]]

# Operators that change no value, so that a network that ends in them ends in the one before.
_PASS_ON = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast"}


@dataclass(frozen=True)
class Choice:
    """The output that is judged.

    Attributes:
        name: Its name.
        size: Number of values per example.
        why: Why it was taken, if there was a choice; else empty.
    """

    name: str
    size: int
    why: str = ""


def choose_output(task: Task, outputs: Outputs, n: int) -> Choice:
    """Returns the output that `task.output` names; without a name the first, or the only one whose shape fits.

    An output with one value per class fits better than one with more.

    Args:
        task: The task.
        outputs: The model's outputs on `n` examples, in the file's order.
        n: Number of examples.

    Raises:
        ConfigError: The model has no output of that name.
        InputError: No output has a value per class for each example, or several could be meant.
    """
    if task.output is not None:
        if task.output not in outputs:
            raise ConfigError(f"task.output: the model has no output {task.output!r}, but {_listed(outputs)}")
        return Choice(task.output, _size(task, outputs[task.output], n))
    first = next(iter(outputs))
    if len(outputs) == 1:
        return Choice(first, _size(task, outputs[first], n))
    sizes = {name: _size(task, a, n) for name, a in outputs.items() if _misfit(task, a, n) is None}
    exact = [name for name, size in sizes.items() if size <= task.n_classes]
    for names, why in ((exact, "has one value per class"), ([*sizes], "fits the task")):
        if first in names:
            return Choice(first, sizes[first], "it is the first")
        if len(names) == 1:
            return Choice(names[0], sizes[names[0]], f"no other one {why}")
    raise InputError(
        f"the model has {len(outputs)} outputs, {_listed(outputs)} for {n} examples, and "
        f"{'several' if sizes else 'none'} of them could hold the task's {task.n_classes} classes; "
        "name the one to judge with task.output"
    )


def spec_of(task: Task, choice: Choice, proto: "onnx.ModelProto") -> OutputSpec:
    """Returns how the chosen output is read."""
    names = [output.name for output in proto.graph.output]
    binary: Binary | None = None
    if choice.size < task.n_classes:
        binary = "probability" if _last_operator(proto, choice.name) == "Sigmoid" else "logit"
    return OutputSpec(choice.name, names.index(choice.name), binary)


def notes_of(choice: Choice, spec: OutputSpec, outputs: Outputs) -> tuple[str, ...]:
    """Returns remarks on what was taken."""
    notes = []
    if choice.why:
        others = ", ".join(name for name in outputs if name != choice.name)
        notes.append(
            f"the model has {len(outputs)} outputs: {choice.name} is judged, because {choice.why}; task.output names "
            f"another one ({others})"
        )
    if spec.binary is not None:
        reading = (
            "0.5, since it ends in a Sigmoid"
            if spec.binary == "probability"
            else "0, since it ends in no Sigmoid"
        )
        notes.append(
            f"the model has one output for two classes: class 1 is where {choice.name} is above {reading}"
        )
    return tuple(notes)


def _size(task: Task, output: NDArray[Any], n: int) -> int:
    """Returns the number of values per example. Raises InputError if they do not fit the task."""
    reason = _misfit(task, output, n)
    size = squeezed_size(output.shape, n)
    if reason is not None or size is None:
        raise InputError(reason)
    return size


def _misfit(task: Task, output: NDArray[Any], n: int) -> str | None:
    size = squeezed_size(output.shape, n)
    if size is None:
        return f"the model yields {output.shape} for {n} examples; one row of outputs for each is needed"
    if size >= task.n_classes or (size == 1 and task.n_classes == 2 and output.dtype.kind == "f"):
        return None
    return f"the model has {size} outputs, but the task has {task.n_classes} classes (task.n_classes)"


def _listed(outputs: Outputs) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in outputs.items())


def _last_operator(proto: "onnx.ModelProto", name: str) -> str | None:
    """Returns the type of the operator that computes an output's values; None if it is an input of the graph."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    while (node := makers.get(name)) is not None and node.op_type in _PASS_ON:
        name = node.input[0]
    return None if node is None else str(node.op_type)
