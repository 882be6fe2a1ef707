"""Quantune proposes the best prediction among candidates that were not proposed, as in the paper where it applies."""

import math
from itertools import product

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.samplers.boosted_trees import BoostedTrees
from search.samplers.candidates.context import KnowledgeRow, SamplerContext, key_of
from search.samplers.candidates.features import Encoder
from search.samplers.candidates.pools import contains, draw_candidates
from search.samplers.quantune import QuantuneSampler
from search.samplers.ranking import infeasible_last, joined

KNOBS = {"scheme": ["a", "b", "c", "d"], "images": [1, 1000, 10000], "clip": ["max", "kl"]}
POOL = [dict(zip(KNOBS, values, strict=True)) for values in product(*KNOBS.values())]


def top1(params, offset=0.0):
    return (
        60
        + offset
        + 3 * "abcd".index(params["scheme"])
        + 5 * (params["clip"] == "kl")
        + params["images"] / 1e4
    )


def study_with(sampler, directions=("maximize",), **context):
    sampler.bind(SamplerContext(**{"pool": POOL, "directions": directions, **context}))
    return optuna.create_study(directions=list(directions), sampler=sampler)


def ask(study):
    trial = study.ask()
    return trial, {name: trial.suggest_categorical(name, choices) for name, choices in KNOBS.items()}


KNOWLEDGE = [KnowledgeRow(f"net{n}", p, top1(p, n), {"layers": 10.0 + n}) for n in range(3) for p in POOL]


def test_with_transfer_the_first_proposal_is_the_best_of_the_other_tasks():
    study = study_with(
        QuantuneSampler(transfer=True, seed=0), knowledge=KNOWLEDGE, descriptors={"layers": 20.0}
    )
    _, params = ask(study)
    assert params["scheme"] == "d"
    assert params["clip"] == "kl"


def test_without_transfer_the_knowledge_is_not_used():
    firsts = [ask(study_with(QuantuneSampler(seed=seed), knowledge=KNOWLEDGE))[1] for seed in range(20)]
    assert len({key_of(params) for params in firsts}) > 5  # random


def test_minimised_values_are_transferred_too():
    rows = [KnowledgeRow(r.task, r.params, -r.value, r.descriptors) for r in KNOWLEDGE]
    study = study_with(
        QuantuneSampler(transfer=True, seed=0), ("minimize",), knowledge=rows, descriptors={"layers": 9}
    )
    assert ask(study)[1]["scheme"] == "d"


def test_never_proposes_twice_and_learns():
    found = []
    for seed in range(5):
        study = study_with(QuantuneSampler(seed=seed))
        proposed = []
        for _ in POOL:
            trial, params = ask(study)
            proposed.append(params)
            study.tell(trial, top1(params))
        assert len({key_of(p) for p in proposed}) == len(POOL)
        best = max(top1(p) for p in POOL)
        found.append([top1(p) for p in proposed].index(best) + 1)
    assert np.mean(found) < 9  # random: (24 + 1) / 2 = 12.5; sd of a mean of 5 is 3


def test_running_and_failed_are_not_proposed_again():
    study = study_with(QuantuneSampler(transfer=True, seed=0), knowledge=KNOWLEDGE)
    asked = [ask(study) for _ in range(4)]
    for trial, _ in asked:
        study.tell(trial, state=TrialState.FAIL)
    asked += [ask(study) for _ in range(len(POOL) - 4)]
    assert len({key_of(params) for _, params in asked}) == len(POOL)


def test_an_exhausted_pool_repeats():
    study = study_with(QuantuneSampler(seed=0), pool=POOL[:2])
    for _ in range(4):
        trial, params = ask(study)
        assert params in POOL[:2]
        study.tell(trial, 1.0)


def test_only_rows_of_an_incomplete_grid_are_proposed():
    study = study_with(QuantuneSampler(seed=0), pool=POOL[::3])
    for _ in POOL[::3]:
        trial, params = ask(study)
        assert params in POOL[::3]
        study.tell(trial, top1(params))


def test_a_partly_fixed_trial_is_completed_from_the_pool():
    study = study_with(QuantuneSampler(transfer=True, seed=0), knowledge=KNOWLEDGE)
    study.enqueue_trial({"scheme": "b"})
    _, params = ask(study)
    assert params["scheme"] == "b"
    assert params["clip"] == "kl"


def test_knobs_without_a_value_of_the_pool_are_random():
    study = study_with(QuantuneSampler(seed=0), pool=[{"scheme": "zz", "images": 1}])
    _, params = ask(study)
    assert params["scheme"] in KNOBS["scheme"]


def test_fractions_are_learned_like_percentages():
    orders = []
    for scale in (2.0**-7, 2.0**-9):  # powers of two: scaled without rounding
        study = study_with(QuantuneSampler(seed=4))
        orders.append([])
        for _ in range(12):
            trial, params = ask(study)
            orders[-1].append(top1(params))
            study.tell(trial, scale * top1(params))
    assert orders[0] == orders[1]
    # gamma, meant for percent, would allow no split on fractions: the proposals would stay random
    assert np.mean(orders[0][4:]) > np.mean([top1(p) for p in POOL]) + 1


def test_several_objectives_reach_both_ends_of_the_front():
    study = study_with(QuantuneSampler(seed=0), ("maximize", "minimize"))
    for _ in range(16):
        trial, params = ask(study)
        study.tell(trial, [top1(params), 1e6 * "abcd".index(params["scheme"])])
    front = study.best_trials
    assert any(t.params["scheme"] == "d" and t.params["clip"] == "kl" for t in front)
    assert any(t.params["scheme"] == "a" and t.params["clip"] == "kl" for t in front)


