"""Scores of different groups on one scale."""

import pytest
import torch

from spaces.errors import StageError
from spaces.pruning.criteria.scoring.normalise import normalise


def test_the_mean_becomes_1():
    scores = {"a": torch.tensor([1.0, 2.0, 6.0]), "b": torch.tensor([1e-9, 3e-9], dtype=torch.float64)}
    found = normalise(scores, "any")
    assert list(found) == ["a", "b"]
    assert found["a"].tolist() == [1 / 3, 2 / 3, 2.0]
    assert found["b"].tolist() == pytest.approx([0.5, 1.5])
    assert {values.dtype for values in found.values()} == {torch.float64}


def test_zeros_are_unchanged():
    assert normalise({"a": torch.zeros(3)}, "any")["a"].tolist() == [0.0] * 3


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_raise(value):
    with pytest.raises(StageError, match=r"criterion=mine .*not finite for layer\.weight"):
        normalise({"fine": torch.ones(2), "layer.weight": torch.tensor([1.0, value])}, "mine")
