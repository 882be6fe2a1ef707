"""The prune stage: whole blocks and single channels go, and the network gets smaller for real."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from spaces.candidate import StageValue, Value
from spaces.errors import ConfigError, unknown_name
from spaces.knob_spec import KnobSpec, Technique
from spaces.pruning.criteria.criterion import Criterion
from spaces.pruning.criteria.registry import Criteria
from spaces.pruning.cutting.prune_knobs import DEFAULTS, KNOBS, cuts_channels, knobs_with
from spaces.stages.artifact import Artifact, Kind, Step
from spaces.stages.stage import Stage, StageContext

if TYPE_CHECKING:
    from spaces.pruning.budgets.latency import Latency
    from spaces.pruning.cutting.network_facts import FactsOf
    from spaces.pruning.cutting.pruning import Pruning

BLOCK_MEASURES = ("output_change", "cosine")


class PruningStage(Stage):
    """Base of the stages that cut a torch network: their settings.

    Args:
        device: The device whose modelled latency `budget_of=latency_ms` is about; one of the study's devices.
        min_channels: A layer keeps at least so many output channels.
        n_examples: Number of examples for criteria, block measures, mask tuning and BatchNorm re-estimation.
        block_measure: Importance of a block: `output_change`, or `cosine` of its input and output (one run for all).
        threads: Threads that torch computes with. Part of what decides the result: another number adds up sums in
            another order.
        criteria: Criteria besides the built-in ones, by the name that the knob `criterion` calls them.

    Raises:
        ConfigError: A value is out of range, or a criterion has a built-in one's name.
    """

    consumes: ClassVar[tuple[Kind, ...]] = ("torch",)
    produces: ClassVar[Kind] = "torch"

    def __init__(
        self,
        device: str | None = None,
        min_channels: int = 4,
        n_examples: int = 256,
        block_measure: str = "output_change",
        threads: int = 2,
        criteria: Mapping[str, Criterion] | None = None,
    ) -> None:
        for name, value in {
            "min_channels": min_channels,
            "n_examples": n_examples,
            "threads": threads,
        }.items():
            if type(value) is not int or value < 1:
                raise ConfigError(f"stage.{self.name}.{name} must be a positive whole number, not {value!r}")
        if block_measure not in BLOCK_MEASURES:
            raise ConfigError(
                unknown_name("measure", block_measure, BLOCK_MEASURES, f"stage.{self.name}.block_measure")
            )
        self.device, self.min_channels, self.n_examples = device, min_channels, n_examples
        self.block_measure, self.threads = block_measure, threads
        self.criteria = Criteria(criteria or {})
        self.knobs = knobs_with(self.criteria, self.knobs)

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, and digests of the criteria among them."""
        digests = self.criteria.own_digests()
        return {**super().config(), **({"criteria": digests} if digests else {})}

    def techniques(self) -> Iterator[tuple[str, Value, str, Technique]]:
        """Yields the criteria, a user's own among them, besides what the knobs name."""
        for name, criterion in self.criteria.items():
            yield "criterion", name, str(type(criterion).__doc__).split("\n", 1)[0], criterion.technique
        yield from super().techniques()


class PruneStage(PruningStage):
    """Cuts channels by ratios of their own, or least important ones first until a budget is met.

    See `PruningStage` for its arguments.
    """

    name = "prune"
    knobs: tuple[KnobSpec, ...] = KNOBS

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the smaller network; the network as it is if nothing is cut.

        Raises:
            StageError: The values cannot be applied to the network.
        """
        from spaces.pruning.cutting.selection import Aim
        from spaces.stages.torch_artifact import torch_artifact

        chosen = self.canonical(artifact, values, context)
        step = Step.of(self.name, chosen)
        provenance = (*artifact.provenance, step)
        if chosen == DEFAULTS:
            return replace(artifact, provenance=provenance)
        n_blocks = cast(int, chosen["drop_blocks"])
        module, notes = self.pruning(artifact, Aim(chosen, artifact), context, n_blocks)
        made = torch_artifact(module, artifact.input, provenance)
        return replace(made, notes={**artifact.notes, self.name: notes})

    def depends_on_network(self, values: Mapping[str, StageValue]) -> bool:
        """Returns whether anything is cut."""
        whole = self.defaults() | dict(values)
        return bool(whole["drop_blocks"]) or cuts_channels(whole)

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Maps settings that yield the same network onto one of them, as far as that is known without scoring channels.

        Raises:
            StageError: A value is wrong, or the combination cannot be built.
        """
        from spaces.pruning.cutting.prune_canonical import canonical

        return canonical(
            self.facts_of(artifact), self.defaults() | dict(values), context, self.min_channels, self.criteria
        )

    def structure(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> Mapping[str, StageValue]:
        """Returns how many channels each group keeps, if ratios alone decide it; else the values that can change shapes."""
        from spaces.pruning.cutting.prune_canonical import n_kept_by_ratio

        left = {k: v for k, v in values.items() if k not in ("mask_tuning", "reestimate_batch_norm")}
        if values["drop_blocks"] or values["keep"] != 1.0 or not cuts_channels(values):
            return left
        facts = self.facts_of(artifact)
        n_kept = n_kept_by_ratio(facts, values, self.min_channels).tolist()
        return {"n_kept": {group.name: n for group, n in zip(facts.groups, n_kept, strict=True)}}

    def empty_knobs(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, str]:
        """Returns the knobs that cannot change the network beside any value of the others, each with the reason."""
        from spaces.pruning.cutting.prune_canonical import empty_knobs

        return empty_knobs(self.facts_of(artifact), domains)

    def unsuited(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, dict[Value, str]]:
        """Returns the criteria, budgets and numbers of blocks that do not suit the network, each with the reason.

        Raises:
            StageError: No channels of the network can be cut, or it does not run on an example.
        """
        from spaces.pruning.cutting.prune_unsuited import unsuited

        return unsuited(self.facts_of(artifact), artifact, domains, context, self.min_channels, self.criteria)

    def check(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> None:
        """Checks that the network can be cut, and that every value of the space is valid for it.

        Raises:
            StageError: A value empties a layer or cannot be met, a pattern matches no layer, data or a device is missing, or
                it does not run on an example; the message names the knob or the layer.
        """
        from spaces.pruning.cutting.prune_check import check

        facts = self.facts_of(artifact)
        check(facts, artifact, domains, context, self.min_channels, self.latency, self.criteria)

    @cached_property
    def facts_of(self) -> "FactsOf":
        """Returns the structural properties of a network; kept for networks that were asked for before."""
        from spaces.pruning.cutting.network_facts import FactsOf

        return FactsOf()

    @cached_property
    def latency(self) -> "Latency":
        """The latency model of the stage's device."""
        from spaces.pruning.budgets.latency import Latency

        return Latency(self.device)

    @cached_property
    def pruning(self) -> "Pruning":
        """The function that cuts a network according to canonical values."""
        from spaces.pruning.cutting.pruning import Pruning
        from spaces.pruning.cutting.selection import Settings

        settings = Settings(
            self.min_channels, self.n_examples, self.block_measure, self.threads, self.criteria
        )
        return Pruning(settings, self.facts_of, self.latency)
