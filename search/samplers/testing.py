"""Conformance tests that every sampler must pass: Optuna's own and those of a study. Needs pytest.

A new sampler's test::

    class TestMySampler(SamplerConformance):
        @pytest.fixture
        def sampler(self):
            return MySampler

The fixture `sampler` returns a callable that makes a sampler, without arguments or with `seed=`. A sampler
that proposes several knobs at once inherits `RelativeSamplerTestCase` of `optuna.testing.pytest_samplers` as
well; one that cannot search several objectives inherits `SingleObjectiveConformance` instead.
"""

import math
import pickle
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import Trial, TrialState

__all__ = [
    "AskTellConformance",
    "RelativeSamplerTestCase",
    "SamplerConformance",
    "SeveralObjectivesConformance",
    "SingleObjectiveConformance",
    "ask_until_measured",
    "suggest_conditional",
]

Make = Callable[..., BaseSampler]
MISSES_IN_A_ROW = 32  # duplicates, before a candidate is enqueued


def suggest_conditional(trial: Trial) -> dict[str, Any]:
    """Suggests a category, an integer, and a float that depends on the category; returns their values."""
    values: dict[str, Any] = {"scheme": trial.suggest_categorical("scheme", ["plain", "clipped", None])}
    values["bits"] = trial.suggest_int("bits", 2, 8, step=2)
    if values["scheme"] == "clipped":
        values["clip"] = trial.suggest_float("clip", 0.5, 1.0, log=True)
    return values


def _check(values: Mapping[str, Any], trial: Trial) -> None:
    assert trial.params == values
    assert values["scheme"] in ("plain", "clipped", None)
    assert type(values["bits"]) is int
    assert values["bits"] in (2, 4, 6, 8)
    assert ("clip" in values) == (values["scheme"] == "clipped")
    clip = values.get("clip", 0.5)
    assert type(clip) is float
    assert math.isfinite(clip)
    assert 0.5 <= clip <= 1.0


def _loss(values: Mapping[str, Any]) -> float:
    return float(abs(values["bits"] - 6) + values.get("clip", 0.3))


def ask_until_measured(
    study: optuna.Study, domains: Mapping[str, list[Any]], value: Callable[[Mapping[str, Any]], float]
) -> list[tuple[Any, ...]]:
    """Measures every candidate of a small space once, as a study does.

    A proposal that was measured before gets the known value and does not count; after 32 of those in a row a
    candidate that is left is enqueued.

    Returns:
        The measured candidates, in order.
    """
    left = dict.fromkeys(product(*domains.values()))
    measured: dict[tuple[Any, ...], float] = {}
    misses = 0
    while left:
        if misses == MISSES_IN_A_ROW:
            study.enqueue_trial(dict(zip(domains, next(iter(left)), strict=True)))
        trial = study.ask()
        key = tuple(trial.suggest_categorical(name, choices) for name, choices in domains.items())
        misses = misses + 1 if key in measured else 0
        if key not in measured:
            measured[key] = value(trial.params)
            del left[key]
        study.tell(trial, measured[key])
    return list(measured)


