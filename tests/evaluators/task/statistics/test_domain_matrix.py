import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.task.statistics.domain_matrix import generality_gap, specialisation_index, transfer_ratio

SCORES = st.floats(0.01, 1.0)


def test_by_hand():
    scores = np.array([[0.8, 0.4, 0.2], [0.3, 0.6, 0.3], [0.5, 0.5, 0.5]])
    np.testing.assert_allclose(generality_gap(scores), [0.5, 0.3, 0])
    np.testing.assert_allclose(specialisation_index(scores), [0.5 / 0.8, 0.5, 0])
    expected = [(0.4 / 0.6 + 0.2 / 0.5) / 2, (0.3 / 0.8 + 0.3 / 0.5) / 2, (0.5 / 0.8 + 0.5 / 0.6) / 2]
    np.testing.assert_allclose(transfer_ratio(scores), expected)


@given(st.integers(2, 5), SCORES)
def test_a_network_that_is_as_good_everywhere_is_no_specialist(n, score):
    scores = np.full((n, n, 2), score)
    for figure in (generality_gap, specialisation_index):
        assert figure(scores).shape == (n, 2)
        assert figure(scores) == pytest.approx(0)
    assert transfer_ratio(scores) == pytest.approx(1)


@given(st.lists(SCORES, min_size=2, max_size=5))
def test_equal_rows_transfer_all(row):
    assert transfer_ratio(np.array([row] * len(row))) == pytest.approx(1)


@given(st.lists(SCORES, min_size=6, max_size=6), st.floats(0.1, 10))
def test_the_unit_of_scores_does_not_matter_to_ratios(values, factor):
    scores = np.array([*values, 0.5, 0.6, 0.7]).reshape(3, 3)
    for figure in (specialisation_index, transfer_ratio):
        np.testing.assert_allclose(figure(factor * scores), figure(scores), rtol=1e-9, atol=1e-9)
