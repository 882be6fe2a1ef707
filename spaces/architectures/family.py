"""The base class of families: networks of one design, described by knobs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from spaces.errors import ConfigError, StageError, unknown_name
from spaces.knob_spec import HasKnobs, KnobSpec, Technique, cited

if TYPE_CHECKING:
    from torch import nn

    from spaces.architectures.counting import Counts
    from spaces.models.torch.state_dict import State
    from spaces.stages.artifact import Split

Knobs = Mapping[str, Any]
Shape = tuple[int, ...]


class Family(ABC):
    """Builds the networks of one design from values of its knobs.

    A subclass sets `name` and `knobs`, and implements `build`; its tests inherit `FamilyConformance`. The default of
    every knob gives the family's reference network. What is no knob, e.g. a fixed stride, is an argument of the
    constructor, stored under its name.

    Attributes:
        name: The family's name.
        knobs: The knobs, a value of each per network.
        input_dtype: Element type of the input, as numpy names it, e.g. `int64` for token ids.
    """

    name: ClassVar[str]
    knobs: tuple[KnobSpec, ...] = ()
    input_dtype: ClassVar[str] = "float32"

    @property
    def technique(self) -> Technique:
        """What people choose it by."""
        needs = ("data", "labels", "training")
        return Technique("architecture", needs, "full", general=False, paper=cited(type(self)))

    @abstractmethod
    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> "nn.Module":
        """Returns the network with random weights, which torch's global generator draws.

        Args:
            values: A value for every knob; `broken` has nothing against them.
            input_shape: Shape of one example, without the batch axis.
            n_outputs: Number of outputs of the last layer, e.g. of classes.
        """

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network, as a sentence without a full stop; None if they do.

        Args:
            values: A value for every knob.
            input_shape: Shape of one example, without the batch axis.
        """
        del values, input_shape
        return None

    def canonical(self, values: Knobs) -> dict[str, Any]:
        """Returns equal values for settings that build the same network, e.g. the default for an inactive knob."""
        return dict(values)

    def defaults(self) -> dict[str, Any]:
        """Returns the default of every knob: the reference network."""
        return {knob.name: knob.default for knob in self.knobs}

    def counts(self, values: Knobs, input_shape: Shape, n_outputs: int) -> "Counts":
        """Returns exact costs without allocating weights: see `counting.py`.

        Raises:
            StageError: No network can be built with these values.
        """
        import torch

        from spaces.architectures.counting import counts_of

        if (why := self.broken(values, input_shape)) is not None:
            raise StageError(why)
        with torch.device("meta"):
            network = self.build(values, input_shape, n_outputs)
        return counts_of(network, input_shape, getattr(torch, self.input_dtype))

    def state(self, path: Path, network: "nn.Module") -> "State":
        """Reads the weights of a checkpoint, as `network.state_dict()` names them; by default of a file of `torch.save`.

        Args:
            path: The checkpoint.
            network: The network that they are for, as built.

        Raises:
            InputError: The file is missing, damaged or of another format.
        """
        del network
        from spaces.models.torch.state_dict import read_state_dict

        return read_state_dict(path)

    def check(self, split: "Split") -> None:  # noqa: B027 (most families have nothing to check)
        """Checks that examples suit every network of the family, e.g. that all tokens have a vector.

        Raises:
            InputError: They do not.
        """

    def settings(self) -> dict[str, Any]:
        """Returns the constructor's arguments that are stored under their names: part of cache keys."""
        return {name: value for name, value in sorted(vars(self).items()) if not name.startswith("_")}


def checked_values(given: Mapping[str, Any] | None, owner: HasKnobs, where: str) -> dict[str, Any]:
    """Returns a value for every knob, the default where none is given.

    Args:
        given: Values by name.
        owner: The family or stage that declares the knobs.
        where: The config path, for messages.

    Raises:
        ConfigError: A knob is unknown, or a value invalid.
    """
    knobs = {knob.name: knob for knob in owner.knobs}
    for name, value in (given or {}).items():
        if name not in knobs:
            raise ConfigError(unknown_name("knob", name, knobs, where))
        if problem := knobs[name].problem(value):
            raise ConfigError(f"{where}.{name} {problem}")
    return {name: (given or {}).get(name, knob.default) for name, knob in knobs.items()}
