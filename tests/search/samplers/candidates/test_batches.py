import numpy as np

from search.samplers.candidates.batches import diverse


def test_picked_candidates_differ():
    candidates = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 3}, {"a": 3, "b": 4}]
    scores = np.array([1.0, 0.7, 0.65, -np.inf])
    assert diverse(scores, candidates, 2) == [0, 2]
    assert diverse(scores, candidates, 2, weight=0.0) == [0, 1]
    assert sorted(diverse(scores, candidates, 9)) == [0, 1, 2]
    assert diverse(np.full(4, -np.inf), candidates, 2) == []


def test_equal_numbers_of_different_kinds_are_different_values():
    candidates = [{"a": True}, {"a": True}, {"a": 1}]
    assert diverse(np.array([1.0, 1.0, 1.0]), candidates, 2) == [0, 2]