def test_feasible_candidates_come_first():
    study = study_with(QuantuneSampler(seed=1))
    schemes = []
    for _ in range(13):
        trial, params = ask(study)
        trial.set_constraint("size", 1.0 if params["scheme"] in "cd" else -1.0)
        study.tell(trial, top1(params))
        schemes.append(params["scheme"])
    # half of the 24 candidates are infeasible, and score higher
    assert sum(scheme in "ab" for scheme in schemes) >= 9


def test_infinite_labels_are_dropped():
    study = study_with(QuantuneSampler(seed=1))
    for value in (math.inf, 1.0, -math.inf, 2.0):
        trial, _ = ask(study)
        study.tell(trial, value)
    ask(study)


def test_without_bind_the_shared_knobs_are_enumerated():
    study = optuna.create_study(direction="maximize", sampler=QuantuneSampler(seed=0))
    proposed = set()
    for _ in POOL:
        trial, params = ask(study)
        proposed.add(key_of(params))
        study.tell(trial, top1(params))
    assert len(proposed) == len(POOL)


class TestFeatures:
    def test_choices_and_few_numbers_are_one_hot(self):
        encoder = Encoder(POOL, [{"layers": 3.0}])
        assert encoder.n_features == 4 + 3 + 2 + 1
        rows = encoder.encode(POOL[:1], [{"layers": 5.0}])
        assert rows.tolist() == [[1, 0, 0, 0, 1, 0, 0, 1, 0, 5]]

    def test_many_numbers_stay_numbers_and_inactive_is_missing(self):
        encoder = Encoder([{"n": i, "kind": "x"} for i in range(20)])
        rows = encoder.encode([{"n": 7, "kind": "x"}, {"kind": "x"}, {"n": 3}], [{}] * 3)
        np.testing.assert_array_equal(rows, [[7, 1], [np.nan, 1], [3, 0]])

    def test_unknown_values_and_descriptors(self):
        encoder = Encoder([{"a": "x"}, {"a": None}], [{"d": 1.0}])
        np.testing.assert_array_equal(encoder.encode([{"a": "new", "b": 1}], [{}]), [[0, 0, np.nan]])

    def test_true_is_not_one(self):
        assert Encoder([{"a": True}, {"a": 1}]).n_features == 2
        assert key_of({"a": True}) != key_of({"a": 1})
        assert key_of({"a": 0.1 + 0.2, "b": 1}) == key_of({"b": 1, "a": 0.3})


class TestTrees:
    def test_predictions_from_fewer_than_two_labels_are_constant(self):
        one = np.ones((1, 2), dtype=np.float32)
        assert BoostedTrees().predict(one, np.array([3.0]), one).tolist() == [3.0]
        assert BoostedTrees().predict(one[:0], np.array([]), one).tolist() == [0.0]

    def test_learns_a_step(self):
        x = np.array([[0.0], [0.0], [1.0], [1.0]], dtype=np.float32)
        low, high = BoostedTrees().predict(x, np.array([10.0, 10.0, 70.0, 70.0]), x[1:3])
        assert low < 20
        assert high > 60


class TestRanking:
    def test_one_objective_is_kept(self):
        scores = joined(np.array([[3.0], [1.0]]), np.empty((0, 1)), np.random.default_rng(0))
        assert scores.tolist() == [3.0, 1.0]

    def test_the_dominating_candidate_wins_under_any_weights(self):
        predicted = np.array([[1.0, 1.0], [2.0, 3.0], [2.0, 1.0]])
        for seed in range(20):
            scores = joined(predicted, predicted, np.random.default_rng(seed))
            assert scores.argmax() == 1

    def test_infeasible_come_last(self):
        ranked = infeasible_last(np.array([5.0, 9.0, 1.0]), {"a": np.array([-1.0, 2.0, 0.0])})
        assert ranked.argsort().tolist() == [1, 2, 0]


class TestDraws:
    def test_small_spaces_are_enumerated(self):
        kinds = optuna.distributions
        space = {"a": kinds.IntDistribution(1, 3), "b": kinds.CategoricalDistribution(["x", None])}
        found = draw_candidates(space, 6, np.random.default_rng(0))
        assert sorted(map(str, found)) == sorted(
            str({"a": a, "b": b}) for a in (1, 2, 3) for b in ("x", None)
        )

    @pytest.mark.parametrize(
        "kind",
        [
            optuna.distributions.IntDistribution(1, 1000, log=True),
            optuna.distributions.IntDistribution(0, 10**6, step=10),
            optuna.distributions.FloatDistribution(1e-5, 1, log=True),
            optuna.distributions.FloatDistribution(-3, 4),
            optuna.distributions.FloatDistribution(0, 1, step=0.001),
            optuna.distributions.CategoricalDistribution([True, 1, "1", None]),
        ],
    )
    def test_draws_lie_in_the_domain(self, kind):
        for params in draw_candidates({"x": kind}, 300, np.random.default_rng(0)):
            assert contains(kind, params["x"])

    def test_values_outside_a_domain_are_not_contained(self):
        kinds = optuna.distributions
        assert not contains(kinds.IntDistribution(0, 10, step=5), 4)
        assert not contains(kinds.FloatDistribution(0, 1), 1.5)
        assert not contains(kinds.FloatDistribution(0, 1), "a")
        assert not contains(kinds.CategoricalDistribution([1, 2]), True)
