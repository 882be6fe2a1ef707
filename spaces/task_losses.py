"""Training losses by name: what a network's outputs are compared with depends on the task.

A task names the loss that suits its labels; stages that train look it up here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -1  # a class label below 0 is none
RECONSTRUCTION_HEAD = 2  # values before the input in the label of an autoencoder's example: flag and group
_TEMPERATURE = 0.1  # of the contrastive loss
_LEAST = 1e-7  # probability whose logarithm is taken


@dataclass(frozen=True)
class TaskLoss:
    """A loss.

    Attributes:
        name: Its name.
        each: Returns the loss of each example, `(b,)`, from outputs `(b, ...)`, labels `(b, ...)` and the label smoothing.
        class_axis: Axis of the outputs along which classes lie: outputs are compared with the uncompressed network's by the
            divergence of their softmaxes. None where outputs are no class scores: then by the mean of squared differences.
        dtype: Type of the labels, as numpy names it.
        has_smoothing: Whether labels can be smoothed.
        allows_empty: Whether an example may have no class at all (all below 0), as an empty transcript.
        n_extra: Number of values of a label that outputs are not compared with.
        any_size: Whether outputs may have any number of values for each example.
    """

    name: str
    each: "Callable[[Tensor, Tensor, float], Tensor]"
    class_axis: int | None = None
    dtype: str = "float32"
    has_smoothing: bool = False
    allows_empty: bool = False
    n_extra: int = 0
    any_size: bool = False

    def usable(self, labels: NDArray[Any]) -> bool:
        """Returns whether all of these labels can be trained on."""
        if labels.dtype == object:
            return False
        if self.dtype == "int64":
            flat = labels.reshape(len(labels), -1)
            return bool(labels.dtype.kind in "iub" and (self.allows_empty or (flat >= 0).any(axis=1).all()))
        return labels.dtype.kind in "iufb" and bool(np.isfinite(labels.astype(np.float64)).all())


def task_loss(name: str | None) -> TaskLoss | None:
    """Returns a loss by its name; None for None.

    Raises:
        StageError: There is no such loss.
    """
    if name is None:
        return None
    if name not in LOSSES:
        raise StageError(unknown_name("loss", name, LOSSES, "the task's loss"))
    return LOSSES[name]


def _cross_entropy(outputs: "Tensor", labels: "Tensor", smoothing: float) -> "Tensor":
    """Cross-entropy of logits `(b, n_classes, ...)` with classes `(b, ...)`; positions with a label below 0 do not count.

    Logits of images that are smaller than the masks are interpolated.
    """
    from torch.nn import functional

    if outputs.ndim == 2:
        return functional.cross_entropy(outputs, labels, reduction="none", label_smoothing=smoothing)
    if outputs.ndim == 4 and outputs.shape[2:] != labels.shape[1:]:
        outputs = functional.interpolate(outputs, labels.shape[1:], mode="bilinear")
    each = functional.cross_entropy(
        outputs, labels, reduction="none", label_smoothing=smoothing, ignore_index=IGNORED
    )
    counted = (labels != IGNORED).flatten(1)
    return each.flatten(1).sum(1) / counted.sum(1).clamp(min=1)


def _cross_entropy_last(outputs: "Tensor", labels: "Tensor", smoothing: float) -> "Tensor":
    """Cross-entropy of logits `(b, ..., n_classes)` with classes `(b, ...)`, as for `cross_entropy`."""
    return _cross_entropy(outputs.movedim(-1, 1), labels, smoothing)


def _tokens(outputs: "Tensor", labels: "Tensor", smoothing: float) -> "Tensor":
    """Cross-entropy of logits `(b, steps, n_classes)` with classes `(b, steps)`."""
    return _cross_entropy(outputs.transpose(1, 2), labels, smoothing)


def _ctc(outputs: "Tensor", labels: "Tensor", blank: int) -> "Tensor":
    """CTC loss per symbol, of logits `(b, steps, n_classes)` and symbols `(b, most)`, -1 behind the last; all steps count.

    An example whose symbols do not fit into the steps counts as 0.
    """
    import torch
    from torch.nn import functional

    lengths = (labels >= 0).sum(1)
    steps = torch.full_like(lengths, outputs.shape[1])
    shares = functional.log_softmax(outputs, dim=2).transpose(0, 1)
    losses = functional.ctc_loss(
        shares,
        labels.clamp(min=0),
        steps,
        lengths,
        blank % outputs.shape[2],
        reduction="none",
        zero_infinity=True,
    )
    return losses / lengths.clamp(min=1)


def _squared(outputs: "Tensor", labels: "Tensor", _: float) -> "Tensor":
    """Mean of squared differences; outputs and labels of equal size per example, in any shape."""
    return ((outputs.flatten(1) - labels.reshape(len(labels), -1)) ** 2).mean(1)


def _absolute(outputs: "Tensor", labels: "Tensor", _: float) -> "Tensor":
    """Mean of absolute differences; shapes as for `squared`."""
    return (outputs.flatten(1) - labels.reshape(len(labels), -1)).abs().mean(1)


def _binary(outputs: "Tensor", labels: "Tensor", _: float) -> "Tensor":
    """Cross-entropy of each logit with a label 0 or 1, mean over an example's; two logits of one label are its answers'.

    Labels below 0 do not count.
    """
    from torch.nn import functional

    logits = outputs.flatten(1)
    targets = labels.reshape(len(labels), -1).to(logits.dtype)
    if targets.shape[1] == 1 and logits.shape[1] == 2:
        logits = logits[:, 1:] - logits[:, :1]
    return _mean_of_labelled(
        functional.binary_cross_entropy_with_logits(logits, targets.clamp(min=0), reduction="none"), targets
    )


def _probability(outputs: "Tensor", labels: "Tensor", _: float) -> "Tensor":
    """Cross-entropy of each probability with a label 0 or 1, mean over an example's; labels below 0 do not count."""
    from torch.nn import functional

    shares = outputs.flatten(1).clamp(_LEAST, 1 - _LEAST)
    targets = labels.reshape(len(labels), -1).to(shares.dtype)
    return _mean_of_labelled(
        functional.binary_cross_entropy(shares, targets.clamp(min=0), reduction="none"), targets
    )


