import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.record.suggest import distribution_of, params_of, value_of
from search.samplers.candidates.codes import Axis, Codes, without
from search.samplers.candidates.conditions import Conditions
from search.samplers.candidates.context import SamplerContext, key_of
from search.samplers.candidates.generation import evolve, propose_candidates
from search.samplers.candidates.pools import contains
from spaces.candidate import Candidate
from spaces.errors import SpaceError
from spaces.knobs import Choices, Condition, Knob, Range
from spaces.space import Space


def context_of(space):
    return SamplerContext(
        draw=lambda rng: params_of(space, space.sample(rng)),
        distributions={k.path: distribution_of(k.domain) for k in space.knobs},
    )


def per_layer(path, n_layers, domain, when=()):
    return [Knob(f"{path}[l{i}]", domain, when, (f"l{i}",)) for i in range(n_layers)]


def is_valid(space, params):
    try:
        values = {k: value_of(space[k].domain, v) for k, v in params.items()}
        space.validate(Candidate(values))
    except (SpaceError, KeyError, StopIteration):
        return False
    return True


PLAIN = Space(
    [
        Knob("quantize.scheme", Choices(("asymmetric", "symmetric", None, True, 1))),
        Knob("quantize.percentile", Choices((99.0, 99.9, 99.99), ordered=True)),
        Knob("prune.ratio", Range(0.0, 0.9, step=0.1)),
        Knob("recover.rate", Range(1e-5, 1e-1, log=True)),
        Knob("recover.epochs", Range(1, 64, log=True, integer=True)),
        Knob("recover.fixed", Choices((3,))),
        *per_layer("quantize.weight_bits", 12, Choices((2, 4, 8), ordered=True)),
        *per_layer("quantize.granularity", 12, Choices(("tensor", "channel"))),
    ]
)
CONDITIONAL = Space(
    [
        Knob("quantize.clipping", Choices(("max", "kl", "percentile", "mse"))),
        Knob("quantize.percentile", Range(90.0, 100.0), (Condition("quantize.clipping", ("percentile",)),)),
        Knob("quantize.plan", Choices(("same", "mixed"))),
        *per_layer("quantize.bits", 8, Choices((2, 4, 8)), (Condition("quantize.plan", ("mixed",)),)),
        *(Knob(f"quantize.k{i}", Choices(("a", "b", "c"))) for i in range(4)),
    ]
)


