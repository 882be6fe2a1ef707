"""A pipeline: the stages in order. Each stage's output is cached under the digest of all that led to it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from spaces.artifact import Artifact, Step
from spaces.cache import digest_of
from spaces.candidate import Candidate
from spaces.errors import ConfigError
from spaces.space import Space
from spaces.stage import Stage, StageContext, StageValue


class Pipeline:
    """Turns a candidate into an artifact.

    Args:
        stages: The stages, in order; each must consume what the one before produces.

    Raises:
        ConfigError: Two neighbours do not fit, or a name is there twice.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if before.produces not in after.consumes:
                raise ConfigError(
                    f"stage: {after.name!r} cannot follow {before.name!r}, which yields a {before.produces} model; "
                    f"it takes {' or '.join(after.consumes)}"
                )
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ConfigError(f"stage: every stage may be there once, but got {names}")

    def split(self, space_stages: Sequence[str]) -> tuple["Pipeline", "Pipeline"]:
        """Splits off the stages before the first one that has knobs: they are the same for all candidates."""
        first = next((i for i, s in enumerate(self.stages) if s.name in space_stages), len(self.stages))
        return Pipeline(self.stages[:first]), Pipeline(self.stages[first:])

    def canonical(
        self, start: Artifact, space: Space, candidate: Candidate, context: StageContext
    ) -> dict[str, dict[str, StageValue]]:
        """Returns each stage's full values, equal for candidates that are known to come to the same file.

        Only the first stage's input is known before anything is built, so that only its values are made canonical.

        Raises:
            StageError: The candidate cannot be built.
        """
        found = {s.name: {**s.defaults(), **space.stage_values(candidate, s.name)} for s in self.stages}
        if self.stages:
            first = self.stages[0]
            found[first.name] = first.canonical(start, found[first.name], context)
        return found

    def structure(
        self, start: Artifact, values: Mapping[str, Mapping[str, StageValue]], context: StageContext
    ) -> dict[str, Mapping[str, StageValue]]:
        """Returns the part of canonical values that decides the file's structure; equal ones differ in numbers only.

        Only the first stage's input is known before anything is built, so that the later ones' values count whole.
        """
        found: dict[str, Mapping[str, StageValue]] = {s.name: values[s.name] for s in self.stages}
        if self.stages:
            first = self.stages[0]
            found[first.name] = first.structure(start, values[first.name], context)
        return found

    def run(
        self,
        start: Artifact,
        values: Mapping[str, Mapping[str, StageValue]],
        context: StageContext,
        after_step: Callable[[str, float], None] | None = None,
        cache_last: bool = True,
    ) -> Artifact:
        """Applies the stages; the ONNX files that they yield are cached.

        Args:
            start: What the first stage gets.
            values: Canonical values by stage.
            context: Calibration data, cache and seed.
            after_step: Called with a stage's name and its seconds.
            cache_last: Whether to cache the last stage's output too.

        Raises:
            StageError: A stage cannot be applied.
        """
        artifact = start
        for stage in self.stages:
            began = time.perf_counter()
            cached = cache_last or stage is not self.stages[-1]
            artifact = _apply(stage, artifact, values.get(stage.name, stage.defaults()), context, cached)
            if after_step is not None:
                after_step(stage.name, time.perf_counter() - began)
        return artifact


def canonical_key(values: Mapping[str, Mapping[str, StageValue]]) -> str:
    """Returns the digest of canonical values: equal keys come to the same file."""
    return digest_of(json.dumps(values, sort_keys=True))


def _apply(
    stage: Stage, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext, cached: bool
) -> Artifact:
    if artifact.kind not in stage.consumes:
        raise ConfigError(
            f"stage {stage.name!r} takes {' or '.join(stage.consumes)}, but got a {artifact.kind} model"
        )
    if stage.produces != "onnx" or not cached:
        return stage.apply(artifact, values, context)
    calibration = context.calibration.digest if context.calibration is not None else None
    key = digest_of(
        artifact.digest, stage.name, stage.config(), canonical_key({stage.name: values}), calibration
    )
    built: list[Artifact] = []

    def build() -> bytes:
        built.append(stage.apply(artifact, values, context))
        return built[0].onnx_bytes

    data = context.cache.blob(f"{stage.name}-{key}-{context.seed}.onnx", build)
    if built:
        return built[0]
    step = Step(stage.name, tuple(sorted(values.items(), key=lambda item: item[0])))
    return replace(Artifact.onnx(data, artifact.input), provenance=(*artifact.provenance, step))
