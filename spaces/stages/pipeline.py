"""A pipeline runs the stages in order. Outputs are cached under the digest of input, code and values."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from spaces.candidate import Candidate, StageValue
from spaces.code_digest import code_digest
from spaces.digest import digest_of
from spaces.errors import ConfigError
from spaces.space import Space
from spaces.stages.artifact import Artifact, InputSpec, Step
from spaces.stages.stage import SOURCES, Stage, StageContext


class Pipeline:
    """Turns a candidate into an artifact.

    Args:
        stages: The stages, in order; each must consume what the one before produces.

    Raises:
        ConfigError: A stage does not consume what the one before produces, or a name occurs twice.
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
            raise ConfigError(f"stage: every stage may occur only once, but got {names}")

    def split(self, space_stages: Sequence[str]) -> tuple["Pipeline", "Pipeline"]:
        """Splits before the first stage with knobs; earlier ones give the same result for all candidates."""
        first = next((i for i, s in enumerate(self.stages) if s.name in space_stages), len(self.stages))
        return Pipeline(self.stages[:first]), Pipeline(self.stages[first:])

    def values(self, space: Space, candidate: Candidate) -> dict[str, dict[str, StageValue]]:
        """Returns a value for each stage's every knob: the candidate's, or the default."""
        return {s.name: {**s.defaults(), **space.stage_values(candidate, s.name)} for s in self.stages}

    def canonical(
        self, start: Artifact, space: Space, candidate: Candidate, context: StageContext
    ) -> dict[str, dict[str, StageValue]]:
        """Returns each stage's canonical values: equal for candidates that are known to give the same file.

        Raises:
            StageError: The candidate cannot be built.
        """
        found = self.values(space, candidate)
        network = _Network(start, context)
        for stage in self.foreseen(start):
            found[stage.name] = stage.canonical(
                network.given_to(stage, found[stage.name]), found[stage.name], context
            )
            network.passed(stage, found[stage.name])
        return found

    def foreseen(self, start: Artifact) -> tuple[Stage, ...]:
        """Returns the stages whose values can be made canonical before anything is built.

        For an ONNX network that is the first stage; for a torch network every stage that gets a torch module,
        since its input has the same modules as `start`, or as the output of the last stage that rebuilds the network.
        """
        if start.kind == "onnx":
            return self.stages[:1]
        kinds = ("torch", *(stage.produces for stage in self.stages))
        return tuple(s for s, kind in zip(self.stages, kinds, strict=False) if kind == "torch")

    def structure(
        self, start: Artifact, values: Mapping[str, Mapping[str, StageValue]], context: StageContext
    ) -> dict[str, Mapping[str, StageValue]]:
        """Returns the part of the canonical values that decides the file's structure.

        Files of equal structure differ only in numbers. All values of a stage that is not among `foreseen`
        are kept.
        """
        found: dict[str, Mapping[str, StageValue]] = {s.name: values[s.name] for s in self.stages}
        network = _Network(start, context)
        for stage in self.foreseen(start):
            given = network.given_to(stage, values[stage.name])
            found[stage.name] = stage.structure(given, values[stage.name], context)
            network.passed(stage, values[stage.name])
        return found

    def training(self, values: Mapping[str, Mapping[str, StageValue]]) -> tuple[str, tuple[str, ...]]:
        """Returns a key that is equal for candidates that share their trainings, and the stages up to the last of these.

        Args:
            values: Values of every knob by stage. The key is empty if no stage is expensive.
        """
        expensive = [at for at, stage in enumerate(self.stages) if stage.expensive(values[stage.name])]
        if not expensive:
            return "", ()
        names = tuple(stage.name for stage in self.stages[: expensive[-1] + 1])
        return canonical_key({name: values[name] for name in names}), names

    def costs_are_known_early(
        self, start: Artifact, values: Mapping[str, Mapping[str, StageValue]], context: StageContext
    ) -> bool:
        """Returns whether a stage is expensive, and the file's structure does not depend on what it does.

        It does where a later stage cuts the network that was trained.
        """
        trained = False
        for stage in self.stages:
            given = values[stage.name]
            cuts = stage.produces == "torch" and given != stage.defaults()
            if trained and cuts and stage.structure(start, given, context):
                return False
            trained |= stage.expensive(given)
        return trained

    def run(
        self,
        start: Artifact,
        values: Mapping[str, Mapping[str, StageValue]],
        context: StageContext,
        after_step: Callable[[str, float], None] | None = None,
        cache_last: bool = True,
    ) -> Artifact:
        """Applies the stages, caching their outputs.

        Args:
            start: Input of the first stage.
            values: Canonical values by stage.
            context: Calibration data, cache and seed.
            after_step: Called after each stage with its name and its duration in seconds.
            cache_last: Whether to cache the last stage's output too.

        Raises:
            StageError: A stage cannot be applied.
        """
        artifact = start
        for stage in self.stages:
            began = time.perf_counter()
            cached = (cache_last or stage is not self.stages[-1]) and not stage.rebuilds
            made = _apply(stage, artifact, values.get(stage.name, stage.defaults()), context, cached)
            artifact = replace(made, notes={**artifact.notes, **made.notes})
            if after_step is not None:
                after_step(stage.name, time.perf_counter() - began)
        return artifact


