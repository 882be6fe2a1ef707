import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.pruning.tokens.importance import attention_importance, density_peaks, highest, motion, taken
from spaces.pruning.tokens.token_knobs import SELECTIONS

# one head, a class token and two patches: rows are queries
ATTENTION = torch.tensor([[[[0.5, 0.2, 0.3], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]])


@pytest.mark.parametrize(
    ("kind", "scores"),
    [("class", [0.2, 0.3]), ("diagonal", [0.8, 0.6]), ("image", [1.2, 1.0]), ("mixed", [0.96, 0.6])],
)
def test_importance_by_hand(kind, scores):
    for over in ("max", "mean"):
        found = attention_importance(ATTENTION, 1, f"{kind}_{over}")
        torch.testing.assert_close(found, torch.tensor([scores]))


def test_tokens_whose_attention_is_like_the_others_are_the_least_important():
    rows = torch.tensor([[0.6, 0.2, 0.2], [0.6, 0.2, 0.2], [0.0, 0.1, 0.9]])
    scores = attention_importance(rows[None, None], 0, "cosine_mean")
    assert scores.argmax() == 2


@pytest.mark.parametrize("selection", [s for s in SELECTIONS if s != "random"])
def test_heads_are_pooled(selection):
    attention = torch.rand(2, 4, 6, 6).softmax(-1)
    found = attention_importance(attention, 1, selection)
    assert found.shape == (2, 5)
    assert not torch.equal(found, attention_importance(attention[:, :1], 1, selection))


def test_motion_is_the_distance_from_the_token_before():
    tokens = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]])
    assert motion(tokens).tolist() == [[6, 5, 0]]


def test_density_peaks_are_the_centres_of_clusters():
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    tokens = torch.cat([centres, centres.repeat(4, 1) + torch.randn(12, 2)])[None]
    kept = highest(density_peaks(tokens, 3), 3)
    clusters = {int(torch.cdist(tokens[0, at : at + 1], centres).argmin()) for at in kept[0]}
    assert clusters == {0, 1, 2}


@given(n=st.integers(2, 20), seed=st.integers(0, 99), data=st.data())
def test_places_are_sorted_and_unique(n, seed, data):
    kept = data.draw(st.integers(1, n))
    tokens = torch.randn(3, n, 4, generator=torch.Generator().manual_seed(seed)).round()  # many are equal
    for scores in (density_peaks(tokens, 3), motion(tokens)):
        places = highest(scores, kept)
        assert places.shape == (3, kept)
        assert bool((places[:, 1:] > places[:, :-1]).all())
        lowest = scores.gather(1, places).amin(1)
        assert bool(((scores > lowest[:, None]).sum(1) <= kept).all())
        assert taken(tokens, places).shape == (3, kept, 4)
