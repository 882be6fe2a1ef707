"""Training curves, and pruning of a training by comparison with the curves of earlier trials."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.trial import TrialState

from evaluators.base import EvaluationContext, Measurement
from evaluators.metric import Metric, Outputs, sign_of
from evaluators.runtime import answers, labels_of, rollout_of
from evaluators.task.paired_estimate import RESAMPLES
from evaluators.task.statistics.bootstrap import resampled_values
from evaluators.task.statistics.scores import Statistics, is_pooled, statistics_of, value_of
from search.record.curve import Curve, curve_of
from search.record.results import TrialRecord
from search.record.storage.journal import quiet
from spaces.errors import StopTrialError
from spaces.stages.inputs import Inputs, each, joined_inputs, n_rows

if TYPE_CHECKING:
    import torch

MOST_EXAMPLES = 1000  # of the validation split, on which the metric is computed after every epoch

_STATES = {"complete": TrialState.COMPLETE, "infeasible": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


@dataclass(frozen=True)
class Rival:
    """What a pruner uses of an earlier trial: its state and its curve (None if it trained nothing)."""

    state: str
    curve: Curve | None


@dataclass(frozen=True)
class Pruning:
    """Prunes a training by the curves of the trials that had ended when it was proposed.

    Attributes:
        pruner: Any of Optuna's.
        name: Name of the study; a pruner may group trials by it.
        rivals: The earlier trials, by number.
        like_with_like: Whether a network is compared only with networks of at most as many
            multiply-accumulates. With costs among the objectives, a larger network with a better metric does
            not dominate a smaller one.
    """

    pruner: optuna.pruners.BasePruner
    name: str
    rivals: tuple[Rival, ...]
    like_with_like: bool

    def race(self, macs: int) -> "Race":
        """Returns the comparison of a network of `macs` multiply-accumulates with the earlier trials."""
        return Race(self, macs)


class Race:
    """Compares one training with the earlier ones, in a single-objective Optuna study, as pruners require.

    The earlier trials are replayed in it, epoch by epoch, since a pruner may store attributes on trials as
    they run.

    Args:
        pruning: The pruner and the earlier trials.
        macs: Multiply-accumulates of the network that trains.
    """

    def __init__(self, pruning: Pruning, macs: int) -> None:
        self._most_macs = macs if pruning.like_with_like else None
        with quiet():
            self._study = optuna.create_study(
                study_name=pruning.name, direction="maximize", pruner=pruning.pruner
            )
        self.n_rivals = sum(self._replayed(rival) for rival in pruning.rivals)
        self._trial = self._study.ask()
        self._n_epochs = 0

    def stops(self, value: float) -> bool:
        """Returns whether the pruner ends the training, given the metric after one more epoch."""
        self._n_epochs += 1
        self._trial.report(value, self._n_epochs)
        return self._trial.should_prune()

    def _replayed(self, rival: Rival) -> bool:
        """Replays an earlier trial and returns whether it is compared; otherwise it is replayed as failed."""
        trial = self._study.ask()
        values = rival.curve.values if rival.curve is not None and self._counts(rival.curve) else ()
        if not values or rival.state not in _STATES:
            self._study.tell(trial, state=TrialState.FAIL)
            return False
        for epoch, value in enumerate(values, 1):
            trial.report(value, epoch)
            trial.should_prune()
        state = _STATES[rival.state]
        self._study.tell(trial, values[-1] if state == TrialState.COMPLETE else None, state)
        return True

    def _counts(self, curve: Curve) -> bool:
        return self._most_macs is None or curve.macs <= self._most_macs


class CurveWatch:
    """Computes the metric of a network after every epoch; implements `spaces.stages.stage.Watch`.

    Args:
        context: Validation split, metric and float model.
        pruning: Decides whether the training goes on; None only records the curve.
        check: Called after every epoch with a text that names the epoch; may raise.
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
        self._race: Race | None = None
        self._scores: Statistics = np.empty(0)  # of the last epoch's examples

    @property
    def curve(self) -> Curve | None:
        """The curve so far; None if nothing was trained."""
        if not self._values:
            return None
        return Curve(self._context.metric.name, tuple(self._values), self._macs)

    def epoch(self, stage: str, epoch: int, n_epochs: int, module: "torch.nn.Module") -> None:
        """Computes and records the metric after an epoch.

        Raises:
            StopTrialError: The pruner stops the training.
            TimeLimitError: The trial's time is up.
        """
        self._check(f"after epoch {epoch} of {n_epochs} of {stage}")
        if not self._values:
            from spaces.pruning.groups.counts import layer_counts, total

            self._macs = total(
                layer_counts(module, self._context.reference.artifact.input.packed_shape).values()
            ).macs
            self._race = self._pruning.race(self._macs) if self._pruning is not None else None
        metric = self._context.metric
        self._scores = self._scores_of(module)
        self._values.append(value_of(metric, self._scores))
        reported = sign_of(metric) * self._values[-1]  # the pruner takes higher values for better
        stops = self._race is not None and self._race.stops(reported)
        if not stops or epoch == n_epochs or self._pruning is None or self._race is None:
            return
        raise StopTrialError(
            f"{metric.name} is {self._values[-1]:.4g} {metric.unit} after epoch {epoch} of {n_epochs} of {stage}: "
            f"{type(self._pruning.pruner).__name__} stops it in view of {self._race.n_rivals} earlier trials"
            + (" with networks as small" if self._pruning.like_with_like else "")
        )

    def estimates(self) -> tuple[Measurement, ...]:
        """Returns the metric after the last epoch as an estimate, with drop, error and number of examples."""
        if not self._values:
            return ()
        metric, n = self._context.metric, len(self._scores)
        dense = value_of(metric, self._of_outputs(each(lambda a: a[:n], self._context.reference.outputs)))
        error = _standard_error(metric, self._scores)
        values = {
            f"{metric.name}_partial": self._values[-1],
            f"{metric.name}_drop_partial": sign_of(metric) * (dense - self._values[-1]),
            f"{metric.name}_partial_error": error,
        }
        estimates = [Measurement(name, value, metric.unit, "measured") for name, value in values.items()]
        return (*estimates, Measurement(f"{metric.name}_partial_images", n, "images", "measured"))

    def _scores_of(self, module: "torch.nn.Module") -> Statistics:
        import torch

        from spaces.stages.inputs import packed
        from spaces.stages.torch_outputs import read_outputs

        spec, split = self._context.reference.artifact.input.output, self._context.split

        def run(inputs: Inputs) -> Outputs:
            outputs: Outputs = read_outputs(module(torch.from_numpy(packed(inputs))), spec)
            return outputs

        with torch.inference_mode():
            outputs = [
                answers(rollout_of(split), run, inputs, labels)
                for inputs, labels in split.batches(250, MOST_EXAMPLES)
            ]
        return self._of_outputs(joined_inputs(outputs))

    def _of_outputs(self, outputs: Outputs) -> Statistics:
        metric, labels = self._context.metric, labels_of(self._context.split)[: n_rows(outputs)]
        if is_pooled(metric):
            return statistics_of(metric, each(np.nan_to_num, outputs), labels)
        scores = np.asarray(metric.per_example(outputs, labels), np.float64)  # type: ignore[attr-defined]
        return np.where(np.isfinite(scores), scores, 0.0)


def _standard_error(metric: Metric, statistics: Statistics) -> float:
    if is_pooled(metric):
        return float(np.nanstd(metric.scale * resampled_values(metric, statistics, RESAMPLES)))  # type: ignore[arg-type]
    return metric.scale * float(np.std(statistics)) / math.sqrt(len(statistics))


def pruning_of(
    pruner: optuna.pruners.BasePruner | None, name: str, records: Sequence[TrialRecord], n_objectives: int
) -> Pruning | None:
    """Returns the pruning of a new trial's training; None if trials always train to the end."""
    if pruner is None:
        return None
    rivals = tuple(Rival(record.state, curve_of(record.details)) for record in records)
    return Pruning(pruner, name, rivals, like_with_like=n_objectives > 1)
