"""The interface of data loaders: a loader reads files, or makes examples, for any task."""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from evaluators.task.data.named_split import NamedSplit
from spaces.stages.array_split import Indices
from spaces.stages.artifact import Split
from spaces.stages.inputs import Inputs

CONFIG_PATH = "task.data"  # of the section with a loader's settings, for messages


class ExampleSplit(Split, Protocol):
    """A split that can be divided."""

    @property
    def labels(self) -> NDArray[Any]:
        """The labels of all examples, `(n, ...)`."""

    def subset(self, indices: Indices) -> "ExampleSplit":
        """Returns these examples, in this order."""


@dataclass(frozen=True, eq=False)
class RolledOutSplit:
    """Sequences, labelled step by step, that a network is run on in a way of its own (`rollout`); implements `Split`.

    Attributes:
        examples: Inputs `(n, steps, ...)`, labels `(n, steps)`.
    """

    examples: ExampleSplit

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def labels(self) -> NDArray[Any]:
        """The labels, `(n, steps)`."""
        return self.examples.labels

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Inputs, NDArray[Any]]]:
        """Yields whole sequences `(b, steps, ...)` and labels `(b, steps)`, always in the same order."""
        yield from self.examples.batches(batch_size, limit)

    def subset(self, indices: Indices) -> Self:
        """Returns these examples, in this order."""
        return replace(self, examples=self.examples.subset(indices))


@dataclass(frozen=True)
class Examples:
    """What a loader read.

    Attributes:
        split: All examples, with labels as they are stored; one label per example.
        groups: `(n,)`, e.g. the person that each example comes from, so that no group is divided between splits; None without.
        where: File and row of each example, for messages; empty names examples by their numbers.
        parts: Indices of the examples of those splits that the data themselves fix, e.g. a published test set; the others
            are carved from the examples that are left.
        folder: What was read, for messages.
        spans: `(n, 2)`, the positions in time from which, and before which, each example has its values, its label included.
            Splits then follow one another in time, and no example has values of a time that one of another split covers. None
            without.
        naive: A guess of each label without any network, in the labels' shape, that networks should beat, e.g. the last value
            of a series; None without.
        gap: Positions in time that are left out between two splits, where there are `spans`.
        classes: Names of the classes, where labels are their numbers; empty if there are none.
    """

    split: ExampleSplit
    groups: NDArray[Any] | None = None
    where: Sequence[str] = ()
    parts: Mapping[str, Indices] | None = None
    folder: str = "the data"
    spans: Indices | None = None
    gap: int = 0
    naive: NDArray[Any] | None = None
    classes: Sequence[str] = ()

    @property
    def labels(self) -> NDArray[Any]:
        """The labels, `(n, ...)`."""
        return self.split.labels

    def place(self, row: int) -> str:
        """Returns where an example is, for a message."""
        return self.where[row] if len(self.where) else f"{self.folder}, example {row}"

    def labelled(self, labels: NDArray[Any]) -> "Examples":
        """Returns the examples with other labels."""
        return replace(self, split=labelled(self.split, labels))


def labelled(split: Any, labels: NDArray[Any]) -> Any:
    """Returns a split of arrays, of one input or of several, with other labels `(n, ...)`."""
    if isinstance(split, NamedSplit):
        return NamedSplit({name: replace(part, labels=labels) for name, part in split.parts.items()})
    return replace(split, labels=labels)


class Data(ABC):
    """Reads examples; a task divides them into splits and checks their labels."""

    @abstractmethod
    def read(self, root: Path | None) -> Examples:
        """Returns all examples.

        Args:
            root: `task.root`, the file or folder; None if the task has none.

        Raises:
            InputError: A file is missing, damaged or of another format; the message names file and row.
        """

    def preparation(self) -> str:
        """Returns what is done to an example of the files before the transform of its split; empty if that is nothing, or not told."""
        return ""

    def fitted(self, examples: Examples, train: Indices) -> Examples:
        """Returns the examples as the network takes them, once the splits are known; by default as they are.

        Whatever a loader learns from examples (means, a vocabulary), it learns here, of the training split alone.

        Args:
            examples: What `read` returned, with the labels that the task checked.
            train: Indices of the training split; may be empty.

        Raises:
            InputError: Nothing can be learned from the training split.
        """
        return examples


def raised(error: Exception, *ours: str) -> str:
    """Returns what a user's code raised, and the last line of it that led to that.

    Args:
        error: The exception.
        *ours: Files whose lines are no user's.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename not in ours and "site-packages" not in f.filename]
    line = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + text[0] if text else ''}{line}"


def needed_root(root: Path | None, what: str) -> Path:
    """Returns the root. Raises ConfigError if it is not given."""
    from spaces.errors import ConfigError

    if root is None:
        raise ConfigError(f"task.root must be given: {what}")
    return root
