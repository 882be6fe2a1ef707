"""Which candidates can be built and which are the same file, and the columns that follow from a structure."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from search.record.suggest import candidate_of
from search.samplers.candidates.context import Known, KnownOnly, Params, key_of
from search.trials.compression_work import Call
from search.trials.trial import CompressionRunner
from spaces.candidate import Candidate
from spaces.errors import ParedownError, StageError

Key = frozenset[tuple[str, Any]]

_NODES = 20_000  # of all files together that are built before they are proposed: at 2 ms a node well below a minute
_LEAST = 8  # structures that are built of any network
_MORE = 16  # a later list of candidates may add this part of as many


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
        self._n_lists = self._n_ahead = 0

    def candidate(self, params: Params) -> Candidate:
        """Returns the candidate of Optuna's parameters."""
        return candidate_of(self._runner.space, params)

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

    def columns_ahead(self, candidates: Sequence[Params]) -> list[Mapping[str, float] | None]:
        """Returns `columns` of each candidate; None where that would take too long.

        A file is built for each structure, in a time that grows with the network. Of a large one, so many structures are
        built as have `_NODES` nodes together, evenly spread over the list.
        """
        keys = [self._keys_of(params)[1] for params in candidates]
        new = [key for key in dict.fromkeys(keys) if key and key not in self._columns]
        left = self._most + self._n_lists * self._most // _MORE - self._n_ahead
        built = {new[int(at)] for at in np.linspace(0, len(new) - 1, min(len(new), left))}
        self._n_lists, self._n_ahead = self._n_lists + 1, self._n_ahead + len(built)
        wanted = built | self._columns.keys() | {""}
        return [
            self.columns(params) if key in wanted else None
            for key, params in zip(keys, candidates, strict=True)
        ]

    @cached_property
    def _most(self) -> int:
        """How many structures may be built for the first list of candidates."""
        return max(_LEAST, _NODES // max(len(self._runner.dense.proto().graph.node), 1))

    def _keys_of(self, params: Params) -> tuple[str, str]:
        """Returns the keys of the file and of its structure; empty texts if the candidate cannot be built."""
        keys = self._keys.get(of := key_of(params))
        if keys is None:
            try:
                keys = self._runner.keys(self.candidate(params))
            except StageError:
                keys = ("", "")
            self._keys[of] = keys
        return keys


class Buildable(KnownOnly):
    """Tells a sampler which candidates can be built and which are the same file, where nothing else is known before a training.

    Of a list of more than 5,000 candidates nothing is told,
    which would take too long.

    Args:
        runner: Computes keys.
        n_objectives: Number of the study's objectives.
    """

    _MOST = 5000

    def __init__(self, runner: CompressionRunner, n_objectives: int) -> None:
        self._runner, self._n_objectives = runner, n_objectives
        self._keys: dict[Key, str] = {}
        self.n_full = len(runner.context.split)

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns the keys of the candidates' files; empty for one that cannot be built."""
        values = np.full((len(candidates), self._n_objectives), np.nan)
        if len(candidates) > self._MOST:
            return Known(values, {}, [str(at) for at in range(len(candidates))])
        return Known(values, {}, [self._key(params) for params in candidates])

    def _key(self, params: Params) -> str:
        if (of := key_of(params)) not in self._keys:
            try:
                self._keys[of] = self._runner.key(candidate_of(self._runner.space, params))
            except StageError:
                self._keys[of] = ""
        return self._keys[of]
