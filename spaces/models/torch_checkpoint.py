"""A user's own torch network: any importable class or factory, plus a checkpoint."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spaces.errors import ConfigError, InputError
from spaces.models.checkpoint import CheckpointModel
from spaces.models.trust import check_trusted, import_trusted

if TYPE_CHECKING:
    import torch


class TorchModel(CheckpointModel):
    """Any importable `torch.nn.Module` class, or function that returns one, plus a checkpoint.

    Args:
        cls: Dotted name; its package must be trusted, because importing it runs its code.
        checkpoint: A state dict, or a dict that holds one; None keeps the random initial weights.
        input_shape: Shape of one example, without the batch axis; for several inputs, shapes by the name of the argument of
            `forward`.
        arguments: Keyword arguments of the class.
        state_dict_key: Key of the state dict in the file; None tries the usual keys.
        trusted_modules: Packages that the user adds to the allow-list.
        input_dtype: Element type of the input (`int64` for token ids), or element types by name; None is float32.

    Raises:
        UntrustedTargetError: `cls` is outside the allow-list.
    """

    def __init__(
        self,
        cls: str,
        checkpoint: str | None,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]],
        arguments: Mapping[str, Any] | None = None,
        state_dict_key: str | None = None,
        trusted_modules: Sequence[str] = (),
        input_dtype: str | Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(checkpoint, input_shape, state_dict_key, input_dtype)
        check_trusted(cls, trusted_modules, "model.cls")
        self.cls = cls
        self.arguments = dict(arguments or {})
        self.trusted_modules = tuple(trusted_modules)

    def build(self) -> "torch.nn.Module":
        """Imports the class and calls it.

        Raises:
            InputError: The class does not exist, or its call fails or does not return a module.
            ConfigError: `arguments` do not fit the class.
        """
        import torch

        factory = import_trusted(
            self.cls, self.trusted_modules, "model.cls", [torch.nn.Module], plain_functions=True
        )
        self._check_arguments(factory)
        try:
            module = factory(**self.arguments)
        except Exception as error:
            raise InputError(f"model.cls: {self.cls}(**{self.arguments}) failed: {error}") from error
        if not isinstance(module, torch.nn.Module):
            raise InputError(f"model.cls: {self.cls} gives a {type(module).__name__}, not a torch.nn.Module")
        return module

    def _check_arguments(self, factory: Any) -> None:
        try:
            inspect.signature(factory).bind(**self.arguments)
        except TypeError as error:
            raise ConfigError(f"model.arguments do not fit {self.cls}: {error}") from error
