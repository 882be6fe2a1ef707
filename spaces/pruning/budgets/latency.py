"""Modelled latency of cut networks on the stage's device."""

from torch import nn

from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact


class Latency:
    """Exports networks and predicts their latency with the study's latency model; caches results by content.

    Args:
        device: Name of the device; None if the stage has none.
    """

    def __init__(self, device: str | None) -> None:
        self.device = device
        self._known: dict[tuple[str, str], float] = {}

    def check(self, artifact: Artifact, context: StageContext) -> None:
        """Raises StageError if there is no such device, or its latency model does not cover the network."""
        assert isinstance(artifact.model, nn.Module)
        self(artifact.model, artifact.input, context)

    def __call__(self, module: nn.Module, spec: InputSpec, context: StageContext) -> float:
        """Returns the modelled latency of the exported network, in milliseconds.

        Raises:
            StageError: No device is set, the device is unknown, its latency model does not cover the network,
                or torch cannot export it.
        """
        if self.device is None:
            raise StageError(
                "prune.budget_of=latency_ms needs a device: set stage.prune.device to one of the study's devices"
            )
        if context.latency_ms is None:
            raise StageError(
                f"prune.budget_of=latency_ms: nothing models the latency on {self.device}: the study has no devices"
            )
        artifact = torch_artifact(module, spec)
        key = (artifact.digest, context.latency_ms.digest)
        if key not in self._known:
            exported = ExportStage().apply(artifact, {}, context)
            self._known[key] = context.latency_ms(exported, self.device)
        return self._known[key]
