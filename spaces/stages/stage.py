"""The base class of stages: a stage is one step of a pipeline that applies knob values to an artifact."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from spaces.candidate import StageValue, Value
from spaces.knob_spec import KnobSpec, Technique
from spaces.stages.artifact import Artifact, Kind, Split
from spaces.stages.cache import Cache

if TYPE_CHECKING:
    import torch


SOURCES = ("calibration", "train", "teacher", "latency_ms")
"""What a stage may read of the context, besides artifact and values."""


class Watch(Protocol):
    """Callback of a training, which may stop it early; it never changes the result of a full training."""

    def epoch(self, stage: str, epoch: int, n_epochs: int, module: "torch.nn.Module") -> None:
        """Called after every epoch.

        Args:
            stage: Name of the stage that trains.
            epoch: Number of finished epochs, from 1 on.
            n_epochs: Total number of epochs.
            module: The current network, in eval mode, on the CPU; must not be changed.

        Raises:
            StopTrialError: The trial is to be stopped early.
        """


class LatencyModel(Protocol):
    """Returns the modelled latency, in milliseconds, of an ONNX artifact on one of the study's devices.

    Attributes:
        digest: Digest of the devices' profiles, which decide the latencies.
    """

    digest: str

    def __call__(self, artifact: Artifact, device: str) -> float:
        """Raises StageError if there is no such device in the study, or its profile lacks what the artifact needs."""


@dataclass(frozen=True)
class StageContext:
    """Inputs of a stage besides the artifact and the knob values.

    Attributes:
        calibration: The calibration split; None if the stage runs without data.
        cache: Cache of expensive intermediate results, under digests.
        seed: Seed of all random numbers in the stage.
        calibration_sizes: Numbers of calibration examples that other candidates will need, so that one pass
            over the examples can serve them all. Never changes a stage's output.
        train: The train split; None if the stage runs without one. Classes below 0 mean that there are no
            labels.
        loss: Name of the training loss that suits the labels (`spaces.task_losses`); None if no training can use them.
        teacher: The uncompressed torch network, for distillation; None if there is none.
        accelerator: Torch device of stages that train: `auto`, `cpu` or `cuda`.
        latency_ms: Modelled latency, in milliseconds, of an ONNX artifact on a named device; None without a
            model.
        watch: Callback that is called after every epoch; None for no callback.
        draft: Whether an ONNX file with the layers, the outputs and about the costs of the network is enough, because nothing
            is built from it.
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
    draft: bool = False
    loss: str | None = "cross_entropy"


