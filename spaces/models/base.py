"""The base class of model sources, which load the network that a study compresses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from spaces.stages.artifact import Artifact, Kind, Split


@dataclass(frozen=True)
class LoadContext:
    """Inputs of a model source.

    Attributes:
        train: The task's train split, for a zoo model that is trained on first use; None if the task has
            none.
        cache_dir: Folder of the checkpoints of such models.
        seed: Seed of the initial weights and of such a training.
        trains: Whether such a model is trained if there is no checkpoint of it yet; else it keeps its initial weights,
            which is enough where only its layers and costs matter.
        loss: Name of the loss of such a training (`spaces.task_losses`).
        accelerator: Torch device of trainings: `auto`, `cpu` or `cuda`.
    """

    train: Split | None
    cache_dir: Path
    seed: int = 0
    trains: bool = True
    loss: str | None = "cross_entropy"
    accelerator: str = "auto"


class ModelSource(ABC):
    """Loads one network as an artifact (torch module in eval mode, or a checked ONNX file).

    Attributes:
        kind: The kind of network that `load` returns; None if it is known only when it is loaded.
    """

    kind: ClassVar[Kind | None] = None

    @abstractmethod
    def load(self, context: LoadContext) -> Artifact:
        """Returns the network.

        Raises:
            InputError: The file is missing, damaged, of another format, or does not fit the class.
        """
