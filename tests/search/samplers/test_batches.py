import numpy as np

from search.samplers.batches import diverse, pick_batch, with_pending


def test_pending_trials_count_as_they_are_predicted():
    front = np.array([[1.0, 3.0], [3.0, 1.0]])
    joined = with_pending(front, np.array([[2.0, 2.0], [0.5, 0.5], [4.0, 1.0]]))
    assert sorted(map(tuple, joined)) == [(1.0, 3.0), (2.0, 2.0), (4.0, 1.0)]
    assert with_pending(np.empty((0, 2)), np.empty((0, 2))).shape == (0, 2)


def test_a_batch_does_not_take_the_same_twice():
    means = np.array([[5.0, 5.0], [4.9, 5.0], [9.0, 1.0], [0.0, 0.0]])
    rng = np.random.default_rng(0)
    batch = pick_batch(means, np.zeros_like(means), np.array([[1.0, 1.0]]), np.zeros(2), np.ones(4), rng, 2)
    assert batch == [0, 2]  # the second best alone adds nothing beside the first
    everything = pick_batch(means, np.zeros_like(means), np.empty((0, 2)), np.zeros(2), np.ones(4), rng, 9)
    assert sorted(everything) == [0, 1, 2, 3]


def test_what_is_likely_infeasible_takes_nothing_from_others():
    means = np.array([[5.0, 5.0], [4.9, 5.0]])
    rng = np.random.default_rng(0)
    chances = np.array([0.4, 0.39])
    front = np.array([[1.0, 1.0]])
    assert pick_batch(means, np.zeros_like(means), front, np.zeros(2), chances, rng, 2) == [0, 1]


def test_short_looks_differ():
    candidates = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 3}, {"a": 3, "b": 4}]
    scores = np.array([1.0, 0.7, 0.65, -np.inf])
    assert diverse(scores, candidates, 2) == [0, 2]
    assert diverse(scores, candidates, 2, weight=0.0) == [0, 1]
    assert sorted(diverse(scores, candidates, 9)) == [0, 1, 2]
    assert diverse(np.full(4, -np.inf), candidates, 2) == []


def test_equal_numbers_of_different_kinds_are_different_values():
    candidates = [{"a": True}, {"a": True}, {"a": 1}]
    assert diverse(np.array([1.0, 1.0, 1.0]), candidates, 2) == [0, 2]
