"""Reads the checkpoints of llama2.c (github.com/karpathy/llama2.c, `export.py`, `legacy_export`)."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spaces.errors import InputError

if TYPE_CHECKING:
    from spaces.models.torch.state_dict import State

HEADER = struct.Struct("<7i")
FIELDS = ("dim", "ffn_dim", "n_layers", "n_heads", "n_kv_heads", "vocabulary_size", "max_length")
_MAGIC = b"ak42"  # of the later versions
_MOST = 2**24  # of a size: beyond, the file is no checkpoint


def read_sizes(path: Path) -> dict[str, int]:
    """Returns the sizes that a checkpoint's header states, by the names of `FIELDS`.

    The vocabulary's is negative where the output layer has a matrix of its own.

    Raises:
        InputError: The file is missing, of another format, or shorter or longer than its header says.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file (a .bin checkpoint of llama2.c is needed)")
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if head[:4] == _MAGIC[::-1] or head[:4] == _MAGIC:
        raise InputError(
            f"{path} is a checkpoint of a later version of llama2.c; its legacy format (version 0) is needed"
        )
    sizes = dict(zip(FIELDS, HEADER.unpack(head), strict=True)) if len(head) == HEADER.size else {}
    if not sizes or not _sensible(sizes):
        raise InputError(f"{path} is no .bin checkpoint of llama2.c: its header states no sizes of a network")
    wanted = HEADER.size + 4 * sum(int(np.prod(shape)) for _, shape in _tensors(sizes))
    if path.stat().st_size != wanted:
        raise InputError(
            f"{path} has {path.stat().st_size:,} bytes, but its header says {wanted:,}: it is truncated, or no legacy checkpoint of "
            "llama2.c"
        )
    return sizes


def read_weights(path: Path) -> "State":
    """Returns the weights by the names of `Llama`'s state dict, float32; the rotary tables in the file are left out.

    Raises:
        InputError: As `read_sizes`, or weights are not finite.
    """
    import torch

    sizes = read_sizes(path)
    values = np.fromfile(path, "<f4", offset=HEADER.size)
    state: State = {}
    position = 0
    for name, shape in _tensors(sizes):
        n = int(np.prod(shape))
        array = values[position : position + n].reshape(shape)
        position += n
        if not np.isfinite(array).all():
            raise InputError(f"{path}: the weights are not finite in {name}")
        if "{}" in name:
            state.update({name.format(i): torch.from_numpy(layer.copy()) for i, layer in enumerate(array)})
        elif not name.startswith("rotary"):
            state[name] = torch.from_numpy(array.copy())
    return state


def _sensible(sizes: dict[str, int]) -> bool:
    heads, kv_heads = sizes["n_heads"], sizes["n_kv_heads"]
    positive = all(0 < abs(sizes[f]) < _MOST and (sizes[f] > 0 or f == "vocabulary_size") for f in FIELDS)
    return positive and sizes["dim"] % (2 * heads) == 0 and heads % kv_heads == 0


def _tensors(sizes: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields names and shapes in the order of the file; `{}` stands for the number of the block, the first axis."""
    dim, ffn, n, length = sizes["dim"], sizes["ffn_dim"], sizes["n_layers"], sizes["max_length"]
    head = dim // sizes["n_heads"]
    kv, vocabulary = head * sizes["n_kv_heads"], abs(sizes["vocabulary_size"])
    yield "embedding.weight", (vocabulary, dim)
    yield "blocks.{}.attention_norm.weight", (n, dim)
    yield "blocks.{}.attention.query.weight", (n, dim, dim)
    yield "blocks.{}.attention.key.weight", (n, kv, dim)
    yield "blocks.{}.attention.value.weight", (n, kv, dim)
    yield "blocks.{}.attention.output.weight", (n, dim, dim)
    yield "blocks.{}.ffn_norm.weight", (n, dim)
    yield "blocks.{}.ffn.gate.weight", (n, ffn, dim)
    yield "blocks.{}.ffn.down.weight", (n, dim, ffn)
    yield "blocks.{}.ffn.up.weight", (n, ffn, dim)
    yield "norm.weight", (dim,)
    yield "rotary.cos", (length, head // 2)
    yield "rotary.sin", (length, head // 2)
    if sizes["vocabulary_size"] < 0:
        yield "output.weight", (vocabulary, dim)
