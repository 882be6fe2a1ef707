"""The steps of a training, epoch by epoch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from spaces.errors import StageError
from spaces.recovery.training.augmentation import augment
from spaces.recovery.training.batch import Batch, Loss
from spaces.recovery.training.examples import Examples
from spaces.recovery.training.modes import set_train_mode
from spaces.recovery.training.optimization.optimizers import set_learning_rate
from spaces.recovery.training.optimization.recipe import Recipe
from spaces.recovery.training.optimization.schedules import factor_at
from spaces.recovery.training.settling import settle_batch_norm
from spaces.recovery.training.stored_activations import StoredActivations
from spaces.stages.output_spec import FIRST_OUTPUT, OutputSpec
from spaces.stages.torch_outputs import judged_output

CHECKED = 16  # steps after which losses are read: reading one waits for an accelerator

# Called with the index of the step, from 0, and the number of steps of the whole training.
StepHook = Callable[[int, int], None]


@dataclass(frozen=True)
class Steps:
    """Runs the steps of a training.

    Attributes:
        trained: The network, as `network`, and the loss if that is a module.
        examples: Source of the batches.
        n_steps: Steps per epoch.
        recipe: The hyperparameters.
        peak_rate: Peak learning rate.
        loss: The loss to minimise.
        optimizer: The optimizer of all parameters in `trained`.
        stage: Name of the training stage, for error messages.
        whole: Whether all of the network gets train mode; False for torch's own layers only: see `modes.py`.
        after_backward: Called between the backward pass and the step.
        after_step: Called after the step.
        activations: Stores the network's activations for the backward pass; the loss stores its own as they are.
        forward: Calls the network in training.
        output: The output that the loss gets.
    """

    trained: nn.ModuleDict
    examples: Examples
    n_steps: int
    recipe: Recipe
    peak_rate: float
    loss: Loss
    optimizer: torch.optim.Optimizer
    stage: str
    whole: bool
    after_backward: StepHook
    after_step: StepHook
    activations: StoredActivations
    forward: Callable[[Tensor], Any]
    output: OutputSpec = FIRST_OUTPUT

    def epoch(self, epoch: int, generator: torch.Generator) -> tuple[float, float]:
        """Trains for one epoch; returns its mean loss, and its last learning rate.

        Args:
            epoch: Index of the epoch, from 0.
            generator: Source of the order of examples and of their augmentation.

        Raises:
            StageError: The loss or a weight is not finite.
        """
        self.trained.train()
        set_train_mode(self.trained["network"], self.whole)
        total, factor = 0.0, 1.0
        losses: list[Tensor] = []
        for step, batch in enumerate(self.batches(generator), epoch * self.n_steps):
            factor = factor_at(self.recipe.schedule, step, self.recipe.epochs * self.n_steps)
            set_learning_rate(self.optimizer, factor)
            losses.append(self.step(batch, step))
            if len(losses) == CHECKED or step == (epoch + 1) * self.n_steps - 1:
                total, losses = sum(torch.stack(losses).tolist(), total), []
                if not isfinite(total):
                    raise StageError(self._diverged("training loss is", epoch))
        self._check_weights(epoch)
        self.settle(generator)
        return total / self.n_steps, factor * self.peak_rate

    def settle(self, generator: torch.Generator) -> None:
        """Recomputes BatchNorm statistics with the present weights, if the recipe says so."""
        if self.recipe.settles_batch_norm:
            set_train_mode(self.trained["network"], self.whole)
            inputs = (batch.inputs for batch in self.batches(generator))
            settle_batch_norm(self.trained["network"], inputs, self.recipe.batch_size)

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yields the batches of an epoch, in a random order, augmented."""
        for inputs, labels in self.examples.epoch(self.recipe.batch_size, generator):
            batch = augment(self.recipe.augmentation, Batch(inputs, labels), generator)
            yield replace(batch, inputs=batch.inputs.contiguous())  # see `training._contiguous`

    def step(self, batch: Batch, step: int) -> Tensor:
        """Takes one step; returns the loss before it, a scalar on the network's device.

        Args:
            batch: Examples.
            step: Index of the step in the whole training.
        """
        n_steps = self.recipe.epochs * self.n_steps
        self.optimizer.zero_grad()
        with self.activations.of(self.trained["network"], batch.inputs):
            outputs = self.forward(batch.inputs)
        loss = self.loss(judged_output(outputs, self.output), batch)
        torch.autograd.backward(loss)
        self.after_backward(step, n_steps)
        self.optimizer.step()
        self.after_step(step, n_steps)
        return loss.detach()

    def _check_weights(self, epoch: int) -> None:
        """Checks the weights after the last step, which no loss was computed with yet."""
        for name, parameter in self.trained["network"].named_parameters():
            if not parameter.isfinite().all():
                raise StageError(self._diverged(f"weights {name} are", epoch))

    def _diverged(self, what: str, epoch: int) -> str:
        return (
            f"{self.stage}: the {what} not finite in epoch {epoch + 1} of {self.recipe.epochs}, with "
            f"learning_rate={self.peak_rate:g} and optimizer={self.recipe.optimizer}; a lower learning_rate helps"
        )
