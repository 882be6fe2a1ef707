"""Fits a space to a network: leaves out values that cannot be applied to it, and checks the others."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from spaces.candidate import Value, value_text
from spaces.errors import ConfigError, StageError
from spaces.space import Space
from spaces.stages.artifact import Artifact
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import Stage, StageContext


@dataclass(frozen=True)
class Fitting:
    """The network that a space is fitted to.

    The input of a later stage is not known before a candidate is built, so the stage is checked with the
    uncompressed network, as torch network or as ONNX model: the layers have the same names.

    Attributes:
        pipeline: The stages.
        start: Input of the first of them.
        dense: The float ONNX model.
        context: What stages may use.
    """

    pipeline: Pipeline
    start: Artifact
    dense: Artifact
    context: StageContext

    def suited(self, space: Space) -> tuple[Space, tuple[str, ...]]:
        """Returns the space without values that cannot be applied to the network, and a note on each of them.

        The values of a knob stay if none of them can be applied.

        Raises:
            ConfigError: A stage cannot be applied to the network, or no candidate is left.
        """
        unsuited: dict[str, tuple[Value, ...]] = {}
        notes: list[str] = []
        for stage in self.pipeline.stages:
            domains = space.domains(stage.name)
            with _named(stage):
                found = stage.unsuited(self._given(stage), domains, self.context)
            for name, reasons in found.items():
                if reasons and len(reasons) < len(domains[name]):
                    path = f"{stage.name}.{name}"
                    unsuited[path] = tuple(reasons)
                    notes += [f"{path}={value_text(v)} is left out: {why}" for v, why in reasons.items()]
        return (space.without(unsuited) if unsuited else space), tuple(notes)

    def checked(self, space: Space) -> tuple[str, ...]:
        """Checks the space against the network, and returns notes on knobs without effect, and the stages' remarks.

        Raises:
            ConfigError: A value of the space cannot work.
        """
        notes: list[str] = []
        for stage in self.pipeline.stages:
            given = self._given(stage)
            with _named(stage):
                stage.check(given, space.extremes(stage.name), self.context)
            for name, reason in stage.empty_knobs(given, space.domains(stage.name), self.context).items():
                notes.append(f"knob {stage.name}.{name} cannot change this network's file: {reason}")
            notes += stage.remarks(given, space.domains(stage.name), self.context)
        return tuple(notes)

    def _given(self, stage: Stage) -> Artifact:
        return self.start if self.start.kind in stage.consumes else self.dense


@contextmanager
def _named(stage: Stage) -> Iterator[None]:
    """Turns an error of a stage into one of its section in the space."""
    try:
        yield
    except StageError as error:
        raise ConfigError(f"space.{stage.name}: {error}") from error
