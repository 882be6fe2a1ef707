"""Several LoRA adapters of one network, each trained on its own examples, merged with weights that sum to 1 (Octo-planner, Chen et al. 2024, arXiv 2406.18082).

`W = W_0 + sum_i w_i SCALE B_i A_i`: the merged network has the original's structure and costs nothing more.
"""

import copy
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.recovery.lora import SCALE, LowRank
from spaces.stages.artifact import Split
from spaces.stages.inputs import Inputs, each, n_rows

_CHUNK = 1024  # examples that are read at once

Updates = dict[str, Tensor]
"""Name of a weight to what an adapter adds to it, of the weight's shape."""


def updates_of(module: nn.Module) -> Updates:
    """Returns the updates of a network that `with_low_rank` made."""
    found = {}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part, "weight"):
            low_rank = part.parametrizations.weight[0]
            assert isinstance(low_rank, LowRank)
            shape = part.parametrizations.weight.original.shape
            found[f"{name}.weight"] = (SCALE * (low_rank.b @ low_rank.a)).detach().view(shape)
    return found


def merged_adapters(original: nn.Module, adapters: Sequence[tuple[float, Updates]]) -> nn.Module:
    """Returns a copy of a network with the weighted updates of adapters added.

    Args:
        original: The network; left as it is.
        adapters: Each adapter's weight and updates.
    """
    result = copy.deepcopy(original)
    state = result.state_dict()
    for name in {name for _, updates in adapters for name in updates}:
        total = sum(weight * updates[name] for weight, updates in adapters)
        state[name] = state[name] + total
    result.load_state_dict(state)
    return result


def packed(module: nn.Module, notes: dict[str, Any]) -> bytes:
    """Returns the updates of a network that `with_low_rank` made, and notes on its training, as bytes."""
    buffer = io.BytesIO()
    torch.save({"updates": updates_of(module), "notes": json.dumps(notes)}, buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> tuple[Updates, dict[str, Any]]:
    """Returns updates and notes from what `packed` made."""
    found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return found["updates"], json.loads(found["notes"])


def parts_of_split(split: Split, n: int) -> list["SelectedRows"]:
    """Returns a part of the examples for each of `n` adapters.

    Where labels are classes, an adapter gets those of its own classes: the first ones, the next ones, and so on. Else parts are runs of examples.

    Raises:
        StageError: There are fewer classes, or fewer than two examples for each.
    """
    labels = np.concatenate([labels for _, labels in split.batches(_CHUNK)])
    if labels.ndim == 1 and labels.dtype.kind in "iu" and (labels >= 0).all():
        classes = np.unique(labels)
        if len(classes) < n:
            raise StageError(
                f"recover.adapters must be at most {len(classes)}, the number of classes, not {n}"
            )
        rows = [np.flatnonzero(np.isin(labels, own)) for own in np.array_split(classes, n)]
    else:
        rows = np.array_split(np.arange(len(labels)), n)
    if min(map(len, rows)) < 2:
        raise StageError(
            f"recover.adapters={n} needs at least 2 examples for each, but one gets {min(map(len, rows))}"
        )
    return [SelectedRows(split, own) for own in rows]


@dataclass(frozen=True, eq=False)
class SelectedRows:
    """Some examples of a split, in its order; implements `Split`.

    Attributes:
        split: The whole split.
        rows: Their ascending indices, `(n,)`.
    """

    split: Split
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        """Digest of the split and the rows."""
        return digest_of(self.split.digest, self.rows.tobytes().hex())

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Inputs, NDArray[Any]]]:
        """Yields inputs and labels of the rows; a batch may be smaller than `batch_size`."""
        left, start = len(self) if limit is None else min(limit, len(self)), 0
        for inputs, labels in self.split.batches(max(batch_size, _CHUNK)):
            n = n_rows(inputs)
            inside = self.rows[(self.rows >= start) & (self.rows < start + n)] - start
            start += n
            for at in range(0, len(inside), batch_size):
                chosen = inside[at : at + min(batch_size, left)]
                if len(chosen):
                    yield each(lambda array, rows=chosen: array[rows], inputs), labels[chosen]  # type: ignore[misc]
                left -= len(chosen)
            if not left:
                return
