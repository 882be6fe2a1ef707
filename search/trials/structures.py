"""Columns of trials.csv that follow from a candidate's structure, computed once per structure."""

from collections.abc import Mapping
from typing import Any

from search.record.suggest import value_of
from search.samplers.candidates.context import Params, key_of
from search.trials.compression_work import Call
from search.trials.trial import CompressionRunner
from spaces.candidate import Candidate
from spaces.errors import ParedownError, StageError

Key = frozenset[tuple[str, Any]]


class Structures:
    """Keys of candidates, and the columns of trials.csv that follow from their structures, cached.

    Args:
        runner: Computes keys.
        call: Calls a method of `CompressionWork` where trials run.
    """

    def __init__(self, runner: CompressionRunner, call: Call) -> None:
        self._runner, self._call = runner, call
        self._keys: dict[Key, tuple[str, str]] = {}
        self._columns: dict[str, Mapping[str, float]] = {}

    def candidate(self, params: Params) -> Candidate:
        """Returns the candidate of Optuna's parameters."""
        space = self._runner.space
        return Candidate({path: value_of(space[path].domain, param) for path, param in params.items()})

    def key(self, params: Params) -> str:
        """Returns a text that is equal for candidates with the same file; empty if there is no file."""
        return self._keys_of(params)[0]

    def columns(self, params: Params) -> Mapping[str, float]:
        """Returns the values that follow from the structure, by column; empty if they cannot be computed."""
        key = self._keys_of(params)[1]
        if key and key not in self._columns:
            try:
                values = self._call("structure_columns", self.candidate(params))
            except ParedownError:
                values = {}
            self._columns[key] = values
        return self._columns.get(key, {})

    def _keys_of(self, params: Params) -> tuple[str, str]:
        """Returns the keys of the file and of its structure; empty texts if the candidate cannot be built."""
        keys = self._keys.get(of := key_of(params))
        if keys is None:
            try:
                candidate = self.candidate(params)
                keys = (self._runner.key(candidate), self._runner.structure_key(candidate))
            except StageError:
                keys = ("", "")
            self._keys[of] = keys
        return keys
