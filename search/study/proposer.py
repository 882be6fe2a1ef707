"""Turns what the sampler says into trials that are worth their time."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from optuna.trial import Trial

from search.record.results import Alias
from search.record.suggest import candidates, params_of, suggest
from search.study.early_stopping import EarlyStoppingThresholds
from search.study.ledger import Ledger
from search.study.plan import StudyPlan
from search.trials.curves import Pruning, pruning_of
from search.trials.trial import TrialRequest
from spaces.candidate import Candidate
from spaces.errors import StageError

_MISSES_IN_A_ROW = 32  # proposals that are no new trial, before one is drawn at random
_RANDOM_DRAWS = 1000


@dataclass(frozen=True)
class Proposal:
    """A proposal that became a trial.

    Attributes:
        trial: Optuna's trial.
        key: The candidate's canonical key.
        seconds: What the proposal took: `propose`, and the looks that it asked for.
    """

    trial: Trial
    key: str
    seconds: Mapping[str, float]


class Proposer:
    """Asks the sampler until it proposes what was not measured before.

    A proposal that is known to come to the same file as a trial is answered from the study; one that equals a running
    trial waits for it; one that breaks a constraint or cannot be built is dropped.

    Args:
        plan: The study's plan.
        ledger: Its record.
        keys: Canonical key to trial number, of every trial; the study adds to it.
        needs: What a candidate has to exceed.
    """

    def __init__(
        self, plan: StudyPlan, ledger: Ledger, keys: Mapping[str, int], needs: EarlyStoppingThresholds
    ) -> None:
        self._plan, self._ledger, self._keys, self._thresholds = plan, ledger, keys, needs
        self._rng = np.random.default_rng([plan.seed, ledger.n_proposed])
        self._running: dict[int, Proposal] = {}
        self._followers: dict[str, list[tuple[Trial, Candidate]]] = {}
        self._unseen: Iterator[Candidate] | None = None
        self.rejections: dict[str, int] = {}

    @property
    def n_running(self) -> int:
        """How many trials were proposed and not yet finished."""
        return len(self._running)

    def propose(self, known: Mapping[str, int]) -> TrialRequest | None:
        """Returns the next candidate that is worth a trial, or None if there is none (now).

        Args:
            known: Digests of files that were measured, with their trial numbers.
        """
        stopwatch = _Stopwatch(getattr(self._plan.low_fidelity, "seconds", {}))
        misses = 0
        while True:
            if misses and misses % _MISSES_IN_A_ROW == 0:
                fresh = self._random_unseen()
                if fresh is None:
                    return None
                self._ledger.enqueue(params_of(self._plan.space, fresh))
            trial = self._ledger.ask()
            candidate = suggest(trial, self._plan.space)
            key = self._key_of(trial, candidate)
            if key is not None:
                threshold = self._thresholds.of(trial.params, self._ledger.records)
                self._running[trial.number] = Proposal(trial, key, stopwatch.seconds())
                return TrialRequest(
                    trial.number,
                    candidate,
                    dict(known),
                    self._plan.trial_time_limit_s,
                    threshold,
                    self._pruning(),
                )
            misses += 1

    def _pruning(self) -> Pruning | None:
        plan = self._plan
        return pruning_of(plan.pruner, plan.name, self._ledger.records, len(plan.objectives))

    def finished(self, request_id: int) -> Proposal:
        """Returns what became a running trial; it is running no more."""
        return self._running.pop(request_id)

    def followers(self, key: str) -> list[tuple[Trial, Candidate]]:
        """Returns the proposals that waited for the trial of that key."""
        return self._followers.pop(key, [])

    def _key_of(self, trial: Trial, candidate: Candidate) -> str | None:
        """Returns the candidate's key if it needs a trial; answers or drops the proposal otherwise."""
        if self._plan.space.broken(candidate) is not None:
            self._ledger.reject(trial)
            return None
        try:
            key = self._plan.runner.key(candidate)
        except StageError as error:
            self._ledger.reject(trial)
            self._rejected(candidate, error)
            return None
        if key in self._keys:
            self._ledger.alias(trial, Alias(candidate, self._keys[key]))
            return None
        if key in self._running_keys():
            self._followers.setdefault(key, []).append((trial, candidate))
            return None
        return key

    def _rejected(self, candidate: Candidate, error: StageError) -> None:
        if self._plan.snap is None:
            self.rejections[str(error)] = self.rejections.get(str(error), 0) + 1
            return
        near = self._plan.snap(candidate, self._keys.keys() | self._running_keys())
        if near is not None:
            self._ledger.enqueue(params_of(self._plan.space, near))

    def _running_keys(self) -> set[str]:
        return {proposal.key for proposal in self._running.values()}

    def _random_unseen(self) -> Candidate | None:
        seen = self._keys.keys() | self._running_keys()
        for candidate in self._random_candidates():
            try:
                key = self._plan.runner.key(candidate)
            except StageError:
                continue
            if key not in seen:
                return candidate
        return None

    def _random_candidates(self) -> Iterator[Candidate]:
        space = self._plan.space
        listed = self._plan.pool or candidates(space)
        if listed is None:
            return (space.sample(self._rng) for _ in range(_RANDOM_DRAWS))
        if self._unseen is None:
            # one shuffled pass serves the whole session: what it has gone over stays seen
            order = list(listed)
            positions = self._rng.permutation(len(order))
            self._unseen = (order[int(position)] for position in positions)
        return self._unseen


class _Stopwatch:
    """Divides the time of a proposal into the sampler's own and that of the looks that it asked for.

    Args:
        low_fidelity: Seconds of all looks so far, by name; the mapping that goes on counting.
    """

    def __init__(self, low_fidelity: Mapping[str, float]) -> None:
        self._low_fidelity, self._before = low_fidelity, dict(low_fidelity)
        self._began = time.perf_counter()

    def seconds(self) -> dict[str, float]:
        """Returns the seconds since the start."""
        elapsed_s = time.perf_counter() - self._began
        low_fidelity = {
            name: total - self._before.get(name, 0.0) for name, total in self._low_fidelity.items()
        }
        low_fidelity = {name: seconds for name, seconds in low_fidelity.items() if seconds > 0}
        return {"propose": max(0.0, elapsed_s - sum(low_fidelity.values())), **low_fidelity}
