"""What candidates cost in training, which candidates of the same architecture and training share."""

import struct
from collections.abc import Sequence

from search.record.results import TrialRecord
from search.record.suggest import candidate_of, params_of
from search.samplers.candidates.context import Params, key_of
from search.trials.structures import Key
from search.trials.trial import CompressionRunner
from spaces.code_digest import code_digest
from spaces.digest import digest_of

_SECONDS = struct.Struct("<d")  # how the cache keeps the duration of a training


class TrainingExpense:
    """Knows which trainings a study has done, and how long they and the rest of a trial took.

    Implements `context.Expense`. Candidates that differ only in stages after the last training share the training: the output
    of each stage is cached.

    Studies that share a cache share their trainings, so the cache keeps how long each took: for a later study it is done, and a
    trial that finds it tells what it once cost, not the moment that reading it takes.

    Args:
        runner: Knows what a candidate's trainings depend on.

    Attributes:
        trained: By key of a training, an example of its candidates and the seconds it took. Trainings of other studies are in it
            once a candidate that shares them was asked for.
    """

    def __init__(self, runner: CompressionRunner) -> None:
        self._runner = runner
        self.trained: dict[str, tuple[Params, float]] = {}
        self._rest_s: list[float] = []
        self._trainings: dict[Key, tuple[str, tuple[str, ...]]] = {}
        self._cache, self._basis = runner.stage_context.cache, _basis(runner)

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
        if key not in self.trained:
            self.trained[key] = params, training_s
            self._cache.keep(self._entry(key), _SECONDS.pack(training_s))

    def _training(self, params: Params) -> tuple[str, tuple[str, ...]]:
        if (of := key_of(params)) not in self._trainings:
            found = self._trainings[of] = self._runner.training(candidate_of(self._runner.space, params))
            self._recall(found[0], params)
        return self._trainings[of]

    def _recall(self, key: str, params: Params) -> None:
        """Takes a training that another study has done."""
        if not key or key in self.trained:
            return
        stored = self._cache.find(self._entry(key))
        if stored is not None and len(stored) == _SECONDS.size:
            self.trained[key] = params, float(_SECONDS.unpack(stored)[0])

    def _entry(self, key: str) -> str:
        return f"seconds-{digest_of(self._basis, key)}"


def _basis(runner: CompressionRunner) -> str:
    """Returns a digest of what trainings depend on besides a candidate's values.

    Other calibration examples, devices and limits are not among it, as in `RecoverStage.sources`.
    """
    context = runner.stage_context
    data = [None if part is None else part.digest for part in (context.train, context.teacher)]
    stages = [[stage.name, code_digest(type(stage)), stage.config()] for stage in runner.pipeline.stages]
    return digest_of(runner.start.digest, stages, data, context.seed, context.accelerator, context.loss)
