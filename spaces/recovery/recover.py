"""The recover stage: trains a cut network on labels, by distillation from the uncompressed one, or both."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from spaces.candidate import StageValue, Value
from spaces.knob_spec import KnobSpec
from spaces.recovery.knobs import KNOBS, Parts, canonical, check_weights, empty_knobs, possible
from spaces.recovery.training_stage import TrainingStage
from spaces.stages.artifact import Artifact, Step
from spaces.stages.pipeline import stage_key
from spaces.stages.stage import StageContext


class RecoverStage(TrainingStage):
    """Fine-tunes a torch network on the train split, with the uncompressed network as teacher.

    See `TrainingStage` for its argument.
    """

    name = "recover"
    knobs: tuple[KnobSpec, ...] = KNOBS

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the trained network, of the same structure; the network as it is if `epochs` is 0.

        Raises:
            StageError: Examples, labels, a teacher or a suitable layer are missing, or the training diverges.
            StopTrialError: The watch ends the trial.
        """
        from spaces.recovery.session import recover
        from spaces.stages.torch_artifact import torch_artifact

        chosen = self.canonical(artifact, values, context)
        step = Step.of(self.name, chosen)
        provenance = (*artifact.provenance, step)
        if chosen["epochs"] == 0:
            return replace(artifact, provenance=provenance)
        # An adapter does not depend on the weights that it is merged with.
        trained_with: dict[str, StageValue] = {**chosen, "merge_weights": ()}
        key = f"{self.name}-{stage_key(self, artifact, trained_with, context)}-{context.seed}"
        module, notes = recover(artifact, self.recipe(chosen), context, self.threads, key, self.name)
        trained = torch_artifact(module, artifact.input, provenance)
        return replace(trained, notes={**artifact.notes, self.name: notes})

    def recipe(self, values: Mapping[str, StageValue]) -> dict[str, StageValue]:
        """Returns a value for every knob of recovery, from those of the stage."""
        return dict(values)

    def sources(self, values: Mapping[str, StageValue]) -> frozenset[str]:
        """Returns the examples and the uncompressed network: another device or other calibration examples change no training."""
        del values
        return frozenset({"train", "teacher"})

    def depends_on_network(self, values: Mapping[str, StageValue]) -> bool:
        """Returns whether some knobs are about parts that the network may not have."""
        return values.get("epochs") != 0

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Returns the values, with the default for knobs that have no effect at these values.

        Raises:
            StageError: Batches of one example are asked for, but the network has BatchNorm, or there is not a merge weight for
                each adapter.
        """
        from spaces.recovery.requirements import check_batch_norm

        whole = self.defaults() | dict(values)
        if whole["epochs"] != 0 and whole["batch_size"] == 1:
            check_batch_norm(artifact, self.name)
        parts = self._parts(artifact) if self.depends_on_network(whole) else Parts()
        return canonical(whole, parts, self.knobs)

    def empty_knobs(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, str]:
        """Returns the knobs that have no effect at any values of the others, each with the reason."""
        return empty_knobs(domains, self._parts(artifact), self.knobs)

    def unsuited(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, dict[Value, str]]:
        """Returns the values that no training of this network is possible with, each with the reason.

        Raises:
            StageError: There is no train split to learn from, or the artifact is not a torch network.
        """
        from spaces.recovery.requirements import unsuited

        return {} if possible(domains, "epochs", self.knobs) == (0,) else unsuited(artifact, domains, context)

    def check(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> None:
        """Checks that recovery is possible with any values of the space.

        Raises:
            StageError: Examples, labels, a teacher or a suitable layer are missing; the message names the
                knob.
            ConfigError: The accelerator is not available.
        """
        from spaces.recovery.requirements import check_needs

        values = {knob.name: possible(domains, knob.name, self.knobs) for knob in self.knobs}
        if values["epochs"] != (0,):
            if "adapters" in values:
                check_weights(values["adapters"], values["merge_weights"])
            check_needs(artifact, values, context)

    @cached_property
    def _known_parts(self) -> dict[str, Parts]:
        """Cache of `_parts` by digest of the artifact."""
        return {}

    def _parts(self, artifact: Artifact) -> Parts:
        from spaces.recovery.requirements import parts_of

        if artifact.digest not in self._known_parts:
            self._known_parts[artifact.digest] = parts_of(artifact)
        return self._known_parts[artifact.digest]
