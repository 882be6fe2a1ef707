"""How a user's network comes in."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from spaces.stages.artifact import Artifact, Split


@dataclass(frozen=True)
class LoadContext:
    """What a model source may use.

    Attributes:
        train: The task's train split, for a zoo model that is trained on first use.
        cache_dir: Where such a model's checkpoint is kept.
        seed: Seed of such a training.
    """

    train: Split | None
    cache_dir: Path
    seed: int = 0


class ModelSource(ABC):
    """Loads one network as an artifact (torch module in eval mode, or a checked ONNX file)."""

    @abstractmethod
    def load(self, context: LoadContext) -> Artifact:
        """Returns the network.

        Raises:
            InputError: The file is missing, damaged, foreign, or does not fit the class.
        """