class _Network:
    """The network as stages that make another one leave it; built only if a later stage looks at it."""

    def __init__(self, start: Artifact, context: StageContext) -> None:
        self._artifact, self._context = start, context
        self._pending: list[tuple[Stage, Mapping[str, StageValue]]] = []

    def given_to(self, stage: Stage, values: Mapping[str, StageValue]) -> Artifact:
        """Returns the input of a stage; an earlier network where the stage does not depend on it."""
        if stage.depends_on_network(values):
            for rebuilder, its_values in self._pending:
                self._artifact = rebuilder.apply(self._artifact, its_values, self._context)
            self._pending = []
        return self._artifact

    def passed(self, stage: Stage, values: Mapping[str, StageValue]) -> None:
        """Notes a stage that makes another network."""
        if stage.rebuilds:
            self._pending.append((stage, values))


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
    if not cached:
        return stage.apply(artifact, values, context)
    stored = _StoredOnnx() if stage.produces == "onnx" else _StoredTorch(artifact)
    built: list[Artifact] = []

    def build() -> bytes:
        built.append(stage.apply(artifact, values, context))
        # Notes of earlier stages are not stored: another input of the same digest may have other notes.
        own = {
            k: v for k, v in built[0].notes.items() if k not in artifact.notes or artifact.notes[k] is not v
        }
        return stored.packed(replace(built[0], notes=own))

    key = f"{stage.name}-{stage_key(stage, artifact, values, context)}-{context.seed}.{stage.produces}"
    data = context.cache.blob(key, build)
    if built:
        return built[0]
    if not data:  # the artifact could not be serialized
        return stage.apply(artifact, values, context)
    return replace(stored.unpacked(data), provenance=(*artifact.provenance, Step.of(stage.name, values)))


def stage_key(
    stage: Stage, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
) -> str:
    """Returns the digest of everything that the stage's output depends on, except the seed."""
    read = stage.sources(values)
    sources = [getattr(context, name) if name in read else None for name in SOURCES]
    return digest_of(
        artifact.digest,
        artifact.input,
        stage.name,
        code_digest(type(stage)),
        stage.config(),
        canonical_key({stage.name: values}),
        [None if used is None else used.digest for used in sources],
        context.accelerator,
        *([] if context.loss == "cross_entropy" else [context.loss]),
    )


class _StoredOnnx:
    """Serializes an ONNX artifact: a line of JSON with its input and notes, then the file."""

    def packed(self, artifact: Artifact) -> bytes:
        header = json.dumps({"input": asdict(artifact.input), "notes": artifact.notes})
        return header.encode() + b"\n" + artifact.onnx_bytes

    def unpacked(self, data: bytes) -> Artifact:
        line, _, model = data.partition(b"\n")
        header = json.loads(line)
        made = Artifact.onnx(model, InputSpec.of(header["input"]))
        return replace(made, notes=header["notes"])


class _StoredTorch:
    """Serializes a torch artifact as its difference from the stage's input; empty bytes if it cannot."""

    def __init__(self, template: Artifact) -> None:
        self._template = template

    def packed(self, artifact: Artifact) -> bytes:
        from spaces.stages.torch_file import packed

        return packed(artifact, self._template) or b""

    def unpacked(self, data: bytes) -> Artifact:
        from spaces.stages.torch_file import unpacked

        return unpacked(data, self._template)
