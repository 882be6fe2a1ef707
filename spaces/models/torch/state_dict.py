"""Reads torch checkpoints without running code, and loads them into a module with errors that name the keys."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces.errors import InputError

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]

USUAL_KEYS = ("state_dict", "model_state_dict", "model")
MAX_LISTED = 4  # maximum number of keys in a message


def read_state_dict(path: Path, key: str | None = None) -> State:
    """Reads a state dict; `torch.load(weights_only=True)`, so that no code in the file can run.

    Args:
        path: A file that `torch.save` wrote: a state dict, or a dict that holds one.
        key: Key of the state dict in the file; None tries `state_dict`, `model_state_dict`, `model`, then the
            whole object. The prefix `module.` that DataParallel adds to every name is dropped.

    Raises:
        InputError: The file is missing, damaged or of another format, holds code, or holds no state dict.
    """
    import torch

    state = _select(_load(path), key, path)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(
            f"{path} holds no tensors: a state dict is needed, as torch.save(net.state_dict()) writes"
        )
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    broken = [n for n, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise InputError(f"{path}: the weights are not finite in {_few(broken)}")
    return tensors


def load_state_dict(module: "torch.nn.Module", state: State, path: object) -> None:
    """Loads `state` into `module`, casting to the module's dtypes. All keys and shapes must match.

    BatchNorm's `num_batches_tracked` may be missing: old checkpoints lack it and inference has no use for it.

    Raises:
        InputError: Keys are missing or unexpected, or shapes differ; the message names the first few.
    """
    expected = module.state_dict()
    missing = [n for n in expected if n not in state and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in state if n not in expected]
    if missing or unexpected:
        raise InputError(
            f"{path} does not fit {type(module).__name__}: missing {_few(missing)}; unexpected {_few(unexpected)}"
        )
    mismatched = [
        f"{n} is {tuple(v.shape)} in the file, {tuple(expected[n].shape)} in the network"
        for n, v in state.items()
        if v.shape != expected[n].shape
    ]
    if mismatched:
        raise InputError(f"{path} does not fit {type(module).__name__}: {_few(mismatched)}")
    module.load_state_dict(state, strict=False)


def _load(path: Path) -> Any:
    import torch

    if not path.is_file():
        what = (
            " is a folder, not a checkpoint file" if path.is_dir() else ": there is no such checkpoint file"
        )
        raise InputError(f"{path}{what}")
    if path.suffix.lower() == ".onnx":
        raise InputError(
            f"{path} is an ONNX file by its name: model=onnx loads it; a torch network needs its state dict"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns before it raises the error that is handled below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "global" in str(error):
            raise InputError(
                f"{path} holds code or whole objects, not only tensors; it was not run. "
                "Re-save it as torch.save(net.state_dict(), path)"
            ) from error
        raise InputError(
            f"{path} is damaged, or no checkpoint of plain tensors; nothing in it was run"
        ) from error
    except Exception as error:  # RuntimeError, EOFError, KeyError, ValueError ..., depending on the damage
        raise InputError(f"{path} is damaged, or no torch checkpoint ({_first_line(error)})") from error


def _select(loaded: Any, key: str | None, path: Path) -> Mapping[Any, Any]:
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path} holds a {type(loaded).__name__}; a state dict is needed")
    if key is not None and key not in loaded:
        known = ", ".join(map(str, list(loaded)[:MAX_LISTED]))
        raise InputError(f"{path} has no key {key!r} (model.state_dict_key); it has {known}")
    keys = (key,) if key is not None else USUAL_KEYS
    found = next((loaded[k] for k in keys if isinstance(loaded.get(k), Mapping)), loaded)
    return found if isinstance(found, Mapping) else {}


def _few(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return (", ".join(names[:MAX_LISTED]) or "nothing") + more


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
