"""The modelled latency of a network on the study's devices, for stages that prune to a latency budget."""

from collections.abc import Mapping

from evaluators.column import Column
from evaluators.cost.cost import DeviceCosts, Graphs
from evaluators.devices.device import Device
from spaces.digest import digest_of
from spaces.errors import StageError, unknown_name
from spaces.stages.artifact import Artifact


class ModelledLatency:
    """Implements `spaces.stages.stage.LatencyModel` with the cost models of `evaluators.cost`.

    Args:
        devices: The study's devices, by name.

    Attributes:
        digest: Digest of the devices' profiles.
    """

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self._devices = dict(devices)
        self.digest = digest_of(sorted(self._devices.items()))

    def __call__(self, artifact: Artifact, device: str) -> float:
        """Returns the latency in milliseconds.

        Raises:
            StageError: The study has no such device, or the latency there is timed or cannot be modelled.
        """
        if device not in self._devices:
            raise StageError(unknown_name("device", device, self._devices, "the study's devices"))
        profile = self._devices[device]
        if profile.measured:
            modelled = [d.name for d in self._devices.values() if not d.measured]
            raise StageError(
                f"latency on {device} is timed, not modelled; modelled in this study: {', '.join(modelled) or 'none'}"
            )
        costs = DeviceCosts(Graphs(artifact).on(profile), profile)
        if costs.latency_ms is None:
            reason = costs.because()[str(Column.of("latency_ms", device))]
            raise StageError(f"the latency of the float network on {device} cannot be modelled: {reason}")
        return costs.latency_ms