class AskTellConformance:
    """Tests of what a study requires beyond Optuna's tests, with one objective."""

    @pytest.fixture
    def sampler(self) -> Make:
        """Returns a callable that makes the sampler."""
        raise NotImplementedError("a conformance test must define the fixture `sampler`")

    def _study(self, sampler: BaseSampler, n_objectives: int = 1) -> optuna.Study:
        directions = [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
        return optuna.create_study(directions=directions[:n_objectives], sampler=sampler)

    def _proposals(self, sampler: BaseSampler, count: int) -> list[dict[str, Any]]:
        study, found = self._study(sampler), []
        for _ in range(count):
            trial = study.ask()
            values = suggest_conditional(trial)
            _check(values, trial)
            found.append(values)
            study.tell(trial, _loss(values))
        return found

    def test_conditional_space_by_ask_and_tell(self, sampler: Make) -> None:
        """Inactive knobs are left out, values are plain Python values within their domains."""
        self._proposals(sampler(), 14)

    def test_same_seed_same_proposals(self, sampler: Make) -> None:
        """Equal seeds give equal proposals."""
        assert self._proposals(sampler(seed=3), 9) == self._proposals(sampler(seed=3), 9)

    @pytest.mark.filterwarnings("ignore::UserWarning")  # a sampler may warn of infinite values
    def test_failures_and_infinities(self, sampler: Make) -> None:
        """The sampler proposes on after failed trials and infinite values."""
        study = self._study(sampler(seed=1))
        for number in range(12):
            trial = study.ask()
            values = suggest_conditional(trial)
            _check(values, trial)
            if number % 3 == 0:
                study.tell(trial, state=TrialState.FAIL)
            else:
                value = math.inf if number % 3 == 1 else _loss(values)
                study.tell(trial, value)

    def test_several_running(self, sampler: Make) -> None:
        """The sampler proposes further candidates while trials are running."""
        study = self._study(sampler(seed=1))
        for _ in range(3):
            trials = [study.ask() for _ in range(4)]
            values = [suggest_conditional(trial) for trial in trials]
            for trial, known in zip(trials, values, strict=True):
                _check(known, trial)
                study.tell(trial, _loss(known))

    def test_constraints(self, sampler: Make) -> None:
        """Trials may carry constraints."""
        study = self._study(sampler(seed=1))
        for _ in range(10):
            trial = study.ask()
            values = suggest_conditional(trial)
            _check(values, trial)
            trial.set_constraint("bits", values["bits"] - 6.0)
            study.tell(trial, _loss(values))

    def test_duplicates_are_answered_from_the_study(self, sampler: Make) -> None:
        """With known values reported for repeated candidates, the sampler goes on to the others."""
        domains: dict[str, list[Any]] = {"scheme": ["a", "b", None], "bits": [4, 8]}
        study = self._study(sampler(seed=2))
        measured = ask_until_measured(study, domains, lambda v: float(v["bits"]))
        assert len(set(measured)) == 6

    def test_resumes_from_another_samplers_trials(self, sampler: Make) -> None:
        """A study that was begun with another sampler can be continued."""
        study = self._study(optuna.samplers.RandomSampler(seed=0))
        for _ in range(6):
            trial = study.ask()
            values = suggest_conditional(trial)
            study.tell(trial, _loss(values))
        study.sampler = sampler(seed=1)
        for _ in range(4):
            trial = study.ask()
            _check(suggest_conditional(trial), trial)
            study.tell(trial, 1.0)

    def test_reseeding_keeps_it_usable(self, sampler: Make) -> None:
        """Copies in parallel workers are reseeded."""
        made = sampler(seed=1)
        made.reseed_rng()
        self._proposals(made, 3)

    def test_can_be_pickled(self, sampler: Make) -> None:
        """A pickled copy proposes the same as the original."""
        copy = pickle.loads(pickle.dumps(sampler(seed=5)))  # noqa: S301  # our own bytes
        assert self._proposals(copy, 4) == self._proposals(sampler(seed=5), 4)

    def test_proposes_no_numpy_types(self, sampler: Make) -> None:
        """Storages accept plain Python values only."""
        for values in self._proposals(sampler(seed=4), 8):
            assert not any(isinstance(v, np.generic) for v in values.values())


class SeveralObjectivesConformance(AskTellConformance):
    """Tests of what a study requires beyond Optuna's tests, with one objective and with two."""

    def test_several_objectives_by_ask_and_tell(self, sampler: Make) -> None:
        """Two objectives, with constraints, on a conditional space."""
        study = self._study(sampler(seed=1), n_objectives=2)
        for _ in range(14):
            trial = study.ask()
            values = suggest_conditional(trial)
            _check(values, trial)
            trial.set_constraint("bits", values["bits"] - 6.0)
            study.tell(trial, [_loss(values), float(values["bits"])])


class SamplerConformance(SeveralObjectivesConformance, BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Optuna's tests and those of a study, for samplers that search one objective or several."""


class SingleObjectiveConformance(AskTellConformance, BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's tests and those of a study, for samplers that refuse several objectives."""
