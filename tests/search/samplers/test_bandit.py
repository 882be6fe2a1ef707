import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from search.samplers.bandit import BanditSampler
from search.samplers.candidates.context import SamplerContext
from search.samplers.testing import RelativeSamplerTestCase, SamplerConformance
from spaces.errors import ConfigError

RATIO, RANK = FloatDistribution(0.0, 1.0), IntDistribution(1, 5)  # the rank's logarithm
SEEDS = range(10)


class TestBandit(SamplerConformance, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return BanditSampler

    # choices without an order are left to independent sampling
    test_sample_relative_categorical = None
    test_sample_relative_mixed = None


def bound_sampler(seed=None):
    sampler = BanditSampler(seed=seed)
    kinds = {
        "scheme": CategoricalDistribution(["plain", "clipped", None]),
        "bits": IntDistribution(2, 8, step=2),
        "clip": FloatDistribution(0.5, 1.0, log=True),
    }
    sampler.bind(SamplerContext(distributions=kinds))
    return sampler


def test_a_conditional_space_that_is_known_beforehand():
    study = optuna.create_study(sampler=bound_sampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        scheme = trial.suggest_categorical("scheme", ["plain", "clipped", None])
        value = trial.suggest_int("bits", 2, 8, step=2)
        if scheme == "clipped":
            value += trial.suggest_float("clip", 0.5, 1.0, log=True)
        study.tell(trial, value)
    assert len(study.trials) == 20
    bits = [trial.params["bits"] for trial in study.trials[10:]]
    assert np.mean(bits) < 5  # of 2, 4, 6, 8, to be minimised


def quality(ratio, rank):
    """Falls with the pruning ratio, rises with the rank."""
    return 1 - 0.8 * ratio**3 - 0.15 / 2**rank


def reward(ratio, rank, seconds_per_share):
    """The quality, reduced where the device takes longer than half a second; a higher ratio makes it faster."""
    late_s = max(0.0, seconds_per_share * (1 - ratio) * (1 + 0.02 * 2**rank) - 0.5)
    return quality(ratio, rank) * math.exp(-late_s)


def pull(sampler, seconds_per_share, seed, n=60):
    """Returns the sum of true rewards, and the ratios, of `n` noisy pulls."""
    rng = np.random.default_rng(1000 + seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    total, ratios = 0.0, []
    for _ in range(n):
        trial = study.ask({"ratio": RATIO, "rank": RANK})
        found = reward(trial.params["ratio"], trial.params["rank"], seconds_per_share)
        total += found
        ratios.append(trial.params["ratio"])
        study.tell(trial, found + rng.normal(0.0, 0.03))
    return total, ratios


@pytest.mark.parametrize("seconds_per_share", [0.7, 2.0])
def test_beats_random_arms_on_cumulative_reward(seconds_per_share):
    ours = [pull(BanditSampler(seed=seed), seconds_per_share, seed)[0] for seed in SEEDS]
    random = [pull(RandomSampler(seed=seed), seconds_per_share, seed)[0] for seed in SEEDS]
    assert sum(a > b for a, b in zip(ours, random, strict=True)) >= 8


def test_prunes_more_on_the_slower_device():
    for seed in range(3):
        fast, slow = (
            np.mean(pull(BanditSampler(seed=seed), seconds, seed)[1][30:]) for seconds in (0.7, 2.0)
        )
        assert slow > fast


@pytest.mark.parametrize("seed", range(3))
def test_follows_a_device_that_changes(seed):
    """With a discount, old pulls are forgotten."""
    study = optuna.create_study(direction="maximize", sampler=BanditSampler(discount=0.9, seed=seed))
    for number in range(80):
        trial = study.ask({"ratio": RATIO})
        ratio = trial.params["ratio"]
        study.tell(trial, ratio if number < 40 else 1 - ratio)
    ratios = [trial.params["ratio"] for trial in study.trials]
    assert np.mean(ratios[25:40]) > 0.7
    assert np.mean(ratios[65:]) < 0.3


def state_of(study):
    return [(t.number, t.params, t.values) for t in study.trials]


def test_a_resumed_study_continues_from_its_trials():
    kinds = {"ratio": RATIO, "rank": RANK, "form": CategoricalDistribution(["a", "b"])}

    def measure(study, n):
        for _ in range(n):
            trial = study.ask(kinds)
            study.tell(trial, quality(trial.params["ratio"], trial.params["rank"]))

    straight = optuna.create_study(direction="maximize", sampler=BanditSampler(seed=7))
    measure(straight, 30)
    resumed = optuna.create_study(direction="maximize", sampler=BanditSampler(seed=7))
    measure(resumed, 13)
    resumed.sampler = BanditSampler(seed=7)  # as in another process
    measure(resumed, 17)
    assert state_of(resumed) == state_of(straight)


def test_running_trials_count_as_pulls():
    """Otherwise several workers would all pull the same arm."""
    study = optuna.create_study(direction="maximize", sampler=BanditSampler(explore=1.0, seed=0))
    for ratio in (0.1, 0.2, 0.3, 0.8, 0.9):
        study.add_trial(
            create_trial(params={"ratio": ratio}, distributions={"ratio": RATIO}, value=1 + ratio)
        )
    ratios = [study.ask({"ratio": RATIO}).params["ratio"] for _ in range(24)]
    assert {int(2 * ratio) for ratio in ratios} == {0, 1}


def test_arms_that_fail_are_avoided():
    study = optuna.create_study(direction="maximize", sampler=BanditSampler(seed=1))
    for _ in range(60):
        trial = study.ask({"ratio": RATIO})
        if trial.params["ratio"] > 0.6:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, trial.params["ratio"])
    late = [trial.params["ratio"] for trial in study.trials[40:]]
    assert np.mean([ratio > 0.6 for ratio in late]) < 0.3
    assert np.mean(late) > 0.35


def test_only_the_named_knobs_are_arms():
    sampler = BanditSampler(arms=["ratio"], seed=0)
    study = optuna.create_study(sampler=sampler)
    trial = study.ask({"ratio": RATIO, "rank": RANK})
    study.tell(trial, 0.0)
    assert list(sampler.infer_relative_search_space(study, study.ask()._cached_frozen_trial)) == ["ratio"]


def test_ascending_numeric_choices_are_an_arm():
    ranks = [2, 4, 8, 16, 32]
    study = optuna.create_study(direction="maximize", sampler=BanditSampler(seed=0))
    for _ in range(40):
        trial = study.ask()
        study.tell(trial, float(trial.suggest_categorical("rank", ranks)))
    assert np.mean([trial.params["rank"] >= 16 for trial in study.trials[20:]]) > 0.6


def test_knobs_that_cannot_be_arms():
    kinds = {"ratio": RATIO, "form": CategoricalDistribution(["a", "b"])}
    BanditSampler(arms=["ratio"]).bind(SamplerContext(distributions=kinds))
    with pytest.raises(ConfigError, match=r"Unknown knob 'ratoi' in sampler.arms. Did you mean 'ratio'"):
        BanditSampler(arms=["ratoi"]).bind(SamplerContext(distributions=kinds))
    with pytest.raises(ConfigError, match=r"sampler.arms: form has no order"):
        BanditSampler(arms=["form"]).bind(SamplerContext(distributions=kinds))
    with pytest.raises(ConfigError, match="at least one `int`, `float` or ordered knob"):
        BanditSampler().bind(SamplerContext(distributions={"form": kinds["form"]}))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"explore": -0.1}, "sampler.explore must be at least 0, not -0.1"),
        ({"discount": 0.0}, r"sampler.discount must be in \(0, 1\], not 0.0"),
        ({"min_leaf_pulls": 0}, "sampler.min_leaf_pulls must be at least 1, not 0"),
        ({"tolerance": 2.0}, r"sampler.tolerance must be in \(0, 1\], not 2.0"),
    ],
)
def test_settings_out_of_range_raise(setting, message):
    with pytest.raises(ConfigError, match=message):
        BanditSampler(**setting)
