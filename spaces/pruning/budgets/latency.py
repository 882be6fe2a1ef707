"""Modelled latency of cut networks on the stage's device."""

from torch import nn

from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact


class Latency:
    """Exports networks and asks the study's latency model; networks of equal content are asked for once.

    Args:
        device: Name of the device; None if there is none.
    """

    def __init__(self, device: str | None) -> None:
        self.device = device
        self._known: dict[tuple[str, str], float] = {}

    def check(self, artifact: Artifact, context: StageContext) -> None:
        """Raises StageError if there is no such device, or nothing is modelled on it."""
        assert isinstance(artifact.model, nn.Module)
        self(artifact.model, artifact.input, context)

    def __call__(self, module: nn.Module, spec: InputSpec, context: StageContext) -> float:
        """Returns what a network takes, in milliseconds, once it is exported.

        Raises:
            StageError: There is no device or no such device, the model cannot judge the network, or torch cannot export it.
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