def _mean_of_labelled(each: "Tensor", targets: "Tensor") -> "Tensor":
    """Returns the mean over the values whose label is 0 or above, `(b,)`."""
    counted = (targets >= 0).to(each.dtype)
    return (each * counted).sum(1) / counted.sum(1).clamp(min=1)


def _reconstruction(outputs: "Tensor", labels: "Tensor", _: float) -> "Tensor":
    """Mean of squared differences from the values of a label after its first two (flag and group)."""
    return _squared(outputs, labels[:, RECONSTRUCTION_HEAD:], 0.0)


def _contrastive(outputs: "Tensor", labels: "Tensor", _: float) -> "Tensor":
    """Supervised contrastive loss of vectors `(b, ...)` with classes `(b,)`, from the others of the batch (Khosla et al. 2020,
    arXiv 2004.11362, eq. 2); 0 for an example that is alone in its class.
    """
    import torch
    from torch.nn import functional

    vectors = functional.normalize(outputs.flatten(1), dim=1)
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    similar = (vectors @ vectors.T / _TEMPERATURE).masked_fill(itself, -torch.inf)
    logs = similar - similar.logsumexp(dim=1, keepdim=True)
    same = (labels[:, None] == labels[None]) & ~itself
    return -logs.masked_fill(~same, 0.0).sum(1) / same.sum(1).clamp(min=1)


LOSSES: dict[str, TaskLoss] = {
    loss.name: loss
    for loss in (
        TaskLoss("cross_entropy", _cross_entropy, 1, "int64", has_smoothing=True),
        TaskLoss("cross_entropy_last", _cross_entropy_last, -1, "int64", has_smoothing=True),
        TaskLoss("tokens", _tokens, 2, "int64", has_smoothing=True),
        TaskLoss("ctc", lambda o, y, _: _ctc(o, y, 0), 2, "int64", allows_empty=True),
        TaskLoss("ctc_last", lambda o, y, _: _ctc(o, y, -1), 2, "int64", allows_empty=True),
        TaskLoss("contrastive", _contrastive, None, "int64", any_size=True),
        TaskLoss("squared", _squared),
        TaskLoss("absolute", _absolute),
        TaskLoss("binary", _binary),
        TaskLoss("probability", _probability),
        TaskLoss("reconstruction", _reconstruction, n_extra=RECONSTRUCTION_HEAD),
    )
}