class Stage(ABC):
    """One step of a pipeline. `apply` is a pure function of its arguments.

    A subclass sets the class attributes and implements `apply`; `tests` inherit `StageConformance`.

    Attributes:
        name: First part of the knobs' paths.
        consumes: Kinds of models that it takes.
        produces: Kind of model that it returns.
        knobs: The declared knobs.
        rebuilds: Whether it replaces the network by one with other modules. Its output may be built for every proposal, since
            later stages' canonical values may refer to it: `apply` must be cheap, and is not cached.
    """

    name: ClassVar[str]
    consumes: ClassVar[tuple[Kind, ...]]
    produces: ClassVar[Kind]
    rebuilds: ClassVar[bool] = False
    knobs: tuple[KnobSpec, ...] = ()

    def techniques(self) -> Iterator[tuple[str, Value, str, Technique]]:
        """Yields the methods among the values of its knobs: knob, value, description, and what people choose the method by.

        A stage whose knob names classes, e.g. methods of rounding, yields these as well, so that a user's own are among them.
        """
        for knob in self.knobs:
            for value, technique in knob.techniques:
                yield knob.name, value, knob.description, technique

    @abstractmethod
    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the new artifact.

        Args:
            artifact: Output of the previous stage.
            values: Canonical values of this stage's knobs, one for every knob in `knobs`.
            context: Calibration data, cache and seed.

        Raises:
            StageError: The values cannot be applied to this artifact.
        """

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Maps settings that give the same file to one of them, e.g. sets an inactive knob to its default.

        Must be cheap: it is called for every proposal, before the candidate costs a trial.

        Raises:
            StageError: The combination cannot be built; the message says which knobs clash.
        """
        return dict(values)

    def depends_on_network(self, values: Mapping[str, StageValue]) -> bool:
        """Returns whether `canonical` and `structure` depend on the network that the stage gets; True if it has knobs.

        Where they do not, a network that an earlier stage makes anew need not be built for every proposal.

        Args:
            values: Values of the stage's knobs.
        """
        del values
        return bool(self.knobs)

    def structure(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> Mapping[str, StageValue]:
        """Returns the part of canonical values that decides the file's structure: nodes, shapes, types, sizes.

        Candidates of equal structure give files that differ only in numbers, so that whatever depends on the
        structure alone (modelled costs, bytes) is computed once for all of them. By default all values.

        Args:
            artifact: Input of the stage.
            values: Canonical values.
            context: Calibration data, cache and seed.
        """
        del artifact, context
        return dict(values)

    def quickest(self, values: Mapping[str, StageValue]) -> Mapping[str, StageValue]:
        """Returns values that give a file of the same structure and are the fastest to build; by default the given ones.

        Args:
            values: Canonical values.
        """
        return values

    def expensive(self, values: Mapping[str, StageValue]) -> bool:
        """Returns whether applying these values takes so long that costs are checked before: e.g. a training; False by default.

        Args:
            values: Canonical values.
        """
        del values
        return False

    def sources(self, values: Mapping[str, StageValue]) -> frozenset[str]:
        """Returns the names of the `StageContext`'s fields of `SOURCES` that the output depends on; all of them by default.

        A stage that names fewer finds in the cache what a study with other calibration examples or devices has built.

        Args:
            values: Canonical values.
        """
        del values
        return frozenset(SOURCES)

    def estimates(
        self, artifact: Artifact, candidates: Sequence[Mapping[str, StageValue]], context: StageContext
    ) -> Mapping[str, NDArray[np.float64]]:
        """Returns proxy scores of candidates, computed without building any.

        Args:
            artifact: Input of the stage.
            candidates: Canonical values of each, at least one.
            context: Calibration data, cache and seed.

        Returns:
            By name, `(n,)`, higher is better; empty by default.

        Raises:
            StageError: The scores cannot be computed.
        """
        del artifact, candidates, context
        return {}

    def empty_knobs(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, str]:
        """Returns the knobs that cannot change this artifact's file, each with the reason.

        Args:
            artifact: Input of the stage.
            domains: For each knob of the space, the values that it can take (empty if not finite).
            context: Calibration data, cache and seed.
        """
        return {}

    def unsuited(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, dict[Value, str]]:
        """Returns, by knob, the values that cannot be applied to this artifact, each with the reason.

        The study leaves them out, as long as another value of the knob is left; what is alone is refused by `check`.

        Args:
            artifact: Input of the stage.
            domains: For each knob of the space, the values that it can take (empty if not finite).
            context: Calibration data, cache and seed.

        Raises:
            StageError: The stage cannot be applied to the artifact at all.
        """
        return {}

    def remarks(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> tuple[str, ...]:
        """Returns what people should know about how the stage treats this artifact: a sentence each.

        Args:
            artifact: Input of the stage.
            domains: For each knob of the space, the values that it can take (empty if not finite).
            context: Calibration data, cache and seed.
        """
        del artifact, domains, context
        return ()

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
        """Leaves out cached properties: the receiving process computes them again."""
        own = vars(self).items()
        return {
            name: v for name, v in own if not isinstance(getattr(type(self), name, None), cached_property)
        }

    def config(self) -> dict[str, Any]:
        """Returns the stage's own settings that `apply` depends on; they become part of cache keys.

        By default these are the arguments of its constructors, base classes' included, that are plain values
        and stored as attributes of the same names.
        """
        plain = (bool, int, float, str, tuple, type(None))
        made_by = [vars(kind)["__init__"] for kind in type(self).__mro__ if "__init__" in vars(kind)]
        arguments = {name for function in made_by for name in signature(function).parameters}
        own = sorted(vars(self).items())
        return {name: value for name, value in own if name in arguments and isinstance(value, plain)}
