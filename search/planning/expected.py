"""How long a study will take, guessed before its first trial."""

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
    """Guesses the study's time from two proposals, and one candidate that is built and judged; no trial is recorded.

    Later proposals may cost more, where the sampler's model grows with the trials; later candidates less, where they share what
    was found out for the first.

    Args:
        plan: The study.
        runner: Its runner.
    """
    first_s, next_s, candidate = _proposing(plan)
    n = plan.n_trials
    # the stages' defaults cut and train nothing, which is no example of what trials of such a study take
    example = plan.first if plan.first is not None and runner.start.kind == "onnx" else candidate
    return first_s + (n - 1) * next_s + n * _trial_seconds(runner, example) / plan.executor.slots


def _proposing(plan: StudyPlan) -> tuple[float, float, Candidate]:
    """Returns the seconds of the first proposal and of the next one, with its candidate."""
    study = open_study(plan.name, plan.folder, "memory", plan.objectives)
    study.sampler = plan.sampler(0)
    took = []
    for _ in range(2):
        began = time.perf_counter()
        candidate = suggest(study.ask(), plan.space)
        took.append(time.perf_counter() - began)
    return took[0], took[1], candidate


class _TwoEpochs:
    """Ends a training after its second epoch, the first one with nothing else in its time; implements `spaces.stages.stage.Watch`.

    Attributes:
        left_out_s: What the epochs that were not run would have taken.
    """

    left_out_s = 0.0

    def epoch(self, stage: str, epoch: int, n_epochs: int, module: object) -> None:
        """Notes the time."""
        if epoch == 1 and n_epochs > 1:
            self._began = time.perf_counter()
        elif epoch == 2 and n_epochs > 2:
            self.left_out_s = (n_epochs - 2) * (time.perf_counter() - self._began)
            raise StopTrialError(f"epoch {epoch} of {stage}")


def _trial_seconds(runner: "CompressionRunner", candidate: Candidate) -> float:
    """Builds and judges a candidate. Of a training two epochs are run, and the float model judged in the candidate's place."""
    # a batch size of its own keeps the evaluators from answering by the outputs that the reference has
    context = replace(runner.context, reference=replace(runner.context.reference, batch_size=0))
    watch = _TwoEpochs()
    began = time.perf_counter()
    with runner.alone():
        try:
            artifact = runner.build(candidate, watch=watch)
        except ParedownError:  # it is not to be trained to the end, or its trial would say so
            artifact = runner.dense
        runner.judge(artifact, context, runner.evaluators)
    return time.perf_counter() - began + watch.left_out_s
