"""What a stage is: one step that applies knobs to an artifact."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from spaces.candidate import StageValue, Value
from spaces.knob_spec import KnobSpec
from spaces.stages.artifact import Artifact, Kind, Split
from spaces.stages.cache import Cache

if TYPE_CHECKING:
    import torch


class Watch(Protocol):
    """Is told how a training goes, and may end it. Never changes what a training that it lets go on yields."""

    def epoch(self, stage: str, epoch: int, n_epochs: int, module: "torch.nn.Module") -> None:
        """Is called after every epoch.

        Args:
            stage: Name of the stage that trains.
            epoch: Epochs that are done, from 1 on.
            n_epochs: Epochs in all.
            module: The network as it is now, in eval mode, on the CPU; not to be changed.

        Raises:
            StopTrialError: The trial is not worth going on.
        """


class LatencyModel(Protocol):
    """Returns the modelled latency, in milliseconds, of an ONNX artifact on one of the study's devices.

    Attributes:
        digest: Of what decides the latencies: the devices' profiles.
    """

    digest: str

    def __call__(self, artifact: Artifact, device: str) -> float:
        """Raises StageError if there is no such device in the study, or its profile lacks what the artifact needs."""


@dataclass(frozen=True)
class StageContext:
    """What a stage may use besides the artifact and its values.

    Attributes:
        calibration: The calibration split; None for a stage that is run without data.
        cache: Where expensive intermediate results are kept, under digests.
        seed: Seed of everything random in the stage.
        calibration_sizes: Numbers of calibration examples that other candidates will ask for, so that one pass over the
            examples can serve them all. Never changes what a stage yields.
        train: The split to learn from; None for a stage that is run without. Labels below 0 say that there are none.
        teacher: The uncompressed network, to distil from; None if there is none in torch.
        accelerator: What torch computes on in stages that train: `auto`, `cpu` or `cuda`.
        latency_ms: What an ONNX artifact takes on a device, by its name; None where nothing is modelled.
        watch: Is told of every epoch; None where nobody listens.
    """

    calibration: Split | None
    cache: Cache
    seed: int = 0
    calibration_sizes: tuple[int, ...] = ()
    train: Split | None = None
    teacher: Artifact | None = None
    accelerator: str = "auto"
    latency_ms: LatencyModel | None = None
    watch: Watch | None = None


class Stage(ABC):
    """One step of a pipeline. `apply` is a pure function of its arguments.

    A subclass sets the class attributes and implements `apply`; `tests` inherit `StageConformance`.
    """

    name: ClassVar[str]
    consumes: ClassVar[tuple[Kind, ...]]
    produces: ClassVar[Kind]
    knobs: tuple[KnobSpec, ...] = ()

    @abstractmethod
    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the new artifact.

        Args:
            artifact: What the stage before yielded.
            values: Canonical values of this stage's knobs (every knob of `knobs` is there).
            context: Calibration data, cache and seed.

        Raises:
            StageError: The values cannot be applied to this artifact.
        """

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Maps settings that come to the same file onto one of them (e.g. a knob that has no effect to its default).

        Must be cheap: it is called for every proposal, before the candidate costs a trial.

        Raises:
            StageError: The combination cannot be built; the message says which knobs clash.
        """
        return dict(values)

    def structure(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> Mapping[str, StageValue]:
        """Returns the part of canonical values that decides the file's structure: nodes, shapes, types, sizes.

        Candidates with equal structures come to files that differ in numbers only, so that whatever depends on the
        structure alone (modelled costs, bytes) is found once for all of them. All values, unless a stage knows better.

        Args:
            artifact: What the stage will get.
            values: Canonical values.
            context: Calibration data, cache and seed.
        """
        del artifact, context
        return dict(values)

    def estimates(
        self, artifact: Artifact, candidates: Sequence[Mapping[str, StageValue]], context: StageContext
    ) -> Mapping[str, NDArray[np.float64]]:
        """Returns figures that say how good candidates are, reckoned without building any.

        Args:
            artifact: What the stage will get.
            candidates: Canonical values of each, at least one.
            context: Calibration data, cache and seed.

        Returns:
            By name `(n,)`, higher is better; nothing, unless a stage knows better.

        Raises:
            StageError: They cannot be reckoned.
        """
        del artifact, candidates, context
        return {}

    def empty_knobs(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, str]:
        """Returns the knobs that cannot change this artifact's file, each with the reason.

        Args:
            artifact: What the stage will get.
            domains: For each knob of the space, the values that it can take (empty if not finite).
            context: Calibration data, cache and seed.
        """
        return {}

    def check(  # noqa: B027 (most stages have nothing to check)
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> None:
        """Checks, before the search, that every value of the space makes sense for this artifact.

        Raises:
            StageError: One does not, e.g. a layer pattern that matches no layer.
        """

    def defaults(self) -> dict[str, StageValue]:
        """Returns the default of every knob."""
        return {knob.name: knob.default for knob in self.knobs}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves cached properties behind: what is known of networks is found again where the stage arrives."""
        own = vars(self).items()
        return {
            name: v for name, v in own if not isinstance(getattr(type(self), name, None), cached_property)
        }

    def config(self) -> dict[str, Any]:
        """Returns whatever else decides what `apply` does; it becomes part of cache keys.

        By default the constructors' arguments that are plain values, base classes' included, as far as attributes of the
        same names keep them.
        """
        plain = (bool, int, float, str, tuple, type(None))
        made_by = [vars(kind)["__init__"] for kind in type(self).__mro__ if "__init__" in vars(kind)]
        arguments = {name for function in made_by for name in signature(function).parameters}
        own = sorted(vars(self).items())
        return {name: value for name, value in own if name in arguments and isinstance(value, plain)}
