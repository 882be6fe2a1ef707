import numpy as np
import optuna
import pytest

from search.samplers.candidates.context import Known, PartialResult, SamplerContext, key_of
from search.samplers.surrogate import SurrogateSampler
from search.samplers.surrogate import low_fidelity as low_fidelity_module
from search.samplers.surrogate.model.low_fidelity_results import LowFidelityResults
from search.samplers.surrogate.model.multi_fidelity import Compressed, Estimates, posterior_of
from search.samplers.surrogate.model.quality import Quality, expected_quality, observed_quality

N_FULL = 4000
POOL = [{"a": a, "b": b, "c": c} for a in range(6) for b in range(6) for c in range(6)]


def truth(params):
    return 90.0 - 0.4 * abs(params["a"] - 4) - 0.5 * abs(params["b"] - 1) - 0.3 * abs(params["c"] - 2) ** 1.5


class FakeLowFidelity:
    """Low-fidelity evaluations of a made-up network; records the calls and counts the examples."""

    sizes = (64, 256, 1024, 2000)
    n_full = N_FULL

    def __init__(self, seed=0, statistics=True, fails=(), noise=12.0):
        self.random, self.with_statistics, self.fails = np.random.default_rng(seed), statistics, fails
        self.noise, self.examples = noise, 0
        self.calls = []

    def known(self, candidates):
        costs = np.array([float(p["a"]) for p in candidates])
        values = np.full((len(candidates), 1), np.nan)
        return Known(values, {"cost": costs - 4.5}, [str(sorted(p.items())) for p in candidates])

    def statistics(self, candidates):
        if not self.with_statistics:
            return {}
        return {
            "sqnr_db": np.array([truth(p) for p in candidates]) + self.random.normal(0, 0.5, len(candidates))
        }

    def short(self, candidate, n_examples):
        self.calls.append((key_of(candidate), n_examples))
        if candidate["c"] in self.fails:
            return None
        self.examples += n_examples
        error = self.noise * np.sqrt(1 / n_examples - 1 / N_FULL)
        value = truth(candidate) + self.random.normal(0, error)
        features = {"output_sqnr_db": truth(candidate) + self.random.normal(0, 0.3)}
        return PartialResult(n_examples, np.array([value]), np.array([error]), {}, features)


