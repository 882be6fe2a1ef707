import pytest
import torch

from spaces.architectures.families.vit import ViT
from spaces.architectures.testing import FamilyConformance

SMALL = {"patch": 8, "dim": 24, "depth": 2}


class SmallViT(ViT):
    """Defaults that export in seconds."""

    def defaults(self):
        return super().defaults() | SMALL


class TestViT(FamilyConformance):
    @pytest.fixture
    def family(self):
        return SmallViT()


def test_deit_tiny_has_the_published_parameters():
    assert ViT().counts(ViT().defaults(), (3, 224, 224), 1000).parameters == 5_717_416


def test_macs_are_those_of_its_matrix_products():
    t, dim, depth = 16, 24, 2
    linear = 4 * dim * dim + 2 * dim * 4 * dim
    macs = t * dim * 3 * 64 + depth * (t * linear + 2 * t * t * dim) + dim * 10
    assert ViT().counts(ViT().defaults() | SMALL | {"pool": "mean"}, (3, 32, 32), 10).macs == macs


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_torchs(heads):
    attention = network(heads=heads).blocks[0].attention
    reference = torch.nn.MultiheadAttention(24, heads, batch_first=True)
    parts = (attention.q, attention.k, attention.v)
    reference.in_proj_weight.data = torch.cat([part.weight for part in parts])
    reference.in_proj_bias.data = torch.cat([part.bias for part in parts])
    reference.out_proj.load_state_dict(attention.project.state_dict())
    x = torch.randn(2, 5, 24)
    wanted, weights = reference(x, x, x, average_attn_weights=False)
    assert torch.allclose(attention(x), wanted, atol=1e-6)
    assert torch.allclose(attention.weights(x), weights, atol=1e-6)


def test_tokens_are_patches_row_by_row_behind_the_class_token():
    made = network(pool="cls")
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        tokens = made.tokens(x) - made.positions
        patch = made.embed(x[:, :, 8:16, 16:24])[0, :, 0, 0]
    assert tokens.shape == (1, 17, 24)
    assert torch.allclose(tokens[0, 1 + 4 + 2], patch, atol=1e-5)


def test_without_positions_the_order_of_patches_makes_no_difference():
    made = network(pool="mean")
    torch.nn.init.zeros_(made.positions)
    x = torch.randn(1, 3, 32, 32)
    assert torch.allclose(made(x), made(x.roll(8, dims=3)), atol=1e-5)


def test_a_block_is_attention_and_feed_forward_for_any_number_of_tokens():
    block, x = network().blocks[0], torch.randn(2, 7, 24)
    after, attention = block.attend(x)
    assert torch.equal(block.feed(after), block(x))
    assert attention.shape == (2, 3, 7, 7)
    assert torch.allclose(attention.sum(-1), torch.ones(2, 3, 7))


def test_a_bias_of_log_2_is_a_token_that_is_there_twice():
    block, x = network().blocks[0], torch.randn(1, 4, 24)
    once, _ = block.attend(x, torch.tensor([[1.0, 1.0, 1.0, 2.0]]).log())
    twice, _ = block.attend(torch.cat([x, x[:, -1:]], 1))
    assert torch.allclose(once, twice[:, :-1], atol=1e-5)


@pytest.mark.parametrize(
    ("values", "why"), [({"heads": 16}, "heads=16 do not divide dim=24"), ({"patch": 7}, "patch=7 does not divide")]
)  # fmt: skip
def test_what_cannot_be_built(values, why):
    assert why in ViT().broken(ViT().defaults() | SMALL | values, (3, 32, 32))


def network(**values):
    torch.manual_seed(0)
    return ViT().build(ViT().defaults() | SMALL | values, (3, 32, 32), 10).eval()
