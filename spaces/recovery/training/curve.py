"""The curve of a training: loss and learning rate of each epoch."""

from dataclasses import dataclass, field, replace

from spaces.recovery.training.stored_activations import StoredBytes


@dataclass(frozen=True)
class Curve:
    """One entry per epoch.

    Attributes:
        losses: Mean training loss, over the epoch's steps.
        learning_rates: Learning rate of the epoch's last step.
        peak_rate: Peak learning rate; None if not known.
        activations: Bytes that the first step stored for its backward pass; None before it.
        seconds: Duration of the epoch; not compared, since no two trainings take equally long.
    """

    losses: tuple[float, ...] = ()
    learning_rates: tuple[float, ...] = ()
    peak_rate: float | None = None
    activations: StoredBytes | None = None
    seconds: tuple[float, ...] = field(default=(), compare=False)

    def with_epoch(self, loss: float, learning_rate: float, seconds: float) -> "Curve":
        """Returns the curve with another epoch appended."""
        rates = (*self.learning_rates, learning_rate)
        return replace(
            self, losses=(*self.losses, loss), learning_rates=rates, seconds=(*self.seconds, seconds)
        )

    def as_json(self) -> list[dict[str, float]]:
        """Returns a row per epoch, for `Artifact.notes`."""
        rows = zip(self.losses, self.learning_rates, strict=True)
        return [{"epoch": n, "loss": loss, "learning_rate": rate} for n, (loss, rate) in enumerate(rows, 1)]
