import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.pruning.tokens.graphs import normalised, semantic_graph, spatial_graph


def test_patches_have_up_to_eight_neighbours():
    graph = spatial_graph((3, 4))
    assert graph.sum(1).tolist() == [3, 5, 5, 3, 5, 8, 8, 5, 3, 5, 5, 3]
    assert bool((graph == graph.T).all())
    assert graph.diagonal().sum() == 0


@given(n=st.integers(4, 12), neighbours=st.integers(2, 3), seed=st.integers(0, 9))
def test_similar_tokens_are_neighbours(n, neighbours, seed):
    tokens = torch.randn(2, n, 5, generator=torch.Generator().manual_seed(seed))
    graph = semantic_graph(tokens, neighbours)
    assert (graph.sum(2) == neighbours).all()
    assert graph.diagonal(dim1=1, dim2=2).sum() == 0
    cosines = torch.nn.functional.cosine_similarity(tokens[:, :, None], tokens[:, None], dim=3)
    cosines = cosines - 9 * torch.eye(n)
    linked = torch.where(graph > 0, cosines, torch.inf).amin(2)
    others = torch.where(graph > 0, -torch.inf, cosines).amax(2)
    assert bool((linked >= others).all())


def test_the_normalised_graph_of_equal_degrees_is_a_mean():
    ring = torch.tensor([[0.0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
    torch.testing.assert_close(normalised(ring), ring / 2)
    assert bool(torch.isfinite(normalised(torch.zeros(3, 3))).all())
