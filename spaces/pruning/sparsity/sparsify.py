"""The sparsify stage: trains a network so that channels fade which the cut then takes."""

from collections.abc import Mapping
from dataclasses import replace

from spaces.candidate import StageValue, Value
from spaces.knob_spec import KnobSpec
from spaces.pruning.sparsity.sparsify_knobs import KNOBS, canonical, empty_knobs, is_off, possible
from spaces.recovery.training_stage import TrainingStage
from spaces.stages.artifact import Artifact, Step
from spaces.stages.pipeline import stage_key
from spaces.stages.stage import StageContext


class SparsifyStage(TrainingStage):
    """Trains a torch network on labels while channels are pressed towards zero. Shapes stay as they are.

    See `TrainingStage` for its argument.
    """

    name = "sparsify"
    knobs: tuple[KnobSpec, ...] = KNOBS

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

    def expensive(self, values: Mapping[str, StageValue]) -> bool:
        """Returns whether anything is trained."""
        return not is_off(values)

    def quickest(self, values: Mapping[str, StageValue]) -> dict[str, StageValue]:
        """Returns values that train nothing."""
        del values
        return self.defaults()

    def empty_knobs(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, str]:
        """Returns the knobs that have no effect beside any value of the others, each with the reason."""
        return empty_knobs(domains)

    def unsuited(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, dict[Value, str]]:
        """Returns the methods and augmentations that do not suit the network, each with the reason."""
        if possible(domains, "epochs") == (0,) or possible(domains, "method") == ("none",):
            return {}
        from spaces.pruning.sparsity.sparsifying import unsuited

        return unsuited(artifact, domains, context)

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
