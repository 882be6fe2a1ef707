"""The sparsify stage: trains a network so that channels fade which the cut then takes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from spaces.candidate import StageValue, Value
from spaces.errors import ConfigError
from spaces.knob_spec import KnobSpec
from spaces.pruning.sparsity.sparsify_knobs import KNOBS, canonical, empty_knobs, is_off, possible
from spaces.stages.artifact import Artifact, Step
from spaces.stages.pipeline import stage_key
from spaces.stages.stage import Stage, StageContext


class SparsifyStage(Stage):
    """Trains a torch network on labels while channels are pressed towards zero. Shapes stay as they are.

    Interrupted, it goes on at its last full epoch. On the CPU, results are the same to the bit; on an accelerator they are
    not promised to be.

    Args:
        threads: Threads that torch trains with. Part of what decides the result: another number adds up sums in
            another order.

    Raises:
        ConfigError: `threads` is no positive whole number.
    """

    name = "sparsify"
    consumes = ("torch",)
    produces = "torch"
    knobs: ClassVar[tuple[KnobSpec, ...]] = KNOBS

    def __init__(self, threads: int = 2) -> None:
        if type(threads) is not int or threads < 1:
            raise ConfigError(f"stage.sparsify.threads must be a positive whole number, not {threads!r}")
        self.threads = threads

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the trained network, of the same structure; the network as it is if nothing is to be trained.

        Raises:
            StageError: Something that the values need is missing, the method does not suit the network, the level cannot be
                met, or the training diverges.
            StopTrialError: The watch ends the trial.
        """
        chosen = self.canonical(artifact, values, context)
        step = Step.of(self.name, chosen)
        provenance = (*artifact.provenance, step)
        if is_off(chosen):
            return replace(artifact, provenance=provenance)
        from spaces.pruning.sparsity.sparsifying import sparsified
        from spaces.stages.torch_artifact import torch_artifact

        key = f"{self.name}-{stage_key(self, artifact, chosen, context)}-{context.seed}"
        found = sparsified(artifact, chosen, context, self.threads, key)
        trained = torch_artifact(found.module, artifact.input, provenance)
        return replace(trained, notes={**artifact.notes, self.name: found.notes()})

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Maps knobs that have no effect beside the others to their defaults."""
        return canonical(self.defaults() | dict(values))

    def structure(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Returns nothing: training changes numbers only."""
        return {}

    def empty_knobs(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, str]:
        """Returns the knobs that have no effect beside any value of the others, each with the reason."""
        return empty_knobs(domains)

    def check(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> None:
        """Checks that every method of the space suits the network, and that all is there to train it.

        Raises:
            StageError: It does not, or a level cannot be met, or examples or labels are missing; the message names the knob
                or the layer.
            ConfigError: The accelerator is not there.
        """
        values = {knob.name: possible(domains, knob.name) for knob in KNOBS}
        if values["epochs"] == (0,) or values["method"] == ("none",):
            return
        from spaces.pruning.sparsity.sparsifying import check_needs

        check_needs(artifact, values, context)

    def config(self) -> dict[str, Any]:
        """Returns the number of threads, which the result depends on."""
        return {"threads": self.threads}
