"""The base class of torch model sources that build a module and load a checkpoint."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from spaces.errors import ConfigError, unknown_name
from spaces.models.base import LoadContext, ModelSource
from spaces.models.torch.state_dict import State, load_state_dict, read_state_dict
from spaces.stages.artifact import Artifact, InputSpec, Kind, TensorSpec
from spaces.stages.torch_artifact import torch_artifact

if TYPE_CHECKING:
    import torch


Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]]
DTYPES = ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")


class CheckpointModel(ModelSource):
    """Builds a module and loads a checkpoint into it.

    Args:
        checkpoint: The checkpoint file; None keeps the random initial weights, drawn with the context's seed
            (enough where only costs matter).
        input_shape: Shape of one example, without the batch axis; for several inputs, shapes by the name of the argument of
            the module's `forward`.
        state_dict_key: Key of the state dict in the file; None tries the usual keys.
        input_dtype: Element type of the input, or element types by name; None is float32.
    """

    kind: ClassVar[Kind | None] = "torch"

    def __init__(
        self,
        checkpoint: str | None,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]],
        state_dict_key: str | None = None,
        input_dtype: str | Mapping[str, str] | None = None,
    ) -> None:
        self.checkpoint = None if checkpoint is None else Path(checkpoint).expanduser()
        self.input = spec_of(check_shapes(input_shape), input_dtype)
        self.input_shape = self.input.shape
        self.state_dict_key = state_dict_key

    @abstractmethod
    def build(self) -> "torch.nn.Module":
        """Returns the module with random initial weights."""

    def rename(self, state: State) -> State:
        """Maps a published checkpoint's parameter names to the module's; returns `state` by default."""
        return state

    def state(self, path: Path, module: "torch.nn.Module") -> State:
        """Reads the checkpoint's weights by the module's names.

        Raises:
            InputError: The file is missing, damaged or of another format.
        """
        del module
        return self.rename(read_state_dict(path, self.state_dict_key))

    def load(self, context: LoadContext) -> Artifact:
        """Returns the module in eval mode, with the checkpoint's weights.

        Raises:
            InputError: The checkpoint is missing, damaged, of another format, or does not fit the module.
            ConfigError: `input_shape` names an input that the network does not take.
        """
        module = self.build_seeded(context.seed)
        self._check_names(module)
        if self.checkpoint is not None:
            load_state_dict(module, self.state(self.checkpoint, module), self.checkpoint)
        return torch_artifact(module, self.input)

    def _check_names(self, module: "torch.nn.Module") -> None:
        """Raises ConfigError if there are several inputs, and one is no argument of the network's `forward`."""
        parameters = signature(module.forward).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for tensor in self.input.tensors if self.input.others and not takes_any else ():
            if tensor.name not in parameters:
                raise ConfigError(unknown_name("input", tensor.name, parameters, "model.input_shape"))

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


def check_shapes(shape: object, where: str = "model.input_shape") -> Shapes:
    """Returns the shape of one input, or the shapes of several by name; `[]` is one number per example.

    Raises:
        ConfigError: It is neither a list of positive whole numbers nor a mapping of names to such lists.
    """
    if not isinstance(shape, Mapping):
        return check_shape(shape, where)
    if not shape:
        raise ConfigError(f"{where} must name at least one input")
    shapes = {}
    for name, each in shape.items():
        is_scalar = isinstance(each, Sequence) and not isinstance(each, str) and not each
        shapes[str(name)] = () if is_scalar else check_shape(each, f"{where}.{name}")
    return shapes


def spec_of(shapes: Shapes, dtypes: str | Mapping[str, str] | None = None) -> InputSpec:
    """Returns the spec of inputs in the order of `shapes`.

    Args:
        shapes: Shape of the input, or shapes by name.
        dtypes: Element type of all inputs, or element types by name; float32 where there is none.

    Raises:
        ConfigError: An element type is unknown, or is given to an input that there is not.
    """
    named = dict(shapes) if isinstance(shapes, Mapping) else {InputSpec.name: shapes}
    kinds = dict(dtypes) if isinstance(dtypes, Mapping) else dict.fromkeys(named, dtypes)
    for name, kind in kinds.items():
        if name not in named:
            raise ConfigError(unknown_name("input", name, named, "model.input_dtype"))
        if kind is not None and kind not in DTYPES:
            raise ConfigError(f"model.input_dtype must be one of {', '.join(DTYPES)}, not {kind!r}")
    first, *others = (TensorSpec(s, name, kinds.get(name) or "float32") for name, s in named.items())
    return InputSpec(first.shape, first.name, first.dtype, others=tuple(others))
