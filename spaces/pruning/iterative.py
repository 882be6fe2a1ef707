"""Iterative pruning: cut a little, recover, cut again, so that each cut is decided on a trained network."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from spaces.candidate import StageValue, Value
from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.knob_spec import KnobSpec, Technique
from spaces.pruning.cutting.prune_knobs import DEFAULTS
from spaces.pruning.prune import PruneStage, PruningStage
from spaces.recovery.recover import RecoverStage
from spaces.stages.artifact import Artifact, Step
from spaces.stages.stage import StageContext, Watch

if TYPE_CHECKING:
    import torch

_IN_ROUNDS = Technique(
    "pruning",
    ("data", "labels", "training"),
    "full",
    general=False,
    overrides=("+space.prune_recover.ratio=[0.25]", "+space.prune_recover.epochs=[1]"),
)
ROUNDS = KnobSpec(
    "rounds", 1, "how often the network is cut and recovered", low=1, high=100, techniques=((2, _IN_ROUNDS),)
)


class IterativePruneStage(PruningStage):
    """Rounds of pruning and recovery; what is left shrinks by the same factor in each, and the last one meets the budget.

    After round r of R, `keep ** (r / R)` is left of the dense network's cost, or `(1 - ratio) ** (r / R)` of a layer's channels, as near as
    rounding allows; of `drop_blocks`, as many have gone. `epochs` are those of each round. With one round it is `prune` and then
    `recover`.

    See `PruningStage` for its arguments; `threads` are those of both.
    """

    name = "prune_recover"
    knobs: tuple[KnobSpec, ...] = (*PruneStage.knobs, *RecoverStage.knobs, ROUNDS)

    @cached_property
    def _prune(self) -> PruneStage:
        settings = (self.device, self.min_channels, self.n_examples, self.block_measure, self.threads)
        return PruneStage(*settings, self.criteria.own)

    @cached_property
    def _recover(self) -> RecoverStage:
        return RecoverStage(self.threads)

    def techniques(self) -> Iterator[tuple[str, Value, str, Technique]]:
        """Yields the rounds alone: the others are those of `prune` and `recover`."""
        return (found for found in super().techniques() if found[0] == ROUNDS.name)

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the smaller, trained network; the network as it is if nothing is cut and nothing trained.

        Raises:
            StageError: The values cannot be applied to the network, or a training diverges.
            StopTrialError: The watch ends the trial.
        """
        from spaces.pruning.cutting.selection import Aim
        from spaces.stages.torch_artifact import torch_artifact

        chosen = self.canonical(artifact, values, context)
        prune, recover = self._split(chosen)
        n_rounds, n_blocks = cast(int, chosen["rounds"]), cast(int, chosen["drop_blocks"])
        made, rounds = replace(artifact, notes={}), list[dict[str, Any]]()
        for at in range(1, n_rounds + 1):
            inner, cut_notes = _context_of(context, self.name, at, n_rounds), dict[str, Any]()
            if prune != DEFAULTS:
                now = round(n_blocks * at / n_rounds) - sum(len(r["blocks"]) for r in rounds)
                aim = Aim(prune, artifact, at / n_rounds)
                module, cut_notes = self._prune.pruning(made, aim, inner, now)
                made = torch_artifact(module, artifact.input)
            made = self._recover.apply(made, recover, inner)
            rounds.append({**cut_notes, **made.notes.get(RecoverStage.name, {})})
        step = Step.of(self.name, chosen)
        own = {self.name: _summary(rounds)} if any(rounds) else {}
        return replace(made, provenance=(*artifact.provenance, step), notes={**artifact.notes, **own})

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Maps knobs that have no effect beside the others to their defaults; one round is enough if nothing is cut.

        Raises:
            StageError: A value is wrong, or the combination cannot be built.
        """
        rounds = values.get("rounds", ROUNDS.default)
        if problem := ROUNDS.problem(cast(Value, rounds)):
            raise StageError(f"{self.name}.rounds {problem}")
        prune, recover = self._split(self.defaults() | dict(values))
        prune = self._prune.canonical(artifact, prune, context)
        recover = self._recover.canonical(artifact, recover, context)
        return {**prune, **recover, "rounds": ROUNDS.default if prune == DEFAULTS else rounds}

    def structure(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> Mapping[str, StageValue]:
        """Returns how many channels each group keeps, if ratios alone decide it; else all values."""
        prune, _ = self._split(values)
        found = self._prune.structure(artifact, prune, context)
        return found if "n_kept" in found or values["rounds"] == 1 else dict(values)

    def empty_knobs(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, str]:
        """Returns the knobs that cannot change the network, each with the reason."""
        prune, recover = self._split(domains)
        found = self._prune.empty_knobs(artifact, prune, context)
        found |= self._recover.empty_knobs(artifact, recover, context)
        if "criterion" in found and "protect" in found and len(domains.get("rounds", ("",))) != 1:
            found["rounds"] = "nothing is cut"
        return found

    def unsuited(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, dict[Value, str]]:
        """Returns what `prune` and `recover` return."""
        prune, recover = self._split(domains)
        found = self._prune.unsuited(artifact, prune, context)
        return found | self._recover.unsuited(artifact, recover, context)

    def check(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> None:
        """Checks what `prune` and `recover` check.

        Raises:
            StageError: A value cannot work; the message names the knob or the layer.
        """
        prune, recover = self._split(domains)
        self._prune.check(artifact, prune, context)
        self._recover.check(artifact, recover, context)

    def _split(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the values of the knobs of `prune`, and those of `recover`."""
        own = {knob.name for knob in self._recover.knobs}
        prune = {k: v for k, v in values.items() if k not in own and k != ROUNDS.name}
        return prune, {k: v for k, v in values.items() if k in own}


@dataclass(frozen=True)
class _RoundWatch:
    """Reports the epochs of all rounds as those of one training."""

    watch: Watch
    stage: str
    at: int
    n_rounds: int

    def epoch(self, stage: str, epoch: int, n_epochs: int, module: "torch.nn.Module") -> None:
        del stage
        done = (self.at - 1) * n_epochs + epoch
        self.watch.epoch(self.stage, done, self.n_rounds * n_epochs, module)


def _context_of(context: StageContext, stage: str, at: int, n_rounds: int) -> StageContext:
    """Returns the context of a round; rounds after the first have seeds of their own."""
    seed = context.seed if at == 1 else int(digest_of(context.seed, at), 16) >> 1
    watch = None if context.watch is None else _RoundWatch(context.watch, stage, at, n_rounds)
    return replace(context, seed=seed, watch=watch)


def _summary(notes: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the last round's notes, and those of all rounds in short."""
    short = ("macs_after", "parameters_after", "weight_bytes_after", "blocks", "curve")
    blocks = [block for each in notes for block in each.get("blocks", ())]
    rounds = [{key: each[key] for key in short if key in each} for each in notes]
    found = {key: value for key, value in notes[-1].items() if key not in ("curve", "epochs")}
    epochs = sum(each.get("epochs", 0) for each in notes)
    return {**found, "blocks": blocks, "epochs": epochs, "rounds": rounds}
