"""What a network must have so that its tokens can be reduced."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from spaces.errors import StageError


@runtime_checkable
class TokenBlock(Protocol):
    """A transformer block whose attention can be seen, for any number of tokens; `feed(attend(x)[0])` is what it computes."""

    def attend(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the tokens after the attention and its shortcut, and the attention.

        Args:
            x: Tokens, `(n, tokens, width)`.
            bias: What is added to the logits of each key, `(n, tokens)`.

        Returns:
            `(n, tokens, width)`, and shares `(n, heads, queries, keys)` that add up to 1 over the keys.
        """
        ...

    def feed(self, x: Tensor) -> Tensor:
        """Returns the tokens after the feed-forward network and its shortcut, `(n, tokens, width)`."""
        ...


@dataclass(frozen=True)
class TokenNetwork:
    """The blocks of a network.

    The network, or a part of it, names them: its attribute `token_blocks` is the name of an `nn.Sequential` of blocks, which it
    calls as a whole. `token_grid` is the height and width of the patches that the tokens stand for, None for sequences;
    `class_tokens` the number of tokens before them that stand for none. Both may be absent.

    Attributes:
        owner: The part that has the blocks.
        name: The blocks' name in it.
        grid: Height and width in patches; None for sequences.
        n_class: Number of tokens at the front that are never dropped.
    """

    owner: nn.Module
    name: str
    grid: tuple[int, int] | None
    n_class: int

    @classmethod
    def of(cls, network: nn.Module) -> "TokenNetwork":
        """Finds the blocks.

        Raises:
            StageError: There are none, or they are no `nn.Sequential`.
        """
        owner = next((part for part in network.modules() if hasattr(part, "token_blocks")), None)
        if owner is None:
            raise StageError(
                "tokens: the network has no tokens that can be reduced: no part of it has an attribute `token_blocks`, the name of "
                "its blocks"
            )
        name = str(owner.token_blocks)
        if not isinstance(getattr(owner, name, None), nn.Sequential):
            raise StageError(
                f"tokens: token_blocks={name!r} of {type(owner).__name__} must name an nn.Sequential"
            )
        grid = getattr(owner, "token_grid", None)
        return cls(owner, name, None if grid is None else tuple(grid), int(getattr(owner, "class_tokens", 0)))

    @property
    def blocks(self) -> nn.Sequential:
        """The blocks."""
        found = getattr(self.owner, self.name)
        assert isinstance(found, nn.Sequential)
        return found

    @property
    def shows_attention(self) -> bool:
        """Whether all blocks are `TokenBlock`s."""
        return all(isinstance(block, TokenBlock) for block in self.blocks)