@pytest.mark.parametrize("space", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
@pytest.mark.parametrize("n_parents", [0, 1, 20])
def test_children_are_valid_new_and_different(space, n_parents):
    rng = np.random.default_rng(3)
    context = context_of(space)
    parents = [context.draw(rng) for _ in range(n_parents)]
    found = propose_candidates(parents, context, rng, 300)
    keys = {key_of(params) for params in found}
    assert 70 < len(found) <= 300
    assert len(keys) == len(found)
    assert not keys & {key_of(params) for params in parents}
    assert np.mean([is_valid(space, params) for params in found]) > 0.95
    for params in found:
        assert all(contains(context.distributions[name], value) for name, value in params.items())


def test_children_stay_near_their_parents():
    rng = np.random.default_rng(0)
    context = context_of(PLAIN)
    parent = context.draw(rng)
    distances = Counter(
        sum(parent[name] != value for name, value in params.items())
        for params in propose_candidates([parent], context, rng, 500)
    )
    assert distances[1] > 40
    assert sum(count for d, count in distances.items() if d <= 3) > 250
    assert sum(count for d, count in distances.items() if d > 8) > 5  # the random ones


def test_a_run_of_layers_moves_together():
    space = Space(per_layer("quantize.bits", 12, Choices((2, 4, 8))))
    rng = np.random.default_rng(0)
    parent = {knob.path: 8 for knob in space.knobs}
    found = propose_candidates([parent], context_of(space), rng, 1000)
    changed = [[i for i, value in enumerate(p.values()) if value != 8] for p in found]
    runs = [c for c in changed if len(c) >= 4 and c[-1] - c[0] == len(c) - 1]
    equal = [
        c
        for p, c in zip(found, changed, strict=True)
        if c in runs and len({[*p.values()][i] for i in c}) == 1
    ]
    assert len(equal) > 10  # by chance about none: 4 of 12 neighbours with the same value


def test_switches_change_with_the_knobs_that_depend_on_them():
    rng = np.random.default_rng(1)
    context = context_of(CONDITIONAL)
    parent = next(p for p in iter(lambda: context.draw(rng), None) if p["quantize.plan"] == "same")
    found = propose_candidates([parent], context, rng, 500)
    mixed = [params for params in found if params["quantize.plan"] == "mixed"]
    assert mixed
    assert all("quantize.bits[l0]" in params for params in mixed)


def test_the_same_seed_gives_the_same_candidates():
    context = context_of(CONDITIONAL)
    parents = [context.draw(np.random.default_rng(0)) for _ in range(5)]
    first, second = (propose_candidates(parents, context, np.random.default_rng(7), 50) for _ in range(2))
    assert first == second


def test_parents_of_another_space_are_left_out():
    context = context_of(PLAIN)
    rng = np.random.default_rng(0)
    strange = [{"quantize.scheme": "unheard of"}, {"other": 1}, {**context.draw(rng), "other": 1}]
    assert len(propose_candidates(strange, context, rng, 40)) == 40


def test_a_small_space_gives_all_its_candidates():
    context = SamplerContext(distributions={"a": CategoricalDistribution([1, 2]), "b": IntDistribution(0, 1)})
    rng = np.random.default_rng(0)
    found = propose_candidates([{"a": 1, "b": 0}], context, rng, 100)
    assert {key_of(p) for p in found} == {key_of({"a": a, "b": b}) for a, b in [(1, 1), (2, 0), (2, 1)]}
    assert propose_candidates([], SamplerContext(), rng, 10) == []
    assert propose_candidates([], context, rng, 0) == []


# -- rows of numbers -----------------------------------------------------------------------------------------------------


KINDS = st.sampled_from(
    [
        CategoricalDistribution(["a", 1, True, None]),
        IntDistribution(-3, 9, step=3),
        IntDistribution(1, 1000, log=True),
        FloatDistribution(-1.0, 2.0),
        FloatDistribution(0.1, 0.7, step=0.2),
        FloatDistribution(1e-6, 1.0, log=True),
        FloatDistribution(2.0, 2.0),
    ]
)


@settings(max_examples=60, deadline=None)
@given(KINDS, st.integers(0, 2**32 - 1))
def test_draws_and_steps_are_values_of_the_knob(kind, seed):
    axis, rng = Axis(kind), np.random.default_rng(seed)
    numbers = axis.draw(20, rng)
    for found in (numbers, axis.step(numbers, rng)):
        values = axis.external(found)
        assert all(contains(kind, value) for value in values)
        assert [axis.internal(value) for value in values] == pytest.approx(found.tolist())


def test_a_step_changes_an_integer():
    axis, rng = Axis(IntDistribution(1, 1000, log=True)), np.random.default_rng(0)
    middle = np.full(200, 3.0)
    assert (axis.step(middle, rng) != middle).all()


def test_steps_are_of_all_sizes():
    axis, rng = Axis(FloatDistribution(0.0, 1.0)), np.random.default_rng(0)
    sizes = np.abs(axis.step(np.full(2000, 0.5), rng) - 0.5)
    assert 0.1 < (sizes < 0.01).mean() < 0.6
    assert (sizes > 0.1).mean() > 0.05


@settings(max_examples=60, deadline=None)
@given(KINDS.filter(lambda kind: not isinstance(kind, CategoricalDistribution)), st.integers(0, 2**32 - 1))
def test_between_two_values_are_values_of_the_knob(kind, seed):
    axis, rng = Axis(kind), np.random.default_rng(seed)
    first, second = axis.draw(20, rng), axis.draw(20, rng)
    found = axis.between(first, second, rng.uniform(-0.25, 1.25, 20))
    assert all(contains(kind, value) for value in axis.external(found))
    assert axis.between(first, second, np.zeros(20)) == pytest.approx(first)
    assert axis.between(first, second, np.ones(20)) == pytest.approx(second)


def test_numbers_are_blended_on_their_scale():
    axis = Axis(FloatDistribution(1e-4, 1.0, log=True))
    assert axis.between(np.array([1e-4]), np.array([1.0]), np.array([0.5])) == pytest.approx(1e-2)


def test_children_move_along_the_line_through_their_parents():
    space = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(12)}
    context = SamplerContext(distributions=space)
    parents = [dict.fromkeys(space, 0.25), dict.fromkeys(space, 0.75)]
    found = propose_candidates(parents, context, np.random.default_rng(0), 1000)
    inner = [set(child.values()) for child in found if len(set(child.values())) == 1]
    assert len(inner) > 20
    assert all(0.125 <= value <= 0.875 for values in inner for value in values)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_codes_round_trip(seed, conditional):
    space = CONDITIONAL if conditional else PLAIN
    context, rng = context_of(space), np.random.default_rng(seed)
    drawn = [context.draw(rng) for _ in range(5)]
    codes = Codes(context.distributions)
    assert codes.decode(codes.encode(drawn)) == drawn


