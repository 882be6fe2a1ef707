"""Texts in files, a folder for each class: which of a network's inputs get what, and how texts become ids."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.requests.choices import Choices
from search.requests.network import Network
from spaces.errors import InputError

TOKENIZER = "task.data.tokenizer"
_STORED = "tokenizer.json"  # Hugging Face's libraries write it beside the network
_OPEN_LENGTH = 128


def text_choices(path: Path, network: Network, sizes: dict[str, int], given: Mapping[str, Any]) -> Choices:
    """Returns the task and the loader for `CLASS/*.txt`.

    Args:
        path: The folder.
        network: The network, with one input of ids, or with a mask and types beside it.
        sizes: Those of the splits.
        given: What the user sets, by key.

    Raises:
        InputError: The network takes no ids, or nothing says how texts become ids.
    """
    values: dict[str, Any] = {"task.root": str(path), **_inputs(path, network, given)}
    classes = sorted({file.parent.name for file in path.glob("*/*.txt")})
    notes = [
        f"the network's outputs are the classes {', '.join(classes)} in this order; task.classes=[...] says another"
    ]
    if network.folder is not None:
        values |= sizes
        if TOKENIZER not in given:
            stored = network.folder / _STORED
            if not stored.is_file():
                raise InputError(_which_tokenizer(path))
            values[TOKENIZER] = str(stored)
            notes.append(f"texts become ids by {stored}, which lies beside the network")
    if network.inputs and not network.shape[0] and "task.data.length" not in given:
        values["task.data.length"] = _OPEN_LENGTH
        notes.append(f"texts are cut to {_OPEN_LENGTH} ids; task.data.length=N takes more or fewer")
    return Choices({"task": "classes", "task/data": "text_folder"}, values, notes=tuple(notes))


def _which_tokenizer(path: Path) -> str:
    return (
        f"{path} holds texts by class, but the network's file does not say how texts become ids. Add {TOKENIZER}=FILE.json (Hugging Face's; "
        f"{_STORED} beside the network is found by itself), {TOKENIZER}=bytes, or {TOKENIZER}=words task.data.vocabulary=FILE (one word a line)"
    )


def _inputs(path: Path, network: Network, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the length of texts, and the names of inputs where there are several."""
    if any(len(i.shape) != 1 or (network.folder and i.dtype[0] not in "iu") for i in network.inputs):
        raise InputError(
            f"{path} holds texts by class, which become whole numbers (length,), but the network takes {network.takes}"
        )
    length = {"task.data.length": network.shape[0]} if network.inputs and network.shape[0] else {}
    if len(network.inputs) < 2:
        return length
    names = {i.name for i in network.inputs}
    mask = next((name for name in sorted(names) if "mask" in name.lower()), None)
    types = next((name for name in sorted(names - {mask}) if "type" in name.lower()), None)
    left = sorted(names - {mask, types})
    if len(left) != 1 and "task.data.ids" not in given:
        raise InputError(
            f"{path} holds texts by class, but which of the inputs {', '.join(sorted(names))} takes what? Add task.data.ids=NAME "
            "task.data.mask=NAME task.data.types=NAME (those that there are)"
        )
    named = {"ids": left[0] if left else None, "mask": mask, "types": types}
    return {**length, **{f"task.data.{key}": name for key, name in named.items() if name}}
