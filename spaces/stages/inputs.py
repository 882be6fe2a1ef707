"""A batch of a network's inputs: an array, or an array for each of several inputs by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.errors import InputError

Inputs = NDArray[Any] | Mapping[str, NDArray[Any]]
"""Examples `(b, *shape)`: one array for a network with one input, else an array for each input by its name."""


def parts_of(inputs: Inputs) -> list[NDArray[Any]]:
    """Returns the arrays of a batch."""
    return [*inputs.values()] if isinstance(inputs, Mapping) else [inputs]


def n_rows(inputs: Inputs) -> int:
    """Returns the number of examples in a batch."""
    return len(parts_of(inputs)[0])


def n_bytes(inputs: Inputs) -> int:
    """Returns the size of a batch in bytes."""
    return sum(array.nbytes for array in parts_of(inputs))


def each(function: Callable[[NDArray[Any]], NDArray[Any]], inputs: Inputs) -> Inputs:
    """Returns the batch with the function applied to each of its arrays."""
    if isinstance(inputs, Mapping):
        return {name: function(array) for name, array in inputs.items()}
    return function(inputs)


def joined_inputs(batches: Sequence[Inputs]) -> Inputs:
    """Returns the examples of all batches, of which there is at least one, as one batch."""
    first = batches[0]
    if isinstance(first, Mapping):
        return {name: np.concatenate([batch[name] for batch in batches]) for name in first}
    return np.concatenate(batches)  # type: ignore[arg-type]


def sole(inputs: Inputs, purpose: str) -> NDArray[Any]:
    """Returns the array of a batch of a network with one input.

    Args:
        inputs: The batch.
        purpose: What needs a single input, for the message.

    Raises:
        InputError: There are several inputs.
    """
    if isinstance(inputs, Mapping):
        if len(inputs) == 1:
            return parts_of(inputs)[0]
        raise InputError(f"{purpose} takes one input, but the task has {len(inputs)}: {', '.join(inputs)}")
    return inputs


def cast_to(dtype: str, array: NDArray[Any], name: str) -> NDArray[Any]:
    """Returns an array as the element type of a model's input; rounding to a float type is the only loss that is allowed.

    Args:
        dtype: The element type, as numpy names it.
        array: The examples.
        name: The input's name, for the message.

    Raises:
        InputError: A value cannot be represented.
    """
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype)
    bad = ~np.isfinite(converted) & np.isfinite(array) if converted.dtype.kind == "f" else converted != array
    if bad.any():
        raise InputError(
            f"input {name!r} takes {dtype}, but the task's examples hold {array[bad].flat[0]}, which it cannot represent "
            "(the task's scale, mean and std decide the values)"
        )
    return converted


def packed(inputs: Inputs) -> NDArray[np.float32]:
    """Returns a batch as a torch network takes it: `(b, *shape)` float32, or several inputs side by side, `(b, n_values)`.

    The network takes them apart again: see `torch_artifact.Unpack`.

    Raises:
        InputError: A whole number is too large for float32.
    """
    if not isinstance(inputs, Mapping):
        return _as_float32(inputs, "input")
    if len(inputs) == 1:
        ((name, array),) = inputs.items()
        return _as_float32(array, name)
    flat = (_as_float32(inputs[name], name).reshape(n_rows(inputs), -1) for name in sorted(inputs))
    return np.concatenate([*flat], axis=1)


def _as_float32(array: NDArray[Any], name: str) -> NDArray[np.float32]:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    converted: NDArray[np.float32] = array.astype(np.float32)
    if (converted.astype(array.dtype) != array).any():
        raise InputError(
            f"input {name!r} holds whole numbers above 2**24, which stages that train or prune cannot take"
        )
    return converted