def test_distinct_rows_keep_their_order():
    rows = np.array([[1.0, np.nan], [0.0, 2.0], [1.0, np.nan], [-0.0, 2.0], [3.0, 3.0]])
    assert without(rows, np.array([[3.0, 3.0]])).tolist()[1] == [0.0, 2.0]
    assert len(without(rows, np.array([[3.0, 3.0]]))) == 2


def test_conditions_are_learned():
    context, rng = context_of(CONDITIONAL), np.random.default_rng(0)
    codes = Codes(context.distributions)
    rows = codes.encode([context.draw(rng) for _ in range(200)])
    found = Conditions(rows)
    named = {name for name, is_switch in zip(codes.names, found.switch, strict=True) if is_switch}
    assert named == {"quantize.clipping", "quantize.plan"}
    assert found.conditional.sum() == 9
    plan = codes.names.index("quantize.plan")
    other = 1 - rows[:, plan]
    assert not found.fits(rows, plan, other).any()
    assert found.fits(rows, plan, rows[:, plan]).all()


# -- rounds --------------------------------------------------------------------------------------------------------------


def test_evolution_finds_what_random_candidates_do_not():
    space = Space([Knob(f"quantize.k{i}", Choices(tuple("abcdefgh"))) for i in range(12)])
    context, rng = context_of(space), np.random.default_rng(0)
    wanted = context.draw(rng)

    def score(candidates):
        return np.array([sum(c[name] == value for name, value in wanted.items()) for c in candidates], float)

    parents = [context.draw(rng) for _ in range(10)]
    best, scores = evolve(parents, score, context, rng, rounds=5, n=400)
    assert scores.tolist() == sorted(scores, reverse=True)
    assert score(best).tolist() == scores.tolist()
    drawn = score([context.draw(rng) for _ in range(2000)]).max()
    assert scores[0] >= max(drawn + 2, score(parents).max() + 3)
    assert len({key_of(c) for c in best}) == len(best)


@pytest.mark.slow
def test_it_is_fast():
    space = Space(
        [
            *(Knob(f"quantize.k{i}", Choices(("a", "b", "c"))) for i in range(10)),
            *per_layer("quantize.bits", 50, Choices((2, 4, 8), ordered=True)),
        ]
    )
    context, rng = context_of(space), np.random.default_rng(0)
    parents = [context.draw(rng) for _ in range(50)]
    seconds = []
    for _ in range(5):
        began = time.process_time()
        propose_candidates(parents, context, rng, 2000)
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.15
