"""What stages that train have in common."""

from collections.abc import Mapping
from typing import ClassVar

from spaces.candidate import StageValue
from spaces.errors import ConfigError
from spaces.stages.artifact import Artifact, Kind
from spaces.stages.stage import Stage, StageContext


class TrainingStage(Stage):
    """Trains a torch network, whose structure stays as it is.

    Interrupted, it goes on at its last full epoch. On the CPU, results are the same to the bit; on an accelerator they are
    not promised to be.

    Args:
        threads: Threads that torch trains with. Part of what decides the result: another number adds up sums in
            another order.

    Raises:
        ConfigError: `threads` is no positive whole number.
    """

    consumes: ClassVar[tuple[Kind, ...]] = ("torch",)
    produces: ClassVar[Kind] = "torch"

    def __init__(self, threads: int = 2) -> None:
        if type(threads) is not int or threads < 1:
            raise ConfigError(f"stage.{self.name}.threads must be a positive whole number, not {threads!r}")
        self.threads = threads

    def structure(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Returns nothing: training changes numbers only."""
        return {}
