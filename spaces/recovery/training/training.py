"""The training loop of all training stages: deterministic on the CPU, resumable, observable."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

import torch
from torch import nn

from spaces.models.torch.accelerator import device_of
from spaces.recovery.training.averaging import Average
from spaces.recovery.training.batch import Loss
from spaces.recovery.training.checkpoints import Checkpoints
from spaces.recovery.training.curve import Curve
from spaces.recovery.training.determinism import fixed_threads, seeded
from spaces.recovery.training.examples import examples_of, first_inputs, n_batches
from spaces.recovery.training.graphed import Graphed
from spaces.recovery.training.modes import computes_the_same_in_training
from spaces.recovery.training.optimization.optimizers import make_optimizer
from spaces.recovery.training.optimization.recipe import Recipe
from spaces.recovery.training.range_test import range_test
from spaces.recovery.training.steps import StepHook, Steps
from spaces.recovery.training.stored_activations import StoredActivations
from spaces.stages.artifact import Split
from spaces.stages.output_spec import FIRST_OUTPUT, OutputSpec
from spaces.stages.stage import StageContext


def train(
    module: nn.Module,
    split: Split,
    recipe: Recipe,
    *,
    loss: Loss,
    context: StageContext,
    stage: str,
    key: str | None,
    factors: Mapping[str, float] | None = None,
    after_backward: StepHook | None = None,
    after_step: StepHook | None = None,
    output: OutputSpec = FIRST_OUTPUT,
) -> Curve:
    """Trains `module` in place; leaves it in eval mode, on the CPU, in the contiguous memory format.

    On the CPU, the same module, split, recipe, loss and seed give bit-identical results, also after an
    interruption, and with or without a watch. On an accelerator the order of summation is not fixed.

    Args:
        module: The network. Parameters that require no gradient are frozen, as are the statistics of a
            BatchNorm whose parameters are all frozen.
        split: The train split; labels below 0 mean that there are none.
        recipe: The hyperparameters.
        loss: Maps outputs and the batch to a scalar. If it is a module, it is moved to the device, and its
            parameters are trained, too.
        context: Seed, accelerator, cache for checkpoints, and the watch, which is called after every epoch.
        stage: Name of the training stage, for the watch and for error messages.
        key: Digest of everything that the result depends on, to find the checkpoint of an interrupted
            training; None for no checkpoints.
        factors: Factor on the learning rate by name of the parameter; 1 for the others; 0 freezes a
            parameter.
        after_backward: Called between the backward pass and the step, e.g. to add a subgradient to gradients.
        after_step: Called after the step, e.g. for a proximal step on weights.
        output: The output that the loss gets, as logits.

    Raises:
        StageError: There are fewer than two examples, or the loss or a weight is not finite.
        ConfigError: The accelerator is unknown or not available.
        StopTrialError: The watch ends the trial.
    """
    device = device_of(context.accelerator)
    examples = examples_of(split, device)
    checkpoints = Checkpoints(context.cache, key)
    trained = nn.ModuleDict({"network": module, **({"loss": loss} if isinstance(loss, nn.Module) else {})})
    average = Average(module, recipe.average_decay) if recipe.average_decay else None
    if average is not None:
        trained["average"] = average
    whole = computes_the_same_in_training(module, first_inputs(split))
    forward = Graphed(module) if recipe.cuda_graphs else module
    hooks = (after_backward or _nothing, _with_average(after_step or _nothing, average, module))
    n_steps = n_batches(len(split), recipe.batch_size)

    def steps_of(peak_rate: float, after: tuple[StepHook, StepHook]) -> Steps:
        optimizer = make_optimizer(recipe, peak_rate, trained, factors)
        return Steps(
            trained,
            examples,
            n_steps,
            recipe,
            peak_rate,
            loss,
            optimizer,
            stage,
            whole,
            *after,
            StoredActivations(recipe.stored_activation_bits),
            forward,
            output,
        )

    with _frozen(module, factors or {}), _on_device(trained, device), _without_stream_warnings():
        rate = recipe.learning_rate or checkpoints.peak_rate()
        if rate is None:
            rate = _tested_rate(steps_of(1.0, (_nothing, _nothing)), context)
        steps = steps_of(rate, hooks)
        curve = replace(checkpoints.restore(trained, steps.optimizer), peak_rate=rate)
        for epoch in range(len(curve.losses), recipe.epochs):
            with fixed_threads(recipe.threads), seeded(stage, context.seed, epoch) as generator:
                began = perf_counter()
                loss_and_rate = steps.epoch(epoch, generator)
                curve = curve.with_epoch(*loss_and_rate, perf_counter() - began)
            curve = replace(curve, activations=curve.activations or steps.activations.first)
            checkpoints.keep(trained, steps.optimizer, curve)
            kept = module if average is None else average.network
            _report_epoch(context, stage, epoch + 1, recipe.epochs, kept, device)
        if average is not None:
            average.copy_to(module)
            with fixed_threads(recipe.threads), seeded(stage, context.seed, "average") as generator:
                steps.settle(generator)
    checkpoints.drop()
    return curve


def _with_average(after_step: StepHook, average: Average | None, module: nn.Module) -> StepHook:
    """Returns the hook, followed by an update of the moving average."""
    if average is None:
        return after_step

    def hook(step: int, n_steps: int) -> None:
        after_step(step, n_steps)
        average.update(module)

    return hook


def _tested_rate(steps: Steps, context: StageContext) -> float:
    with fixed_threads(steps.recipe.threads), seeded(steps.stage, context.seed, "range test") as generator:
        return range_test(steps, generator)


def _nothing(step: int, n_steps: int) -> None:
    del step, n_steps


def _report_epoch(
    context: StageContext, stage: str, epoch: int, n_epochs: int, module: nn.Module, device: torch.device
) -> None:
    if context.watch is None:
        return
    shown = (
        module if device.type == "cpu" else copy.deepcopy(module).cpu()
    )  # recorded graphs need the network's own memory
    context.watch.epoch(stage, epoch, n_epochs, shown.eval())


@contextmanager
def _frozen(module: nn.Module, factors: Mapping[str, float]) -> Iterator[None]:
    """Freezes parameters whose factor is 0 until the block ends."""
    frozen = [p for name, p in module.named_parameters() if p.requires_grad and factors.get(name) == 0]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


@contextmanager
def _on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Moves the module to the device until the block ends, with contiguous weights."""
    _contiguous(module.to(device))
    try:
        yield
    finally:
        module.cpu().eval()
        module.zero_grad(set_to_none=True)


@contextmanager
def _without_stream_warnings() -> Iterator[None]:
    """Hides torch's advice on gradients from another stream, where recorded passes run."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match", UserWarning)
        yield


def _contiguous(module: nn.Module) -> None:
    """Makes the weights contiguous, as the inputs are.

    With weights or inputs in channels-last format, the backward pass of a strided 1x1 convolution writes beyond its memory
    on the CPU (torch 2.13).
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()
