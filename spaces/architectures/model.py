"""A family's reference network, trained on first use: the model that an architecture search starts from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces.architectures.family import Family, checked_values
from spaces.candidate import StageValue
from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.checkpoint import CheckpointModel
from spaces.models.torch.state_dict import State
from spaces.recovery.train import TrainStage
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

if TYPE_CHECKING:
    from torch import nn


class FamilyModel(CheckpointModel):
    """One network of a family, with a checkpoint or trained on the task's train split as the `train` stage trains.

    Args:
        family: The family.
        checkpoint: A checkpoint of this network; None trains it on first use and keeps it in the cache.
        n_classes: Number of outputs.
        input_shape: Shape of one example, without the batch axis.
        values: Values of the family's knobs that are not the defaults.
        training: Values of the `train` stage's knobs that are not the defaults.
        threads: Number of torch's threads in training; results depend on it.
        input_dtype: Element type of the input; None is the family's.

    Raises:
        ConfigError: A knob or value is unknown, or the values build no valid network.
    """

    def __init__(
        self,
        family: Family,
        checkpoint: str | None = None,
        n_classes: int = 10,
        input_shape: Sequence[int] = (3, 32, 32),
        values: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        threads: int = 2,
        input_dtype: str | None = None,
    ) -> None:
        super().__init__(checkpoint, input_shape, input_dtype=input_dtype or family.input_dtype)
        self.family, self.n_classes, self._stage = family, n_classes, TrainStage(threads)
        self.values = family.canonical(checked_values(values, family, "model.values"))
        self.training = checked_values(training, self._stage, "model.training")
        if (why := family.broken(self.values, self.input_shape)) is not None:
            raise ConfigError(f"model.values: {why}")

    def build(self) -> "nn.Module":
        """Returns the network with random weights."""
        return self.family.build(self.values, self.input_shape, self.n_classes)

    def state(self, path: Path, module: "nn.Module") -> State:
        """Reads the checkpoint as the family does."""
        return self.family.state(path, module)

    def load(self, context: LoadContext) -> Artifact:
        """Returns the network; trains it unless it has a checkpoint or `context.trains` is false.

        Raises:
            InputError: The checkpoint or the examples do not fit, or there is nothing to train on.
        """
        artifact = super().load(context)
        if self.checkpoint is not None or not context.trains:
            return artifact
        if context.train is None or not len(context.train):
            raise InputError(f"{self.family.name} is trained on first use, but the task has no train split")
        from spaces.models.zoo.first_training import checked_loss
        from spaces.stages.pipeline import Pipeline

        self.family.check(context.train)
        checked_loss(self.family.name, artifact.model, context.train, self.input, context.loss)  # type: ignore[arg-type]

        folder = context.cache_dir / "trained"
        stages = StageContext(
            None,
            Cache(folder),
            context.seed,
            train=context.train,
            accelerator=context.accelerator,
            loss=context.loss,
        )
        values: dict[str, StageValue] = self._stage.canonical(artifact, self.training, stages)
        self._stage.check(artifact, {name: (value,) for name, value in values.items()}, stages)  # type: ignore[misc]
        trained = Pipeline([self._stage]).run(artifact, {self._stage.name: values}, stages)
        return Artifact(trained.kind, trained.model, trained.input, trained.digest)
