from itertools import product

import numpy as np
import pytest

from evaluators.task.tasks.control.environment import Episode, play
from evaluators.task.tasks.control.episodes import record
from evaluators.task.tasks.control.jamming import JammingEnvironment
from spaces.errors import ConfigError

JAMMERS = ("sweep", "random", "reactive", "mixed")


@pytest.mark.parametrize("jammer", JAMMERS)
def test_a_random_policy_earns_its_expected_return(jammer):
    environment = JammingEnvironment(
        jammer=jammer, channels=5, width=2, slots=10, switching_cost=0.3, reaction=0.7
    )
    rng = np.random.default_rng(0)
    returns = play(environment, range(600), lambda seen: rng.random((len(seen), 5)), 10).returns
    assert returns.mean() == pytest.approx(environment.random_return(), abs=4 * returns.std() / 600**0.5)
    low, high = environment.return_bounds
    assert low <= returns.min() < returns.max() <= high


def test_expected_returns_by_hand():
    # 8 channels, half of them jammed: each slot earns 0, less the cost of a change in 7 of 8 of the 49 later slots
    assert JammingEnvironment().random_return() == pytest.approx(-0.1 * 49 * 7 / 8)
    assert JammingEnvironment(jammer="reactive").random_return() == pytest.approx(
        50 - 2 * 49 / 8 - 0.1 * 49 * 7 / 8
    )


@pytest.mark.parametrize("seed", range(4))
def test_advice_is_the_best_of_all_sequences_against_a_sweep(seed):
    slots, n = 6, 4
    environment = JammingEnvironment(channels=n, width=2, slots=slots)
    best = max(_earned(environment, seed, actions) for actions in product(range(n), repeat=slots))
    assert record(environment, seed, slots, exploration=0).total == pytest.approx(best)


def _earned(environment, seed, actions):
    episode = Episode(environment, seed)
    for action in actions:
        episode.step(action)
    return episode.total


def test_advice_evades_a_reactive_jammer_with_a_change_each_slot():
    assert record(JammingEnvironment(jammer="reactive", slots=20), 0, 20, 0).total == pytest.approx(
        20 - 19 * 0.1
    )


@pytest.mark.parametrize("jammer", JAMMERS)
def test_an_observation_is_the_power_of_the_last_slots_and_the_own_channel(jammer):
    environment = JammingEnvironment(jammer=jammer, channels=6, width=2, history=3, noise=0)
    before = environment.reset(seed=1)
    assert before.shape == (3 * 6 + 6,)
    for action in (4, 4, 2):
        after, reward, _ = environment.step(action)
        np.testing.assert_array_equal(after[6:18], before[:12])  # the powers move on
        assert after[18:].tolist() == [float(channel == action) for channel in range(6)]
        assert (reward <= 0) == bool(after[action])  # jammed
        before = after


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jammer": "loud"}, "jammer must be one of sweep, random, reactive, mixed, not 'loud'"),
        ({"width": 8}, r"width must lie in 1\.\.7, not 8"),
        ({"slots": 0}, "at least 1"),
        ({"reaction": 1.5}, r"must lie in 0\.\.1"),
    ],
)
def test_wrong_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        JammingEnvironment(**settings)
