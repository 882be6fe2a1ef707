"""How trainings went, epoch by epoch, and whether one is worth going on in view of the earlier ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import TrialState

from evaluators.base import EvaluationContext, Measurement
from search.journal import quiet
from search.results import TrialRecord
from spaces.errors import StopTrialError

if TYPE_CHECKING:
    import torch

DETAIL = "curve"  # of a trial's details
MOST_EXAMPLES = 1000  # of the validation split, that every epoch is judged on

_STATES = {"complete": TrialState.COMPLETE, "infeasible": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


@dataclass(frozen=True)
class Curve:
    """The metric after each epoch of one trial's trainings, on the first examples of the validation split.

    Attributes:
        metric: The task's metric, e.g. `top1`.
        values: After epochs 1, 2, ..., higher is better; before export and quantization.
        macs: Multiply-accumulates of the network that was trained.
    """

    metric: str
    values: tuple[float, ...]
    macs: int

    def to_detail(self) -> dict[str, Any]:
        """Returns it as a trial's detail, JSON-able."""
        return {"metric": self.metric, "values": list(self.values), "macs": self.macs}


def curve_of(details: Mapping[str, Any]) -> Curve | None:
    """Returns the curve in a trial's details, or None: nothing was trained, or it had been trained before."""
    found = details.get(DETAIL)
    if not found:
        return None
    return Curve(str(found["metric"]), tuple(found["values"]), int(found["macs"]))


@dataclass(frozen=True)
class Rival:
    """An earlier trial, as far as a pruner looks at it."""

    state: str
    curve: Curve | None


@dataclass(frozen=True)
class Pruning:
    """Decides by the curves of earlier trials, as known when a trial was proposed.

    Attributes:
        pruner: Any of Optuna's.
        name: Of the study; a pruner may divide trials by it.
        rivals: The earlier trials, by number.
        like_with_like: Whether only networks that are as small count: with costs among the objectives, a larger network that
            is better says nothing against a smaller one.
    """

    pruner: optuna.pruners.BasePruner
    name: str
    rivals: tuple[Rival, ...]
    like_with_like: bool

    def stops(self, curve: Curve) -> bool:
        """Whether the pruner would end a trial whose curve is so far `curve`."""
        with quiet():
            study = optuna.create_study(study_name=self.name, direction="maximize", pruner=self.pruner)
        for rival in self.rivals:
            study.add_trial(self._replayed(rival, curve))
        trial = study.ask()
        for epoch, value in enumerate(curve.values, 1):
            trial.report(value, epoch)
        return trial.should_prune()

    def n_rivals(self, curve: Curve) -> int:
        """Returns how many trials it compares with."""
        return sum(self._counts(rival, curve) for rival in self.rivals)

    def _counts(self, rival: Rival, curve: Curve) -> bool:
        if rival.curve is None or not rival.curve.values or rival.state not in _STATES:
            return False
        return not self.like_with_like or rival.curve.macs <= curve.macs

    def _replayed(self, rival: Rival, curve: Curve) -> optuna.trial.FrozenTrial:
        """Returns the rival as Optuna's trial; one that does not count keeps its number, and says nothing."""
        if rival.curve is None or not self._counts(rival, curve):
            return optuna.trial.create_trial(state=TrialState.FAIL)
        state = _STATES[rival.state]
        values = rival.curve.values
        return optuna.trial.create_trial(
            state=state,
            value=values[-1],
            intermediate_values=dict(enumerate(values, 1)),
            params={},
            distributions={},
        )


class CurveWatch:
    """Judges a network after every epoch; implements `spaces.stage.Watch`.

    Args:
        context: What trials are judged on.
        pruning: Whether the trial is worth going on; None notes the curve only.
        check: Is called after every epoch with what was done, and may raise.
    """

    def __init__(
        self,
        context: EvaluationContext,
        pruning: Pruning | None,
        check: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._context, self._pruning, self._check = context, pruning, check
        self._values: list[float] = []
        self._macs = 0
        self._scores: list[float] = []  # of the last epoch's examples

    @property
    def curve(self) -> Curve | None:
        """What was seen so far; None if nothing was trained."""
        if not self._values:
            return None
        return Curve(self._context.metric.name, tuple(self._values), self._macs)

    def epoch(self, stage: str, epoch: int, n_epochs: int, module: "torch.nn.Module") -> None:
        """Notes the metric.

        Raises:
            StopTrialError: The pruner would stop here.
            TimeLimitError: The trial's time is up.
        """
        self._check(f"after epoch {epoch} of {n_epochs} of {stage}")
        if not self._values:
            from spaces.pruning.counts import count

            self._macs = count(module, self._context.reference.artifact.input.shape).macs
        metric = self._context.metric
        self._scores = self._judged(module)
        self._values.append(metric.scale * float(np.mean(self._scores)))
        curve = self.curve
        assert curve is not None  # it has a value now
        if epoch == n_epochs or self._pruning is None or not self._pruning.stops(curve):
            return
        raise StopTrialError(
            f"{metric.name} is {self._values[-1]:.4g} {metric.unit} after epoch {epoch} of {n_epochs} of {stage}: "
            f"{type(self._pruning.pruner).__name__} stops it in view of {self._pruning.n_rivals(curve)} earlier trials"
            + (" with networks as small" if self._pruning.like_with_like else "")
        )

    def estimates(self) -> tuple[Measurement, ...]:
        """Returns what the last epoch says of the metric, under the names that estimates have."""
        if not self._values:
            return ()
        metric, n = self._context.metric, len(self._scores)
        dense = np.mean(self._of_outputs(self._context.reference.outputs[:n])) * metric.scale
        error = metric.scale * float(np.std(self._scores)) / math.sqrt(n)
        values = {
            f"{metric.name}_partial": self._values[-1],
            f"{metric.name}_drop_partial": float(dense) - self._values[-1],
            f"{metric.name}_partial_error": error,
        }
        found = [Measurement(name, value, metric.unit, "measured") for name, value in values.items()]
        return (*found, Measurement(f"{metric.name}_partial_images", n, "images", "measured"))

    def _judged(self, module: "torch.nn.Module") -> list[float]:
        import torch

        with torch.inference_mode():
            outputs = [
                module(torch.from_numpy(inputs)).numpy()
                for inputs, _ in self._context.split.batches(250, MOST_EXAMPLES)
            ]
        return self._of_outputs(np.concatenate(outputs))

    def _of_outputs(self, outputs: "np.ndarray[Any, np.dtype[np.float32]]") -> list[float]:
        labels = np.concatenate([labels for _, labels in self._context.split.batches(250, len(outputs))])
        scores = self._context.metric.per_example(outputs, labels)
        return [float(score) for score in np.where(np.isfinite(scores), scores, 0.0)]


def pruning_of(
    pruner: optuna.pruners.BasePruner | None, name: str, records: Sequence[TrialRecord], n_objectives: int
) -> Pruning | None:
    """Returns how a new trial is judged while it trains; None if trials always train to the end."""
    if pruner is None:
        return None
    rivals = tuple(Rival(record.state, curve_of(record.details)) for record in records)
    return Pruning(pruner, name, rivals, like_with_like=n_objectives > 1)
