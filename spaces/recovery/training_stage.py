"""The base class of stages that train a network."""

from collections.abc import Mapping
from typing import ClassVar

from spaces.candidate import StageValue
from spaces.errors import ConfigError
from spaces.stages.artifact import Artifact, Kind
from spaces.stages.stage import Stage, StageContext


class TrainingStage(Stage):
    """Trains a torch network, whose structure stays as it is.

    An interrupted training is resumed after its last full epoch. Results are bit-identical on the CPU, but
    not necessarily on an accelerator.

    Args:
        threads: Number of torch's threads. Results depend on it, since it determines the order of summation.

    Raises:
        ConfigError: `threads` is no positive whole number.
    """

    consumes: ClassVar[tuple[Kind, ...]] = ("torch",)
    produces: ClassVar[Kind] = "torch"

    def __init__(self, threads: int = 2) -> None:
        if type(threads) is not int or threads < 1:
            raise ConfigError(f"stage.{self.name}.threads must be a positive whole number, not {threads!r}")
        self.threads = threads

    def expensive(self, values: Mapping[str, StageValue]) -> bool:
        """Returns whether anything is trained."""
        return values.get("epochs") != 0

    def quickest(self, values: Mapping[str, StageValue]) -> dict[str, StageValue]:
        """Returns the values without training, which does not change the structure."""
        return {**values, "epochs": 0}

    def structure(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Returns an empty dict: training does not change the structure."""
        return {}
