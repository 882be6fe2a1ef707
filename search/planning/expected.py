"""Estimates how long a study will take, before its first trial."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from search.record.journal import open_study
from search.record.suggest import suggest
from search.study.plan import StudyPlan
from spaces.candidate import Candidate
from spaces.errors import ParedownError, StopTrialError

if TYPE_CHECKING:
    from search.trials.trial import CompressionRunner


def expected_seconds(plan: StudyPlan, runner: "CompressionRunner") -> float:
    """Returns the estimated seconds of a study, from two proposals and one evaluated candidate.

    No trial is recorded. Later proposals may take longer, where the sampler's model grows with the trials;
    later candidates may take less, where they reuse cached results.

    Args:
        plan: The study.
        runner: Its runner.
    """
    first_s, next_s, candidate = _proposal_seconds(plan)
    n = plan.n_trials
    # a torch network's default candidate is neither pruned nor trained: its time says little of other trials
    example = plan.first if plan.first is not None and runner.start.kind == "onnx" else candidate
    return first_s + (n - 1) * next_s + n * _trial_seconds(runner, example) / plan.executor.slots


def _proposal_seconds(plan: StudyPlan) -> tuple[float, float, Candidate]:
    """Returns the seconds of the first and of the second proposal, and the second one's candidate."""
    study = open_study(plan.name, plan.folder, "memory", plan.objectives)
    study.sampler = plan.sampler(0)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        candidate = suggest(study.ask(), plan.space)
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1], candidate


class _TwoEpochs:
    """Ends a training after its second epoch, the first one without start-up time.

    Implements `spaces.stages.stage.Watch`.

    Attributes:
        left_out_s: Estimated seconds of the epochs that were not run.
    """

    left_out_s = 0.0

    def epoch(self, stage: str, epoch: int, n_epochs: int, module: object) -> None:
        """Times the second epoch.

        Raises:
            StopTrialError: The second of more than two epochs has ended.
        """
        if epoch == 1 and n_epochs > 1:
            self._began = time.perf_counter()
        elif epoch == 2 and n_epochs > 2:
            self.left_out_s = (n_epochs - 2) * (time.perf_counter() - self._began)
            raise StopTrialError(f"epoch {epoch} of {stage}")


def _trial_seconds(runner: "CompressionRunner", candidate: Candidate) -> float:
    """Returns the estimated seconds of a trial: builds and evaluates a candidate.

    A training runs for two epochs and is extrapolated; the float model is then evaluated instead.
    """
    # another batch size, so that the evaluators run the model instead of reusing the reference's outputs
    context = replace(runner.context, reference=replace(runner.context.reference, batch_size=0))
    watch = _TwoEpochs()
    began = time.perf_counter()
    with runner.alone():
        try:
            artifact = runner.build(candidate, watch=watch)
        except ParedownError:  # its training was stopped, or it cannot be built, which its trial would report
            artifact = runner.dense
        runner.judge(artifact, context, runner.evaluators)
    return time.perf_counter() - began + watch.left_out_s
