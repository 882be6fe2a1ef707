"""The task's loss on labels: plain fine-tuning."""

from dataclasses import dataclass

from torch import Tensor

from spaces.errors import StageError
from spaces.recovery.training.batch import Batch
from spaces.task_losses import LOSSES, TaskLoss


@dataclass(frozen=True)
class LabelLoss:
    """Mean of a loss over a batch; mixed examples count for both of their labels.

    Attributes:
        label_smoothing: Share of the target that is spread evenly over the classes (Szegedy et al. 2015, arXiv
            1512.00567, section 7).
        loss: The task's loss.
    """

    label_smoothing: float = 0.0
    loss: TaskLoss = LOSSES["cross_entropy"]

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Returns a scalar; `outputs` are `(b, ...)`, logits `(b, n_classes)` for the cross-entropy.

        Raises:
            StageError: An example has no label.
        """
        if (
            self.loss.dtype == "int64"
            and not self.loss.allows_empty
            and (batch.labels.reshape(len(batch.labels), -1) < 0).all(1).any()
        ):
            raise StageError(f"{self.loss.name} needs labels, but some examples of the train split have none")
        own = self.loss.each(outputs, batch.labels, self.label_smoothing)
        if batch.partners is None or batch.shares is None:
            return own.mean()
        other = self.loss.each(outputs, batch.partners, self.label_smoothing)
        return (batch.shares * own + (1 - batch.shares) * other).mean()
