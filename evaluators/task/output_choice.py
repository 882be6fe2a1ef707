"""Which output of a model a task judges, and how it is read."""

from collections.abc import Mapping, Sequence
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
    """The outputs that are judged.

    Attributes:
        names: Their names.
        size: Number of values per example of the only one, where it is one row per example; else None.
        why: Why it was taken, if there was a choice; else empty.
    """

    names: tuple[str, ...]
    size: int | None
    why: str = ""

    @property
    def name(self) -> str:
        """The name of the first."""
        return self.names[0]


def choose_output(task: Task, outputs: Outputs, n: int) -> Choice:
    """Returns the outputs that `task.output` names; without names the first, or the only one whose shape fits.

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
        return _named(task, [task.output] if isinstance(task.output, str) else [*task.output], outputs, n)
    first = next(iter(outputs))
    if len(outputs) == 1:
        return Choice((first,), _checked(task, outputs[first], n))
    fitting = {
        name: squeezed_size(a.shape, n) or 0 for name, a in outputs.items() if task.misfit(a, n) is None
    }
    exact = [
        name for name, size in fitting.items() if not task.whole_outputs and size <= (task.n_classes or 1)
    ]
    for names, why in ((exact, "has one value per class"), ([*fitting], "fits the task")):
        if first in names:
            return Choice((first,), fitting[first], "it is the first")
        if len(names) == 1:
            return Choice((names[0],), fitting[names[0]], f"no other one {why}")
    judged = f"hold the task's {task.n_classes} classes" if task.n_classes else "be judged"
    raise InputError(
        f"the model has {len(outputs)} outputs, {_listed(outputs)} for {n} examples, and "
        f"{'several' if fitting else 'none'} of them could {judged}; name the one to judge with task.output"
    )


def _named(task: Task, names: Sequence[str], outputs: Outputs, n: int) -> Choice:
    for name in names:
        if name not in outputs:
            raise ConfigError(f"task.output: the model has no output {name!r}, but {_listed(outputs)}")
    if len(names) != 1 and not task.whole_outputs:
        raise ConfigError(f"task.output: {type(task).__name__} judges one output, not {len(names)}")
    sizes = [_checked(task, outputs[name], n) for name in names]
    return Choice(tuple(names), sizes[0] if len(sizes) == 1 else None)


def spec_of(task: Task, choice: Choice, proto: "onnx.ModelProto") -> OutputSpec:
    """Returns how the chosen outputs are read."""
    names = [output.name for output in proto.graph.output]
    positions = tuple(names.index(name) for name in choice.names)
    if task.whole_outputs:
        return OutputSpec(
            choice.name,
            positions[0],
            whole=True,
            further=choice.names[1:],
            further_positions=positions[1:],
            batch_axis=task.output_batch_axis,
        )
    binary: Binary | None = None
    if choice.size is not None and task.n_classes is not None and choice.size < task.n_classes:
        binary = "probability" if last_operator(proto, choice.name) == "Sigmoid" else "logit"
    return OutputSpec(choice.name, positions[0], binary)


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


def _checked(task: Task, output: NDArray[Any], n: int) -> int | None:
    """Returns the number of values per example, if that is one row. Raises InputError if the output does not fit the task."""
    if (reason := task.misfit(output, n)) is not None:
        raise InputError(reason)
    return squeezed_size(output.shape, n)


def _listed(outputs: Outputs) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in outputs.items())


def last_operator(proto: "onnx.ModelProto", name: str) -> str | None:
    """Returns the type of the operator that computes an output's values; None if it is an input of the graph."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    while (node := makers.get(name)) is not None and node.op_type in _PASS_ON:
        name = node.input[0]
    return None if node is None else str(node.op_type)
