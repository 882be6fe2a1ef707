"""Cross-entropy with the labels: plain fine-tuning."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from spaces.errors import StageError
from spaces.recovery.training.batch import Batch


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy of a batch; mixed examples count for both of their labels.

    Attributes:
        label_smoothing: Share of the target that is spread evenly over the classes (Szegedy et al. 2015, arXiv
            1512.00567, section 7).
    """

    label_smoothing: float = 0.0

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Returns a scalar; `outputs` are logits `(b, n_classes)`.

        Raises:
            StageError: An example has no label.
        """
        if (batch.labels < 0).any():
            raise StageError("cross-entropy needs labels, but some examples of the train split have none")
        own = self._each(outputs, batch.labels)
        if batch.partners is None or batch.shares is None:
            return own.mean()
        other = self._each(outputs, batch.partners)
        return (batch.shares * own + (1 - batch.shares) * other).mean()

    def _each(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(
            outputs, labels, reduction="none", label_smoothing=self.label_smoothing
        )
