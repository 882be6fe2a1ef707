"""The allocator's solutions as proposals, in a study of Optuna's and with the context of one of Paredown's."""

import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler

from search.allocators.base import NoAllocator
from search.allocators.knapsack import Knapsack
from search.allocators.problem import Budget
from search.allocators.testing import layer_context
from search.samplers.allocator.sampler import AllocatorSampler, spread
from search.samplers.candidates.context import SamplerContext
from search.samplers.testing import SamplerConformance
from spaces.errors import ConfigError

WIDTHS = (2, 4, 8)
SIZES = {f"bits{i}": 10 * (i + 1) for i in range(6)}
LOSSES = {n: {w: 4.0**-w * (1 + i) for w in WIDTHS} for i, n in enumerate(SIZES)}


class TestAllocatorSampler(SamplerConformance):
    @pytest.fixture
    def sampler(self):
        return lambda seed=None: AllocatorSampler(base=RandomSampler(seed), seed=seed)


def true_loss(params):
    return sum(LOSSES[n][params[n]] for n in LOSSES) * (1.0 if params["scheme"] == "good" else 3.0)


def searched(sampler, n_trials):
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    for _ in range(n_trials):
        trial = study.ask()
        for name in LOSSES:
            trial.suggest_categorical(name, WIDTHS)
        trial.suggest_categorical("scheme", ["poor", "good"])
        study.tell(trial, [true_loss(trial.params), sum(SIZES[n] * trial.params[n] for n in SIZES)])
    return study


def sampler(n_limits=5, base=None, seed=0):
    return AllocatorSampler(
        Knapsack(losses=LOSSES, n_weights=SIZES, n_limits=n_limits), base or RandomSampler(seed), seed=seed
    )


def test_the_front_comes_first_in_anybodys_study():
    allocator = Knapsack(losses=LOSSES, n_weights=SIZES, n_limits=5)
    front = [s.widths for s in allocator.solutions(allocator.problem(None))]
    trials = searched(sampler(), len(front)).trials
    proposed = [{n: t.params[n] for n in LOSSES} for t in trials]
    assert proposed == spread(front)
    assert len({t.params["scheme"] for t in trials}) == 1  # compared with one another


def test_then_other_knobs_are_searched_and_allocations_refined():
    study = searched(sampler(n_limits=5), 20)
    assert {t.params["scheme"] for t in study.trials} == {"poor", "good"}
    on_front = [t for t in study.best_trials if t.params["scheme"] == "good"]
    assert len(on_front) >= 3


def test_beats_random_search_at_equal_trials():
    def best_loss(study, bits):
        return min((t.values[0] for t in study.trials if t.values[1] <= bits), default=math.inf)

    limit = 4.5 * sum(SIZES.values())
    ours = best_loss(searched(sampler(8), 12), limit)
    random = [best_loss(searched(RandomSampler(s), 12), limit) for s in range(5)]
    assert ours < min(random)


def test_later_proposals_keep_the_budgets_too():
    limit = 4.0 * sum(SIZES.values())
    costs = {n: {w: float(SIZES[n] * w) for w in WIDTHS} for n in SIZES}
    allocator = Knapsack(
        losses=LOSSES, n_weights=SIZES, n_limits=3, given_budgets={"size": Budget("bits", costs, limit)}
    )
    study = searched(AllocatorSampler(allocator, RandomSampler(0), seed=0), 16)
    assert all(t.values[1] <= limit for t in study.trials)
    assert {t.params["scheme"] for t in study.trials} == {"poor", "good"}


def test_same_seed_same_proposals():
    one, other = ([t.params for t in searched(sampler(4, seed=5), 10).trials] for _ in range(2))
    assert one == other


def test_a_bound_study_gets_the_parameters_of_its_knobs():
    context = layer_context()
    kinds = {path: CategoricalDistribution([str(w) for w in WIDTHS]) for path in context.knobs}
    made = AllocatorSampler(Knapsack(n_limits=4), RandomSampler(0), seed=0)
    made.bind(SamplerContext(distributions=kinds, allocation=context))
    study = optuna.create_study(sampler=made)
    for _ in range(8):
        trial = study.ask()
        params = {path: trial.suggest_categorical(path, kind.choices) for path, kind in kinds.items()}
        study.tell(trial, sum(4.0 ** -int(w) for w in params.values()))
    assert {p for t in study.trials[:2] for p in t.params.values()} == {"2", "8"}  # the ends of the front


def test_binding_checks_and_measures_nothing():
    measured = []
    made = AllocatorSampler(Knapsack(), RandomSampler(0))
    made.bind(SamplerContext(allocation=layer_context(measured)))
    assert measured == []
    with pytest.raises(ConfigError, match="add allocator=knapsack"):
        AllocatorSampler(NoAllocator(), RandomSampler(0)).bind(SamplerContext())
    with pytest.raises(ConfigError, match=r"sampler\.objective=2, but the study has 1"):
        AllocatorSampler(Knapsack(), RandomSampler(0), objective=2).bind(
            SamplerContext(allocation=layer_context())
        )
    with pytest.raises(ConfigError, match="whose first stage quantizes a float ONNX network"):
        AllocatorSampler(Knapsack(), RandomSampler(0)).bind(SamplerContext())


def test_every_beginning_of_the_order_is_spread():
    front = [{"a": i} for i in range(9)]
    order = [widths["a"] for widths in spread(front)]
    assert order[:3] == [0, 8, 5]
    assert sorted(order) == list(range(9))
    assert spread(front[:1]) == front[:1]


def test_it_explains_its_proposals_once_it_made_some():
    made = sampler()
    assert made.explanation() == {}
    searched(made, 1)
    assert set(made.explanation()["units"]) == set(LOSSES)
