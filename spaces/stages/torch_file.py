"""Serializes torch artifacts for the cache, as their difference from the stage's input.

A network's class is code, which must not be loaded from a file. So only the differences are stored: the state
dict, the modules' plain attributes (`out_channels`, ...), and the names of modules that became `nn.Identity`.
"""

import copy
import io
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from spaces.errors import InputError
from spaces.stages.artifact import Artifact
from spaces.stages.module_identity import tensors_of
from spaces.stages.torch_artifact import torch_artifact

_PLAIN = (bool, int, float, str)
_IGNORED = ("training",)  # attributes that do not affect the network's shape


def packed(artifact: Artifact, template: Artifact) -> bytes | None:
    """Returns the serialized difference of `artifact` from `template`; None if it cannot be expressed.

    Args:
        artifact: Output of a stage.
        template: Input of that stage.
    """
    module, origin = _module(artifact), _module(template)
    changes = _changes(module, origin)
    if changes is None:
        return None
    buffer = io.BytesIO()
    state = {name: value.cpu() for name, value in tensors_of(module).items()}
    header = json.dumps({"changes": changes, "notes": artifact.notes, "digest": artifact.digest})
    torch.save({"state": state, "header": header}, buffer)
    data = buffer.getvalue()
    return data if unpacked(data, template).digest == artifact.digest else None


def unpacked(data: bytes, template: Artifact) -> Artifact:
    """Returns the artifact that was passed to `packed`, with the template's provenance.

    Args:
        data: Return value of `packed`.
        template: The template that was passed to `packed`.
    """
    content = torch.load(io.BytesIO(data), weights_only=True)
    header = json.loads(content["header"])
    module = copy.deepcopy(_module(template))
    for name, attributes in header["changes"].items():
        if attributes is None:
            _replace(module, name, nn.Identity())
        else:
            vars(module.get_submodule(name)).update({k: _value(v) for k, v in attributes.items()})
    _set_state(module, content["state"])
    made = torch_artifact(module, template.input, template.provenance)
    return Artifact(made.kind, made.model, made.input, made.digest, made.provenance, header["notes"])


def _module(artifact: Artifact) -> nn.Module:
    if not isinstance(artifact.model, nn.Module):
        raise InputError(f"a torch module is needed here, but the artifact is an {artifact.kind} model")
    return artifact.model


def _changes(module: nn.Module, origin: nn.Module) -> dict[str, dict[str, Any] | None] | None:
    """Returns, by module name, the changed attributes, or None for a module that became an Identity.

    The result itself is None if a module was added or became another class.
    """
    now, before = dict(module.named_modules()), dict(origin.named_modules())
    if not set(now) <= set(before):
        return None
    found: dict[str, dict[str, Any] | None] = {}
    for name, part in now.items():
        if type(part) is nn.Identity and type(before[name]) is not nn.Identity:
            found[name] = None
        elif type(part) is not type(before[name]):
            return None
        elif changed := _differences(vars(part), vars(before[name])):
            found[name] = changed
    return found


def _differences(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in now.items()
        if _is_plain(value) and key not in _IGNORED and (key not in before or value != before[key])
    }


def _is_plain(value: Any) -> bool:
    many = isinstance(value, tuple | list) and all(isinstance(v, _PLAIN) for v in value)
    return many or isinstance(value, _PLAIN)


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # JSON knows no tuples


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)


def _set_state(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Sets parameters and buffers, also to new shapes; tensors sharing memory become one parameter again."""
    made: dict[tuple[int, tuple[int, ...]], nn.Parameter] = {}
    for name, value in state.items():
        parent, _, leaf = name.rpartition(".")
        part = module.get_submodule(parent)
        if leaf in part._buffers:
            part._buffers[leaf] = value
            continue
        before = getattr(part, leaf)
        trained = value.is_floating_point() if before is None else before.requires_grad
        shared = made.setdefault((value.data_ptr(), tuple(value.shape)), nn.Parameter(value, trained))
        setattr(part, leaf, shared)  # not into `_parameters`: a recurrent layer keeps a list of them, too
