"""The curve of a training: loss and learning rate of each epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """One entry per epoch.

    Attributes:
        losses: Mean training loss, over the epoch's steps.
        learning_rates: Learning rate of the epoch's last step.
    """

    losses: tuple[float, ...] = ()
    learning_rates: tuple[float, ...] = ()

    def with_epoch(self, loss: float, learning_rate: float) -> "Curve":
        """Returns the curve with another epoch appended."""
        return Curve((*self.losses, loss), (*self.learning_rates, learning_rate))

    def as_json(self) -> list[dict[str, float]]:
        """Returns a row per epoch, for `Artifact.notes`."""
        rows = zip(self.losses, self.learning_rates, strict=True)
        return [{"epoch": n, "loss": loss, "learning_rate": rate} for n, (loss, rate) in enumerate(rows, 1)]
