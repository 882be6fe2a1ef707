"""A small transformer whose tokens can be reduced, and conformance tests of such networks, to be inherited.

::

    class TestMyTokens(TokenNetworkConformance):
        @pytest.fixture
        def network(self): return MyNetwork()

        @pytest.fixture
        def examples(self): return torch.randn(2, 3, 32, 32)
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.pruning.tokens.token_network import TokenBlock, TokenNetwork


class TransformerBlock(nn.Module):
    """Attention and a feed-forward network, each after a LayerNorm and with a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, tokens, width)` -> the same shape."""
        return self.feed(self.attend(x)[0])

    def attend(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the tokens and the attention: see `TokenBlock`."""
        normed = self.norm(x)
        q, k, v = (self._heads(layer(normed)) for layer in (self.queries, self.keys, self.values))
        logits = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        if bias is not None:
            logits = logits + bias[:, None, None]
        attention = logits.softmax(-1)
        return x + self.project((attention @ v).transpose(1, 2).flatten(2)), attention

    def feed(self, x: Tensor) -> Tensor:
        """Returns the tokens after the feed-forward network."""
        return x + self.contract(functional.gelu(self.expand(self.feed_norm(x))))  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class SmallTransformer(nn.Module):
    """A vision transformer, or one for signals.

    Args:
        input_shape: `(channels, height, width)` or `(channels, time)`.
        patch: Size of a patch along every axis.
        width: Values of a token.
        depth: Number of blocks.
        n_outputs: Number of outputs.
        heads: Heads of the attention.
        has_class: Whether a class token is classified, else the mean of the tokens.
        per_step: Whether each token is classified, `(n, tokens, n_outputs)`.
    """

    token_blocks = "blocks"  # noqa: S105 (a name)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        patch: int = 4,
        width: int = 16,
        depth: int = 3,
        n_outputs: int = 5,
        heads: int = 2,
        has_class: bool = False,
        per_step: bool = False,
    ) -> None:
        super().__init__()
        grid = tuple(size // patch for size in input_shape[1:])
        conv = nn.Conv2d if len(grid) == 2 else nn.Conv1d
        self.token_grid = (grid[0], grid[1]) if len(grid) == 2 else None
        self.class_tokens, self.per_step = int(has_class), per_step
        self.embed = conv(input_shape[0], width, patch, patch)
        n_tokens = int(torch.tensor(grid).prod())
        self.positions = nn.Parameter(torch.randn(1, n_tokens, width) * 0.5)
        self.front = nn.Parameter(torch.randn(1, self.class_tokens, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        tokens = self.blocks(torch.cat([self.front.expand(x.shape[0], -1, -1), tokens], 1))
        if self.per_step:
            return self.head(tokens[:, self.class_tokens :])  # type: ignore[no-any-return]
        return self.head(tokens[:, 0] if self.class_tokens else tokens.mean(1))  # type: ignore[no-any-return]


class TokenNetworkConformance:
    """Tests that every network must pass whose tokens the stage `tokens` is to reduce."""

    @pytest.fixture
    def network(self) -> nn.Module:
        """The network under test."""
        raise NotImplementedError("define a fixture named `network`")

    @pytest.fixture
    def examples(self) -> Tensor:
        """A batch of at least two inputs."""
        raise NotImplementedError("define a fixture named `examples`")

    @pytest.fixture
    def tokens(self, network: nn.Module, examples: Tensor) -> Tensor:
        """What the network gives its blocks."""
        seen: list[Tensor] = []
        hook = TokenNetwork.of(network).blocks.register_forward_pre_hook(
            lambda _, given: seen.append(given[0])
        )
        with torch.no_grad():
            network.eval()(examples)
        hook.remove()
        (tokens,) = seen
        return tokens

    def test_the_network_calls_its_blocks_with_as_many_tokens_as_the_grid_has_patches(
        self, network: nn.Module, tokens: Tensor
    ) -> None:
        """The attributes of the network are true."""
        found = TokenNetwork.of(network)
        assert found.shows_attention
        if found.grid is not None:
            assert tokens.shape[1] - found.n_class == found.grid[0] * found.grid[1]

    def test_a_block_is_its_two_parts(self, network: nn.Module, tokens: Tensor) -> None:
        """`attend` and `feed` together compute what the block does, for fewer tokens, too."""
        for block in TokenNetwork.of(network).blocks:
            assert isinstance(block, TokenBlock)
            with torch.no_grad():
                for n in (tokens.shape[1], tokens.shape[1] - 1):
                    after, attention = block.attend(tokens[:, :n])
                    torch.testing.assert_close(block.feed(after), block(tokens[:, :n]))
                    torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
                    assert attention.shape[2:] == (n, n)

    def test_a_bias_of_log_2_is_a_token_that_is_there_twice(self, network: nn.Module, tokens: Tensor) -> None:
        """The bias is added to the logits of the keys."""
        bias = torch.zeros(tokens.shape[:2])
        bias[:, -1] = torch.log(torch.tensor(2.0))
        block = TokenNetwork.of(network).blocks[0]
        assert isinstance(block, TokenBlock)
        with torch.no_grad():
            once, _ = block.attend(tokens, bias)
            twice, _ = block.attend(torch.cat([tokens, tokens[:, -1:]], 1))
        torch.testing.assert_close(once, twice[:, :-1], rtol=1e-4, atol=1e-5)