def search(low_fidelity, n_trials, budget=2.0, seed=0):
    sampler = SurrogateSampler(seed=seed, low_fidelity_budget=budget)
    sampler.bind(SamplerContext(POOL, directions=("maximize",), low_fidelity=low_fidelity, baselines=(91.0,)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(n_trials):
        trial = study.ask()
        params = {name: trial.suggest_categorical(name, list(range(6))) for name in "abc"}
        trial.set_constraint("cost", params["a"] - 4.5)
        study.tell(trial, truth(params))
    return study


@pytest.mark.parametrize("statistics", [True, False])
def test_low_fidelity_finds_a_near_best_candidate_in_a_few_trials(statistics):
    best = max(truth(p) for p in POOL if p["a"] <= 4)
    gaps = [best - search(FakeLowFidelity(s, statistics), 3, seed=s).best_value for s in range(4)]
    assert np.median(gaps) <= 0.4
    without = [best - search(None, 3, seed=s).best_value for s in range(4)]
    assert np.median(gaps) < np.median(without)


def test_candidates_known_to_break_a_constraint_are_not_evaluated_first():
    low_fidelity = FakeLowFidelity()
    search(low_fidelity, 1)
    assert not [key for key, _ in low_fidelity.calls[:16] if dict(key)["a"] == 5]


def test_low_fidelity_evaluations_keep_to_their_budget():
    low_fidelity = FakeLowFidelity()
    search(low_fidelity, 3, budget=1.0)
    # one proposal may exceed the budget by one more, and by the batch of evaluations that was under way
    assert low_fidelity.examples / N_FULL <= 3 * 1.0 + 1.0 + 4 * 0.6


def test_without_a_budget_there_are_no_low_fidelity_evaluations():
    low_fidelity = FakeLowFidelity()
    search(low_fidelity, 2, budget=0.0)
    assert not low_fidelity.calls


def test_candidates_that_cannot_be_run_are_not_proposed():
    low_fidelity = FakeLowFidelity(fails=(2,))
    study = search(low_fidelity, 4)
    assert all(t.params["c"] != 2 or (key_of(t.params), 64) not in low_fidelity.calls for t in study.trials)


def test_equal_seeds_give_equal_evaluations_and_trials():
    a, b = FakeLowFidelity(), FakeLowFidelity()
    first, second = search(a, 3), search(b, 3)
    assert a.calls == b.calls
    assert [t.params for t in first.trials] == [t.params for t in second.trials]


def test_a_larger_evaluation_continues_the_smaller_one_and_its_cost_is_counted():
    results = LowFidelityResults(FakeLowFidelity())
    key = key_of(POOL[0])
    results.evaluate(POOL[0], 1024)
    assert results.first(key).n_examples == 64  # comparable with the first result of every other candidate
    assert results.longest(key).n_examples == 1024
    assert results.spent == pytest.approx((64 + 64 + 960 + 64) / N_FULL)
    assert not results.exhausted([key])[0]
    results.evaluate(POOL[0], 2000)
    assert results.exhausted([key])[0]


def test_a_small_validation_split_has_no_low_fidelity_evaluations():
    low_fidelity = FakeLowFidelity()
    low_fidelity.n_full = 15 * low_fidelity.sizes[0]
    search(low_fidelity, 2)
    assert not low_fidelity.calls


def test_quality_is_extended_by_statistics_and_similarity():
    random = np.random.default_rng(0)
    statistics = random.normal(size=(50, 1))
    truth_of = 2 * statistics[:, 0]
    evaluated = np.arange(20)
    found = expected_quality(evaluated, truth_of[:20], statistics, np.eye(50)[:20])
    assert np.corrcoef(found.mean[20:], truth_of[20:])[0, 1] > 0.99
    assert not found.std[:20].any()
    assert (found.std[20:] > 0).all()


def test_features_of_different_units_count_alike():
    quality = observed_quality([{"db": 10.0 * i, "percent": 90 + i / 10, "flat": 1.0} for i in range(5)])
    assert np.all(np.diff(quality) > 0)


def test_one_full_result_corrects_the_common_error_of_low_fidelity_estimates():
    n = 12
    quality = expected_quality(np.arange(n), np.zeros(n), np.zeros((n, 0)), np.exp(-3 * (1 - np.eye(n))))
    scale = Compressed(90.0, 0.3)
    low_fidelity = Estimates(np.arange(n), np.full(n, 89.5), np.full(n, 0.5), np.full(n, 0.25))
    full = Estimates(
        np.append(low_fidelity.at, 0),
        np.append(low_fidelity.values, 88.8),
        np.append(low_fidelity.errors, 0.0),
        np.append(low_fidelity.shares, 1.0),
    )
    correlations = np.exp(-3 * (1 - np.eye(n)))
    before, _, _ = posterior_of(quality, correlations, low_fidelity, scale)
    after, _, _ = posterior_of(quality, correlations[full.at], full, scale)
    assert (after.mean[1:] < before.mean[1:]).all()
    assert scale.inverse(after.mean)[0] == pytest.approx(88.8, abs=0.05)


def test_the_effect_of_quality_may_level_off():
    # poor quality reduces the value much, good quality not at all: so it may be for quality in between
    quality = np.linspace(-2, 1, 31)
    at = np.array([*range(6), *range(27, 31)])
    values = 90.0 - np.where(quality < -1, 4.0 * (-1 - quality), 0.0)
    estimates = Estimates(at, values[at], np.full(len(at), 0.1), np.full(len(at), 0.5))
    scale = Compressed(90.0, 0.1)
    posterior, _, _ = posterior_of(
        Quality(quality, np.zeros(31), np.zeros(31)), np.eye(31)[at], estimates, scale
    )
    between = (quality > -0.8) & (quality < 0.6)
    off = np.abs(scale(values) - posterior.mean) / posterior.std
    assert off[between].max() < 2.5


def test_amplitudes_are_fitted_anew_as_trials_come_in(monkeypatch):
    monkeypatch.setattr(low_fidelity_module, "_MAX_ESTIMATES", 24)
    fitted_with = []

    def recording(quality, correlations, estimates, scale, log_amplitudes):
        if log_amplitudes is None:
            fitted_with.append((len(estimates.at), int(np.sum(estimates.shares == 1))))
        return posterior_of(quality, correlations, estimates, scale, log_amplitudes)

    monkeypatch.setattr(low_fidelity_module, "posterior_of", recording)
    search(FakeLowFidelity(), 12)
    full = [n_full for n, n_full in fitted_with if n == 24]
    assert max(full) >= 6  # also when there are no more estimates than before, but better ones
    assert len(fitted_with) < 40


def test_the_compressed_scale_has_an_inverse():
    scale = Compressed(90.0, 0.3)
    values = np.linspace(10, 91, 50)
    np.testing.assert_allclose(scale.inverse(scale(values)), values)


@pytest.mark.timeout(20)
def test_when_no_evaluation_can_gain_anything_a_candidate_is_proposed(monkeypatch):
    class Certain:
        def after(self, shares, unevaluated):
            return self

    class Model:
        def __init__(self, *_):
            pass

        def fidelity_posteriors(self):
            return {0: Certain(), 1: Certain()}

        def mean_statistic(self):
            return np.zeros(len(pool))

    monkeypatch.setattr(low_fidelity_module, "_FidelityModel", Model)
    pool, low_fidelity = POOL[:6], FakeLowFidelity()
    empty = np.zeros((0, 2))
    observations = low_fidelity_module.Observations(
        pool,
        np.zeros((6, 3)),
        np.zeros(6, bool),
        [],
        np.zeros((0, 3)),
        empty,
        empty,
        {},
        np.ones(2),
        np.ones(2),
    )
    policy = low_fidelity_module.LowFidelityPolicy(low_fidelity, None, budget=2.0)
    chosen = policy.pick(observations, lambda posteriors, ready: np.zeros(6), np.random.default_rng(0))
    assert (key_of(pool[chosen]), 2000) in low_fidelity.calls
