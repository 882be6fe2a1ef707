import numpy as np
import pytest

from evaluators.base import Measurement
from search.record.results import TrialRecord
from search.report.findings.forest import importance
from spaces.candidate import Candidate


def trials(make, n_trials=60, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n_trials):
        values, score = make(rng)
        measured = (Measurement("score", float(score), "", "measured"),)
        found.append(TrialRecord(number, "complete", "", Candidate(values), measured))
    return found


def main_knob(rng):
    bits, clip, ratio = int(rng.choice([2, 4, 8])), str(rng.choice(["a", "b", "c"])), float(rng.random())
    return {"bits": bits, "clip": clip, "ratio": ratio}, bits + 0.5 * (clip == "b") + rng.normal(0, 0.05)


def test_knobs_are_ranked_by_their_effect():
    found = importance(trials(main_knob), "metric.score")
    assert list(found.shares) == ["bits", "clip", "ratio"]
    assert found.shares["bits"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.r2 > 0.8
    assert found.n_trials == 60


def test_noise_gives_no_ranking():
    found = importance(
        trials(lambda rng: ({"bits": int(rng.choice([2, 4, 8]))}, rng.normal())), "metric.score"
    )
    assert found.shares == {}
    assert "do not predict" in found.reason


def test_a_conditional_knob_is_assessed_where_it_is_active():
    def conditional(rng):
        pruned = bool(rng.random() < 0.5)
        ratio = float(rng.random())
        score = 4 * ratio if pruned else 2.0
        return {"prune": pruned, **({"ratio": ratio} if pruned else {})}, score + rng.normal(0, 0.02)

    found = importance(trials(conditional, 120), "metric.score")
    # Whether it is active does not change the mean, so shuffling that confuses the forest, but explains nothing.
    assert next(iter(found.shares)) == "ratio"
    assert found.shares["ratio"] > 0.6


def test_layers_of_one_knob_count_together():
    def per_layer(rng):
        bits = {f"bits[layer{i}]": int(rng.choice([4, 8])) for i in range(4)}
        return {**bits, "clip": str(rng.choice(["a", "b"]))}, sum(bits.values()) + rng.normal(0, 0.1)

    found = importance(trials(per_layer, 80), "metric.score")
    assert set(found.shares) == {"bits", "clip"}
    assert found.shares["bits"] > 0.9


@pytest.mark.parametrize(
    ("n_trials", "make", "words"),
    [
        (11, main_knob, "too few"),
        (0, main_knob, "too few"),
        (20, lambda rng: ({"bits": 4}, rng.normal()), "no knob varies"),
        (20, lambda rng: ({"bits": int(rng.choice([4, 8]))}, 1.0), "the same in every trial"),
        (20, lambda rng: ({"bits": int(rng.choice([4, 8]))}, np.nan), "too few"),
    ],
)
def test_it_says_why_there_is_no_ranking(n_trials, make, words):
    found = importance(trials(make, n_trials), "metric.score")
    assert found.shares == {}
    assert words in found.reason


def test_it_is_the_same_every_time():
    assert importance(trials(main_knob), "metric.score") == importance(trials(main_knob), "metric.score")
