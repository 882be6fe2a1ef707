"""Makes the scores of different groups comparable, so that one ranking can cover all of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spaces.errors import StageError

if TYPE_CHECKING:
    import torch


def normalise(scores: "Mapping[str, torch.Tensor]", criterion: str) -> "dict[str, torch.Tensor]":
    """Divides the scores of each group by their mean; scores that are all 0 stay so.

    Args:
        scores: By name of the group, `(n_channels,)` scores of at least 0.
        criterion: The criterion's name, for messages.

    Raises:
        StageError: A score is not finite.
    """
    import torch

    normalised = {}
    for group, values in scores.items():
        if not torch.isfinite(values).all():
            raise StageError(
                f"prune.criterion={criterion} gives scores that are not finite for {group}: the network's weights or "
                "its outputs on the calibration examples are not finite"
            )
        mean = values.double().mean()
        normalised[group] = (
            values.double() / mean if mean > 0 else torch.zeros_like(values, dtype=torch.float64)
        )
    return normalised
