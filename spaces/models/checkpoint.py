"""The base class of torch model sources that build a module and load a checkpoint."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.errors import ConfigError
from spaces.models.base import LoadContext, ModelSource
from spaces.models.torch.state_dict import State, load_state_dict, read_state_dict
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.torch_artifact import torch_artifact

if TYPE_CHECKING:
    import torch


class CheckpointModel(ModelSource):
    """Builds a module and loads a checkpoint into it.

    Args:
        checkpoint: The checkpoint file; None keeps the random initial weights, drawn with the context's seed
            (enough where only costs matter).
        input_shape: Shape of one example, without the batch axis.
        state_dict_key: Key of the state dict in the file; None tries the usual keys.
    """

    def __init__(
        self, checkpoint: str | None, input_shape: Sequence[int], state_dict_key: str | None = None
    ) -> None:
        self.checkpoint = None if checkpoint is None else Path(checkpoint).expanduser()
        self.input_shape = check_shape(input_shape)
        self.state_dict_key = state_dict_key

    @abstractmethod
    def build(self) -> "torch.nn.Module":
        """Returns the module with random initial weights."""

    def rename(self, state: State) -> State:
        """Maps a published checkpoint's parameter names to the module's; returns `state` by default."""
        return state

    def load(self, context: LoadContext) -> Artifact:
        """Returns the module in eval mode, with the checkpoint's weights.

        Raises:
            InputError: The checkpoint is missing, damaged, of another format, or does not fit the module.
        """
        module = self.build_seeded(context.seed)
        if self.checkpoint is not None:
            state = self.rename(read_state_dict(self.checkpoint, self.state_dict_key))
            load_state_dict(module, state, self.checkpoint)
        return torch_artifact(module, InputSpec(self.input_shape))

    def build_seeded(self, seed: int) -> "torch.nn.Module":
        """Builds the module without changing torch's global random state, which its initialisers use."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build()


def check_shape(shape: object, where: str = "model.input_shape") -> tuple[int, ...]:
    """Returns the shape as a tuple. Raises ConfigError unless it is a list of positive whole numbers."""
    listed = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    if not listed or not all(type(s) is int and s > 0 for s in listed):
        raise ConfigError(
            f"{where} must list the positive sizes of one example, e.g. [3, 32, 32], not {shape!r}"
        )
    return listed
