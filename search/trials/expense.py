"""What candidates cost in training, which candidates of the same architecture and training share."""

from collections.abc import Sequence

from search.record.results import TrialRecord
from search.record.suggest import candidate_of, params_of
from search.samplers.candidates.context import Params, key_of
from search.trials.structures import Key
from search.trials.trial import CompressionRunner


class TrainingExpense:
    """Knows which trainings a study has done, and how long they and the rest of a trial took.

    Implements `context.Expense`. Candidates that differ only in stages after the last training share the training: the output
    of each stage is cached.

    Args:
        runner: Knows what a candidate's trainings depend on.

    Attributes:
        trained: By key of a training, an example of its candidates and the seconds it took.
    """

    def __init__(self, runner: CompressionRunner) -> None:
        self._runner = runner
        self.trained: dict[str, tuple[Params, float]] = {}
        self._rest_s: list[float] = []
        self._trainings: dict[Key, tuple[str, tuple[str, ...]]] = {}

    @property
    def rest_s(self) -> float:
        """Mean seconds of a trial besides its training; 1 before the first."""
        return max(1e-3, sum(self._rest_s) / len(self._rest_s)) if self._rest_s else 1.0

    def keys(self, candidates: Sequence[Params]) -> list[str]:
        """Returns a key for each candidate that is equal for those that share a training; empty if nothing is trained."""
        return [self._training(params)[0] for params in candidates]

    def add(self, record: TrialRecord) -> None:
        """Takes a finished trial."""
        params = params_of(self._runner.space, record.candidate)
        key, steps = self._training(params)
        if not key or not set(steps) <= set(record.seconds):
            return  # nothing was trained, e.g. because a limit was known to be broken
        training_s = sum(record.seconds[step] for step in steps)
        self._rest_s.append(sum(record.seconds.values()) - training_s)
        self.trained.setdefault(key, (params, training_s))

    def _training(self, params: Params) -> tuple[str, tuple[str, ...]]:
        if (of := key_of(params)) not in self._trainings:
            self._trainings[of] = self._runner.training(candidate_of(self._runner.space, params))
        return self._trainings[of]
