"""The knobs of the tokens stage, and which of them have no effect at which values of the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spaces.candidate import StageValue, Value
from spaces.errors import StageError, unknown_name
from spaces.knob_spec import KnobSpec, Technique

NONE, PROPAGATE = "none", "propagate"
PICKS: Final = ("dpc_knn", "sample", "attention", "motion")
GRAPHS: Final = ("spatial", "semantic", "mixed")
KINDS: Final = ("mixed", "class", "image", "diagonal", "cosine")
SELECTIONS: Final = (*(f"{kind}_{over}" for kind in KINDS for over in ("max", "mean")), "random")

_GTP = Technique("pruning", paper="GTP, arXiv 2311.03035", overrides=("model=vit", "+space.tokens.drop=[1]"))
_SHORTER = Technique(
    "pruning", paper="H2OT; HoT, arXiv 2311.12028", overrides=("model=vit", "+space.tokens.keep=[0.5]")
)

KNOBS = (
    KnobSpec(
        "method",
        NONE,
        "propagate: tokens of an image go in each block, and their values to neighbours (GTP); or a sequence gets shorter, and "
        "what stays are cluster centres, a uniform sample, what attention used most, or what moved most (H2OT, HoT)",
        (NONE, PROPAGATE, *PICKS),
        techniques=((PROPAGATE, _GTP), *((pick, _SHORTER) for pick in PICKS)),
    ),
    KnobSpec("drop", 0, "propagate: tokens that go in each block", low=0, high=64),
    KnobSpec(
        "selection", "mixed_max", "propagate: importance of tokens by the attention's heads", SELECTIONS
    ),
    KnobSpec("graph", "mixed", "propagate: whose neighbours get a token's values", GRAPHS),
    KnobSpec("alpha", 0.1, "propagate: factor on these values; 0 drops tokens", low=0.0, high=1.0),
    KnobSpec(
        "token_scale",
        False,
        "propagate: whether tokens that took others in count for more in the attention",
        (False, True),
    ),
    KnobSpec(
        "neighbours",
        5,
        "edges of each token in the semantic graph; or nearest tokens that make the density of dpc_knn",
        low=2,
        high=16,
    ),
    KnobSpec("keep", 1.0, "sequences: share of the tokens that each cut leaves", low=0.05, high=1.0),
    KnobSpec("cuts", 1, "sequences: number of cuts, at equal distances over the blocks", low=1, high=8),
    KnobSpec("first_cut", 1, "sequences: blocks before the first cut", low=1, high=64),
    KnobSpec(
        "recover", True, "sequences: whether the outputs are interpolated to the full length", (False, True)
    ),
)
DEFAULTS: Mapping[str, Value] = {knob.name: knob.default for knob in KNOBS}
_OF_PROPAGATION = ("drop", "selection", "graph", "alpha", "token_scale")
_OF_SEQUENCES = ("keep", "cuts", "first_cut", "recover")


@dataclass(frozen=True)
class TokenFacts:
    """What the values depend on.

    Attributes:
        n_tokens: Tokens, those at the front not counted.
        n_class: Tokens at the front that stay.
        n_blocks: Number of blocks.
        grid: Height and width in patches; None for sequences.
        shows_attention: Whether the blocks show their attention.
    """

    n_tokens: int
    n_class: int
    n_blocks: int
    grid: tuple[int, int] | None
    shows_attention: bool

    def cut_places(self, values: Mapping[str, Any]) -> dict[int, int]:
        """Returns how many tokens are left before which blocks."""
        first, cuts = values["first_cut"], values["cuts"]
        return {
            first + at * (self.n_blocks - first) // cuts: max(1, round(self.n_tokens * values["keep"] ** (at + 1)))
            for at in range(cuts)
        }  # fmt: skip

    def tokens_per_block(self, values: Mapping[str, Any]) -> list[int]:
        """Returns how many tokens, those at the front included, each block's attention has."""
        if values["method"] in PICKS:
            cuts, left, found = self.cut_places(values), self.n_tokens, []
            for at in range(self.n_blocks):
                left = cuts.get(at, left)
                found.append(self.n_class + left)
            return found
        return [self.n_class + self.n_tokens - at * values["drop"] for at in range(self.n_blocks)]

    def unsuited(self, name: str, value: Value) -> str | None:
        """Returns why a knob's value makes no sense for the network, whatever the others; None if it does."""
        if name == "method" and value in (PROPAGATE, "attention") and not self.shows_attention:
            return (
                f"method={value} needs the attention, which the network's blocks do not show (`TokenBlock`)"
            )
        if name == "method" and value == PROPAGATE and self.grid is None:
            return "method=propagate needs patches of an image, but the network has no `token_grid`"
        if name == "selection" and str(value).startswith("class") and not self.n_class:
            return f"selection={value} needs a class token, which the network does not have"
        if name == "drop" and isinstance(value, int) and value * self.n_blocks >= self.n_tokens:
            return f"drop={value} in each of {self.n_blocks} blocks leaves none of {self.n_tokens} tokens"
        if name == "neighbours" and isinstance(value, int) and value >= self.n_tokens:
            return f"neighbours={value} are more than {self.n_tokens} tokens have"
        if name in ("first_cut", "cuts") and isinstance(value, int) and value >= self.n_blocks:
            return f"{name}={value} is too much for {self.n_blocks} blocks"
        return None


def canonical(values: Mapping[str, StageValue], facts: TokenFacts) -> dict[str, StageValue]:
    """Returns the values, with the default for knobs that have no effect.

    Raises:
        StageError: A value is out of its domain, or the network cannot be reduced so.
    """
    chosen: dict[str, Any] = {**DEFAULTS, **values}
    _check_domains(chosen)
    if chosen["method"] == NONE:
        return dict(DEFAULTS)
    off = set(_OF_SEQUENCES if chosen["method"] == PROPAGATE else _OF_PROPAGATION)
    if chosen["method"] == PROPAGATE:
        if not chosen["drop"]:
            return dict(DEFAULTS)
        if not chosen["alpha"]:
            off |= {"graph", "token_scale", "neighbours"}
        if chosen["graph"] == "spatial":
            off.add("neighbours")
    elif chosen["method"] != "dpc_knn":
        off.add("neighbours")
    chosen |= {name: DEFAULTS[name] for name in off}
    _check_network({name: value for name, value in chosen.items() if name not in off}, facts)
    if chosen["method"] in PICKS and min(facts.cut_places(chosen).values()) == facts.n_tokens:
        return dict(DEFAULTS)
    return chosen


def _check_domains(values: Mapping[str, Any]) -> None:
    knobs = {knob.name: knob for knob in KNOBS}
    for name, value in values.items():
        if name not in knobs:
            raise StageError(unknown_name("knob", name, knobs, "tokens"))
        if problem := knobs[name].problem(value):
            raise StageError(f"tokens.{name} {problem}")


def _check_network(values: Mapping[str, Any], facts: TokenFacts) -> None:
    """Raises StageError if values, those of knobs without effect left out, cannot be applied to the network."""
    for name, value in values.items():
        if why := facts.unsuited(name, value):
            raise StageError(f"tokens: {why}")
    if values["method"] in PICKS and values["first_cut"] + values["cuts"] > facts.n_blocks:
        raise StageError(
            f"tokens: cuts={values['cuts']} from first_cut={values['first_cut']} on are more than {facts.n_blocks} blocks have "
            "places for"
        )
