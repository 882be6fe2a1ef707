"""How long a study will take, guessed before its first trial."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from search.journal import open_study
from search.plan import StudyPlan
from search.suggest import suggest
from spaces.candidate import Candidate
from spaces.errors import ParedownError

if TYPE_CHECKING:
    from search.trial import CompressionRunner


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
    return (
        first_s + (n - 1) * next_s + n * _trial_seconds(runner, plan.first or candidate) / plan.executor.slots
    )


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


def _trial_seconds(runner: "CompressionRunner", candidate: Candidate) -> float:
    # a batch size of its own keeps the evaluators from answering by the outputs that the reference has
    context = replace(runner.context, reference=replace(runner.context.reference, batch_size=0))
    began = time.perf_counter()
    with runner.alone():
        try:
            artifact = runner.build(candidate)
        except ParedownError:  # its trial would say so
            artifact = runner.start
        runner.judge(artifact, context, runner.evaluators)
    return time.perf_counter() - began
