"""The outputs of a torch network, which may be a tensor, or tuples, lists and dicts of tensors."""

from typing import Any

import torch
from torch import Tensor

from spaces.errors import StageError
from spaces.stages.output_spec import OutputSpec


def tensors_of(outputs: Any) -> list[Tensor]:
    """Returns all tensors in a network's outputs, in the order in which they are exported."""
    if isinstance(outputs, Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [t for part in parts for t in tensors_of(part)] if isinstance(outputs, dict | list | tuple) else []


def names_of(outputs: Any, stem: str) -> list[str]:
    """Returns a name for every tensor in a network's outputs: the keys of dicts, else `stem`, `stem_1` and so on."""
    names: list[str] = []
    for key in (key or stem for key in _keys(outputs, "")):
        n = sum(name == key or name.startswith(f"{key}_") for name in names)
        names.append(f"{key}_{n}" if key in names else key)
    return names


def _keys(outputs: Any, key: str) -> list[str]:
    if isinstance(outputs, Tensor):
        return [key]
    if isinstance(outputs, dict):
        return [k for name, part in outputs.items() for k in _keys(part, str(name))]
    return [k for part in outputs for k in _keys(part, key)] if isinstance(outputs, list | tuple) else []


def judged_output(outputs: Any, spec: OutputSpec) -> Tensor:
    """Returns the output that a task judges, as logits `(b, n_classes)` where it is one row per example.

    Several outputs that are judged together become one row of values per example.

    Raises:
        StageError: There is no such output.
    """
    first, *further = _judged(outputs, spec)
    if not further:
        return spec.logits(first)
    return torch.cat([part.flatten(1) for part in (first, *further)], 1)


def read_outputs(outputs: Any, spec: OutputSpec) -> Any:
    """Returns the outputs that a task judges as a metric takes them: see `OutputSpec.read`.

    Raises:
        StageError: There is no such output.
    """
    names = (spec.name or "", *spec.further)
    arrays = (part.detach().cpu().numpy() for part in _judged(outputs, spec))
    return spec.read(dict(zip(names, arrays, strict=True)))


def _judged(outputs: Any, spec: OutputSpec) -> list[Tensor]:
    tensors = tensors_of(outputs)
    positions = (spec.position, *spec.further_positions)
    if len(tensors) <= max(positions):
        raise StageError(
            f"the network returns {len(tensors)} tensors, but the task judges number {max(positions) + 1}"
            if tensors
            else f"the network returns no tensor, but {type(outputs).__name__}"
        )
    return [spec.batch_first(tensors[position]) for position in positions]


def first_output(outputs: Any) -> Tensor:
    """Returns the first tensor in a network's outputs.

    Raises:
        StageError: There is none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if not (tensors := tensors_of(outputs)):
        raise StageError(f"the network returns no tensor, but {type(outputs).__name__}")
    return tensors[0]
