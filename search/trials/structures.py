"""What follows from a candidate's structure, found once for all candidates of equal structure."""

from collections.abc import Mapping
from typing import Any

from evaluators.column import Column
from search.record.suggest import value_of
from search.samplers.candidates.context import Params, key_of
from search.trials.trial import CompressionRunner
from spaces.candidate import Candidate
from spaces.errors import ParedownError, StageError
from spaces.stages.artifact import Artifact

FILE_BYTES = str(Column.of("file_bytes"))

Key = frozenset[tuple[str, Any]]


class Structures:
    """Keys of candidates, and the columns of trials.csv that their structures decide.

    Args:
        runner: Builds and judges candidates.
    """

    def __init__(self, runner: CompressionRunner) -> None:
        self._runner = runner
        self._keys: dict[Key, tuple[str, str]] = {}
        self._columns: dict[str, Mapping[str, float]] = {}

    def candidate(self, params: Params) -> Candidate:
        """Returns the candidate that Optuna's parameters stand for."""
        space = self._runner.space
        return Candidate({path: value_of(space[path].domain, param) for path, param in params.items()})

    def built(self, params: Params) -> Artifact:
        """Returns the candidate's file.

        Raises:
            StageError: It cannot be built.
        """
        return self._runner.build(self.candidate(params))

    def key(self, params: Params) -> str:
        """Returns a text that is equal for candidates which come to the same file; empty if it cannot be built."""
        return self._both(params)[0]

    def columns(self, params: Params) -> Mapping[str, float]:
        """Returns what follows from the structure, by column; nothing if the file cannot be built or judged."""
        key = self._both(params)[1]
        if key and key not in self._columns:
            candidate = self.candidate(params)
            try:
                found = {m.column: m.value for m in self._runner.structural(candidate)}
                found[FILE_BYTES] = float(len(self._runner.build(candidate).onnx_bytes))
            except ParedownError:
                found = {}
            self._columns[key] = found
        return self._columns.get(key, {})

    def _both(self, params: Params) -> tuple[str, str]:
        """Returns the keys of the file and of its structure."""
        found = self._keys.get(of := key_of(params))
        if found is None:
            try:
                candidate = self.candidate(params)
                found = (self._runner.key(candidate), self._runner.structure_key(candidate))
            except StageError:
                found = ("", "")
            self._keys[of] = found
        return found
