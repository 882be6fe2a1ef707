"""The outputs of a torch network, which may be a tensor, or tuples, lists and dicts of tensors."""

from typing import Any

from torch import Tensor

from spaces.errors import StageError


def tensors_of(outputs: Any) -> list[Tensor]:
    """Returns all tensors in a network's outputs, in the order in which they are exported."""
    if isinstance(outputs, Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [t for part in parts for t in tensors_of(part)] if isinstance(outputs, dict | list | tuple) else []


def first_output(outputs: Any) -> Tensor:
    """Returns the first tensor in a network's outputs: the one that a task judges.

    Raises:
        StageError: There is none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if not (tensors := tensors_of(outputs)):
        raise StageError(f"the network returns no tensor, but {type(outputs).__name__}")
    return tensors[0]
