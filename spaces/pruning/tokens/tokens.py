"""The tokens stage: transformers compute with fewer tokens, without a change of their weights."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from spaces.candidate import StageValue, Value
from spaces.errors import StageError
from spaces.knob_spec import KnobSpec
from spaces.pruning.tokens.token_knobs import DEFAULTS, KNOBS, NONE, PROPAGATE, TokenFacts, canonical
from spaces.stages.artifact import Artifact, Kind, Step
from spaces.stages.inputs import packed
from spaces.stages.stage import Stage, StageContext

if TYPE_CHECKING:
    from torch import nn

    from spaces.pruning.tokens.token_network import TokenNetwork

_REMEMBERED = 256  # networks


class TokenStage(Stage):
    """Drops tokens between or in the blocks of a network that names them: see `token_network.TokenNetwork`."""

    name: ClassVar[str] = "tokens"
    consumes: ClassVar[tuple[Kind, ...]] = ("torch",)
    produces: ClassVar[Kind] = "torch"
    knobs: tuple[KnobSpec, ...] = KNOBS

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the network with fewer tokens, its weights under their names; the network as it is if none goes.

        Raises:
            StageError: The network's tokens cannot be reduced, or not so.
        """
        from spaces.pruning.tokens.token_network import TokenNetwork
        from spaces.stages.torch_artifact import torch_artifact

        chosen: dict[str, Any] = self.canonical(artifact, values, context)
        provenance = (*artifact.provenance, Step.of(self.name, chosen))
        if chosen == DEFAULTS:
            return replace(artifact, provenance=provenance)
        module = deepcopy(_module(artifact))
        network, facts = TokenNetwork.of(module), self._facts(artifact)
        setattr(network.owner, network.name, _reduced(network, facts, chosen, context.seed))
        made = torch_artifact(module, artifact.input, provenance)
        notes = {"tokens_per_block": facts.tokens_per_block(chosen)}
        return replace(made, notes={**artifact.notes, self.name: notes})

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Returns the values, with the default for knobs that have no effect.

        Raises:
            StageError: A value is wrong, or the network's tokens cannot be reduced so.
        """
        return canonical(values, self._facts(artifact))

    def unsuited(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, dict[Value, str]]:
        """Returns the values that cannot be applied to the network, each with the reason.

        Raises:
            StageError: The network's tokens cannot be reduced.
        """
        facts = self._facts(artifact)
        found = {
            name: {value: why for value in domain if (why := facts.unsuited(name, value)) is not None}
            for name, domain in domains.items()
        }
        return {name: values for name, values in found.items() if values}

    def check(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> None:
        """Checks that the network has tokens, and that there is a suitable value of each knob.

        Raises:
            StageError: It has none, or there is none; the message says why.
        """
        if domains.get("method") == (NONE,):
            return
        for name, values in self.unsuited(artifact, domains, context).items():
            if len(values) == len(domains[name]):
                raise StageError(f"tokens: {next(iter(values.values()))}")

    def _facts(self, artifact: Artifact) -> TokenFacts:
        if artifact.digest not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[artifact.digest] = _facts(artifact)
        return self._known[artifact.digest]

    @cached_property
    def _known(self) -> dict[str, TokenFacts]:
        """Cache of `_facts`."""
        return {}


def _module(artifact: Artifact) -> "nn.Module":
    from torch import nn

    assert isinstance(artifact.model, nn.Module)
    return artifact.model


def _facts(artifact: Artifact) -> TokenFacts:
    """Runs the network on an example of zeros to see its tokens."""
    import torch

    from spaces.pruning.tokens.token_network import TokenNetwork

    module = _module(artifact)
    network = TokenNetwork.of(module)
    seen: list[int] = []
    hook = network.blocks.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    try:
        with torch.no_grad():
            module.eval()(torch.from_numpy(packed(artifact.input.zeros(1))))
    finally:
        hook.remove()
    if not seen:
        raise StageError(
            f"tokens: the network does not call {network.name!r}, which token_blocks names, as a whole"
        )
    n_tokens = seen[0] - network.n_class
    if network.grid is not None and network.grid[0] * network.grid[1] != n_tokens:
        raise StageError(
            f"tokens: token_grid={network.grid} has not as many patches as the network has tokens, {n_tokens}"
        )
    return TokenFacts(n_tokens, network.n_class, len(network.blocks), network.grid, network.shows_attention)


def _reduced(network: "TokenNetwork", facts: TokenFacts, values: Mapping[str, Any], seed: int) -> "nn.Module":
    from spaces.pruning.tokens.propagation import PropagatingBlocks, Propagation
    from spaces.pruning.tokens.pyramid import PyramidBlocks

    if values["method"] == PROPAGATE:
        assert facts.grid is not None
        names = ("drop", "selection", "graph", "neighbours", "alpha", "token_scale")
        settings = Propagation(**{name: values[name] for name in names})
        return PropagatingBlocks(network.blocks, settings, facts.grid, facts.n_class, seed)
    cuts = facts.cut_places(values)
    return PyramidBlocks(
        network.blocks, cuts, values["method"], values["neighbours"], values["recover"], facts.n_class
    )
