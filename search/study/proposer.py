"""Turns the sampler's proposals into trials, without duplicates and candidates that cannot be built."""

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

_MISSES_IN_A_ROW = 32  # proposals without a new trial, after which a candidate is drawn at random
_RANDOM_DRAWS = 1000


@dataclass(frozen=True)
class Proposal:
    """A proposal that became a trial.

    Attributes:
        trial: Optuna's trial.
        key: The candidate's canonical key.
        seconds: Seconds that the proposal took: `propose`, and the low-fidelity evaluations that the sampler
            requested.
    """

    trial: Trial
    key: str
    seconds: Mapping[str, float]


class Proposer:
    """Asks the sampler until it proposes a candidate that has not been measured.

    A proposal that is known to yield the same file as a trial is answered with that trial's values; one that
    equals a running trial waits for it; one that breaks a constraint of the space or cannot be built is
    dropped.

    Args:
        plan: The study's plan.
        ledger: The study's record.
        keys: Canonical key to trial number, of every trial; the study adds to it.
        thresholds: Early-stopping thresholds of candidates.
    """

    def __init__(
        self, plan: StudyPlan, ledger: Ledger, keys: Mapping[str, int], thresholds: EarlyStoppingThresholds
    ) -> None:
        self._plan, self._ledger, self._keys, self._thresholds = plan, ledger, keys, thresholds
        self._rng = np.random.default_rng([plan.seed, ledger.n_proposed])
        self._running: dict[int, Proposal] = {}
        self._followers: dict[str, list[tuple[Trial, Candidate]]] = {}
        self._shuffled: Iterator[Candidate] | None = None
        self.rejections: dict[str, int] = {}

    @property
    def n_running(self) -> int:
        """Number of trials that were proposed and are not finished."""
        return len(self._running)

    def propose(self, known: Mapping[str, int]) -> TrialRequest | None:
        """Returns a request for the next trial, or None if there is no new candidate (at present).

        Args:
            known: Digests of files that were measured, with their trial numbers.
        """
        stopwatch = _Stopwatch(getattr(self._plan.low_fidelity, "seconds", {}))
        misses = 0
        while True:
            if misses and misses % _MISSES_IN_A_ROW == 0:
                drawn = self._random_new_candidate()
                if drawn is None:
                    return None
                self._ledger.enqueue(params_of(self._plan.space, drawn))
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

    def trial(self, request_id: int) -> Trial:
        """Returns Optuna's trial of a running request."""
        return self._running[request_id].trial

    def finished(self, request_id: int) -> Proposal:
        """Removes a trial from the running ones, and returns its proposal."""
        return self._running.pop(request_id)

    def followers(self, key: str) -> list[tuple[Trial, Candidate]]:
        """Removes the proposals that waited for the trial of a key, and returns them."""
        return self._followers.pop(key, [])

    def _key_of(self, trial: Trial, candidate: Candidate) -> str | None:
        """Returns the key of a candidate that needs a trial; otherwise ends the proposal and returns None."""
        if self._plan.space.broken(candidate) is not None:
            self._ledger.reject(trial)
            return None
        try:
            key = self._plan.runner.key(candidate)
        except StageError as error:
            self._rejected(trial, candidate, error)
            return None
        if key in self._keys:
            self._ledger.alias(trial, Alias(candidate, self._keys[key]))
            return None
        if key in self._running_keys():
            self._followers.setdefault(key, []).append((trial, candidate))
            return None
        return key

    def _rejected(self, trial: Trial, candidate: Candidate, error: StageError) -> None:
        """Drops a proposal that cannot be built; the nearest candidate takes its place where the plan names one."""
        near = None
        if self._plan.snap is None:
            self.rejections[str(error)] = self.rejections.get(str(error), 0) + 1
        else:
            near = self._plan.snap(candidate, self._keys.keys() | self._running_keys())
        if near is None:
            self._ledger.reject(trial)
        else:
            self._ledger.replace(trial, params_of(self._plan.space, near))

    def _running_keys(self) -> set[str]:
        return {proposal.key for proposal in self._running.values()}

    def _random_new_candidate(self) -> Candidate | None:
        taken = self._keys.keys() | self._running_keys()
        for candidate in self._random_candidates():
            try:
                key = self._plan.runner.key(candidate)
            except StageError:
                continue
            if key not in taken:
                return candidate
        return None

    def _random_candidates(self) -> Iterator[Candidate]:
        space = self._plan.space
        listed = self._plan.pool or candidates(space)
        if listed is None:
            return (space.sample(self._rng) for _ in range(_RANDOM_DRAWS))
        if self._shuffled is None:
            # one shuffled pass per session: a candidate that it has yielded is not drawn again
            order = list(listed)
            positions = self._rng.permutation(len(order))
            self._shuffled = (order[int(position)] for position in positions)
        return self._shuffled


class _Stopwatch:
    """Divides the time of a proposal into the sampler's own and that of low-fidelity evaluations.

    Args:
        low_fidelity: Seconds of all low-fidelity evaluations so far, by name; the mapping itself, which is
            updated by them.
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
