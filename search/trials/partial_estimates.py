"""Estimates of candidates from runs on the first examples of the validation split."""

from collections.abc import Callable

from evaluators.base import EvaluationContext
from evaluators.runtime import labels_of
from evaluators.task.paired_estimate import PairedEstimate, PairedReference
from search.trials.partial_runs import PartialRuns
from spaces.stages.artifact import Artifact

# The smallest subset is this share of the split, clipped to these numbers of examples: with fewer the noise
# in the outputs is not measured precisely enough, and with more the run takes longer than building the model.
SMALLEST_SHARE = 1 / 32
SMALLEST_SUBSET = (8, 64)


class PartialEstimates:
    """Runs candidates on the first examples and pairs their outputs with the float model's; a longer run continues a shorter one.

    Args:
        context: Validation data, metric and reference.
    """

    def __init__(self, context: EvaluationContext) -> None:
        self._context = context
        self._reference: PairedReference | None = None
        self._runs: PartialRuns | None = None

    @property
    def reference_value(self) -> float:
        """The float model's metric on the whole split, in its unit."""
        return self._paired().value

    def estimate(self, key: str, n_examples: int, build: Callable[[], Artifact]) -> PairedEstimate:
        """Returns the estimate of a candidate.

        Args:
            key: Key of its file.
            n_examples: One of `subset_sizes`.
            build: Returns its artifact; called if it is not loaded.

        Raises:
            ParedownError: The candidate cannot be built or run.
        """
        if self._runs is None:
            split = self._context.split
            self._runs = PartialRuns(split, subset_sizes(len(split)), exact_sums=self._context.exact_sums)
        return self._paired().estimate(self._runs.outputs(key, n_examples, build))

    def _paired(self) -> PairedReference:
        if self._reference is None:
            context = self._context
            self._reference = PairedReference(
                context.metric,
                context.reference.outputs,
                labels_of(context.split),
                agreement=context.agreement,
                whole=context.reference.artifact.input.output.whole,
            )
        return self._reference


def subset_sizes(n_full: int) -> tuple[int, ...]:
    """Returns the numbers of examples of low-fidelity runs, ascending.

    They begin with 1/32 of the split (at least 8, at most 64), grow by a factor of 4, and end with half of
    the split.
    """
    half = max(n_full // 2, 1)
    sizes = []
    size = min(max(int(n_full * SMALLEST_SHARE), SMALLEST_SUBSET[0]), SMALLEST_SUBSET[1])
    while size < half:
        sizes.append(size)
        size *= 4
    return (*sizes, half)
