"""From a config to the plan of a compression study: loads model and data, measures the baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluators.base import EvaluationContext, Evaluator, Measurement, Reference
from evaluators.devices import Device
from evaluators.task.accuracy import reference_outputs
from evaluators.task.fit import check_fit
from evaluators.task.task import Splits, Task
from search.builders import builders_digest
from search.config import Config
from search.device_files import devices_of
from search.executors.machine_lock import MachineLock
from search.instantiate import instantiate
from search.knowledge.gather import knowledge_of
from search.looks import CompressionLooks
from search.objectives import read_objectives
from search.plan import StudyPlan, basics
from search.results import Objective
from search.samplers_for import sampler_factory
from search.trial import CompressionRunner
from spaces.artifact import Artifact
from spaces.cache import Cache
from spaces.candidate import Candidate, Value
from spaces.errors import ConfigError, StageError
from spaces.models.base import LoadContext, ModelSource
from spaces.models.layers import layers
from spaces.pipeline import Pipeline
from spaces.space import Space
from spaces.space_config import read_space
from spaces.stage import Stage, StageContext

Say = Callable[[str], None]
CALIBRATION_KNOB = "calibration_images"


@dataclass(frozen=True)
class Loaded:
    """A config's model, task and space, before anything is measured."""

    task: Task
    splits: Splits
    start: Artifact
    pipeline: Pipeline
    space: Space
    stage_context: StageContext
    devices: dict[str, Device]
    notes: tuple[str, ...]


def load(config: Config, say: Say) -> Loaded:
    """Loads what a study needs and checks that it fits together.

    Raises:
        ConfigError: A value of the config is wrong.
        InputError: A file is missing, damaged or does not fit.
    """
    devices = devices_of(config)
    stages = [
        _made(Stage, section, f"stage.{name}", config) for name, section in config.section("stage").items()
    ]
    read_space(config.section("space"), stages)  # a typo is told before a network is loaded
    say("reading the task's data")
    task: Task = _made(Task, config.section("task"), "task", config)
    splits = task.splits()
    say("loading the network")
    source: ModelSource = _made(ModelSource, config.section("model"), "model", config)
    model = source.load(LoadContext(splits.train, config.cache_dir, config.seed))
    context = StageContext(splits.calibration, _cache(config, stages), config.seed)
    names = [key for key in config.section("space") if key != "constraints"]
    prefix, pipeline = Pipeline(stages).split(names)
    say("exporting it")
    start = prefix.run(model, {}, context, cache_last=True)
    if start.kind != "onnx":
        raise ConfigError(
            "stage: nothing turns the torch model into ONNX before the first stage with knobs; add `export`"
        )
    check_fit(start, task, splits)
    space = read_space(
        config.section("space"), stages, list(dict.fromkeys(layer.name for layer in layers(start.proto())))
    )
    context = replace(context, calibration_sizes=_calibration_sizes(pipeline, space))
    return Loaded(
        task,
        splits,
        start,
        pipeline,
        space,
        context,
        devices,
        _checked_knobs(pipeline, start, space, context),
    )


def plan_compression(config: Config, loaded: Loaded, say: Say) -> StudyPlan:
    """Measures the baseline and returns the plan.

    Raises:
        ConfigError: An objective, constraint or evaluator is wrong.
    """
    evaluators = [
        _made(Evaluator, section, f"evaluator.{name}", config)
        for name, section in config.section("evaluator").items()
    ]
    lock = MachineLock()
    say("measuring the float model")
    with lock.shared():
        outputs = reference_outputs(loaded.start, loaded.splits.validation)
    reference = Reference(loaded.start, outputs)
    context = EvaluationContext(
        loaded.splits.validation, loaded.task.metric, reference, loaded.devices, config.seed
    )
    runner = CompressionRunner(
        loaded.space, loaded.start, loaded.pipeline, loaded.stage_context, context, evaluators, lock
    )
    with lock.exclusive():
        baseline, details = runner.judge(loaded.start, context, evaluators)
    objectives, constraints = read_objectives(
        config.section("objective"),
        loaded.task.metric.name,
        list(loaded.devices),
        {m.column for m in baseline}.union(*(e.possible(context) for e in evaluators)),
        _sizes(loaded.devices),
    )
    knowledge = knowledge_of(config, loaded, objectives, baseline)
    looks = CompressionLooks(runner, objectives, constraints)
    stops_early = any(getattr(evaluator, "stop_early", False) for evaluator in evaluators)
    return StudyPlan(
        **basics(config),
        n_trials=config.study.n_trials,
        space=loaded.space,
        objectives=objectives,
        constraints=constraints,
        devices=tuple(loaded.devices),
        sampler=sampler_factory(
            config,
            loaded.space,
            objectives,
            None,
            knowledge.rows,
            knowledge.descriptors,
            looks,
            baselines=[{m.column: m.value for m in baseline}.get(o.column) for o in objectives],
        ),
        runner=runner,
        executor=instantiate(config.section("executor"), "executor", config.trusted),
        identity=_identity(config, loaded),
        baseline=baseline,
        confirmer=FrontConfirmer(runner, loaded.splits),
        first=_defaults(loaded) if config.study.start_with_defaults else None,
        notes=(
            *loaded.notes,
            *_silent_devices(loaded, objectives),
            *_unknown_operators(details),
        ),
        learned=knowledge.notes,
        record=knowledge.record,
        looks=looks,
        early_metric=loaded.task.metric.name if stops_early else None,
        explain=runner.explain,
    )


class FrontConfirmer:
    """Judges a model of the front once more: on the test split, which the search never saw, and timed again.

    What is scored on the test split is called `test_*`; what is timed again replaces the first timing.

    Args:
        runner: The trials' runner.
        splits: The task's data.
    """

    def __init__(self, runner: CompressionRunner, splits: Splits) -> None:
        self._runner, self._splits = runner, splits
        self._context: EvaluationContext | None = None

    def baseline(self) -> tuple[Measurement, ...]:
        """Returns the uncompressed model's measurements on the test split, and its timings."""
        return self._judge(self._runner.start)

    def confirm(self, model: bytes) -> tuple[Measurement, ...]:
        """Returns a model's measurements on the test split, and its timings."""
        return self._judge(Artifact.onnx(model, self._runner.start.input))

    def _judge(self, artifact: Artifact) -> tuple[Measurement, ...]:
        timed = [e for e in self._runner.evaluators if e.exclusive]
        with self._runner.lock.exclusive():
            again, _ = self._runner.judge(artifact, self._runner.context, timed)
        return (*self._on_test(artifact), *again)

    def rebuild(self, candidate: Candidate) -> bytes:
        """Returns a candidate's file."""
        return self._runner.build(candidate).onnx_bytes

    def _on_test(self, artifact: Artifact) -> tuple[Measurement, ...]:
        with self._runner.lock.shared():
            if self._context is None:
                reference = Reference(
                    self._runner.start, reference_outputs(self._runner.start, self._splits.test)
                )
                self._context = replace(self._runner.context, split=self._splits.test, reference=reference)
            judges = [e for e in self._runner.evaluators if e.scores_split]
            measurements, _ = self._runner.judge(artifact, self._context, judges)
        return tuple(replace(m, name=f"test_{m.name}") for m in measurements if m.unit != "bytes")


def _cache(config: Config, stages: Sequence[Stage]) -> Cache:
    """What stages yield is shared by all studies, as long as what builds it stays the same."""
    if config.data["dry_run"]:
        return Cache(None)
    return Cache(
        config.cache_dir / "stages",
        cache_bytes=config.cache_bytes,
        prefix=f"{builders_digest(stages)}-",
    )


def _calibration_sizes(pipeline: Pipeline, space: Space) -> tuple[int, ...]:
    """Returns the numbers of calibration examples that candidates will ask for."""
    sizes = {n for s in pipeline.stages for n in space.domains(s.name).get(CALIBRATION_KNOB, ())}
    return tuple(sorted(n for n in sizes if isinstance(n, int)))


def _made(kind: type[Any], section: Any, where: str, config: Config) -> Any:
    made = instantiate(
        section,
        where,
        config.trusted,
        seed=config.seed,
        cache_dir=config.cache_dir,
        trusted_modules=list(config.trusted),
    )
    if not isinstance(made, kind):
        raise ConfigError(f"{where}._target_: {section['_target_']!r} is no {kind.__name__}")
    return made


def _checked_knobs(
    pipeline: Pipeline, start: Artifact, space: Space, context: StageContext
) -> tuple[str, ...]:
    """Checks the space against the network, and returns which knobs cannot change its file."""
    notes: list[str] = []
    for stage in pipeline.stages[:1]:  # later stages' inputs are not known before a candidate is built
        domains = space.domains(stage.name)
        try:
            stage.check(start, domains, context)
        except StageError as error:
            raise ConfigError(f"space.{stage.name}: {error}") from error
        for name, reason in stage.empty_knobs(start, domains, context).items():
            notes.append(f"knob {stage.name}.{name} cannot change this network's file: {reason}")
    return tuple(notes)


def _defaults(loaded: Loaded) -> Candidate | None:
    """Returns the stages' defaults, where the space has them; None if that breaks a constraint."""
    wanted = {f"{s.name}.{k.name}": k.default for s in loaded.pipeline.stages for k in s.knobs}
    values: dict[str, Value] = {}
    for knob in loaded.space.knobs:
        if not loaded.space.active(knob, values):
            continue
        default = wanted[knob.base]
        if default in knob.domain:
            values[knob.path] = default
        else:  # the middle: the least extreme of what the space has instead
            domain = knob.domain
            options = list(domain) if domain.size is not None else [domain.sample(np.random.default_rng(0))]
            values[knob.path] = options[len(options) // 2]
    return None if loaded.space.broken(values) else Candidate(values)


def _sizes(devices: Mapping[str, Device]) -> dict[str, float]:
    """What the devices' profiles allow, by column."""
    stated = {
        f"cost.{name}.{cost}": size
        for name, device in devices.items()
        for cost, size in (("peak_sram_bytes", device.ram_bytes), ("flash_bytes", device.flash_bytes))
    }
    return {column: float(size) for column, size in stated.items() if size is not None}


def _silent_devices(loaded: Loaded, objectives: Sequence[Objective]) -> tuple[str, ...]:
    heard = {o.column.split(".")[1] for o in objectives if o.column.startswith("cost.")}
    return tuple(
        f"device {name} is no axis of the front: its profile lacks a figure that the float model's cost needs"
        for name in loaded.devices
        if heard and name not in heard
    )


def _unknown_operators(details: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = details.get("cost", {}).get("unknown_operators", {})
    if not unknown:
        return ()
    told = ", ".join(f"{op} ({count})" for op, count in unknown.items())
    return (f"the cost models do not know {told}: their bytes count, their arithmetic does not",)


def _identity(config: Config, loaded: Loaded) -> dict[str, Any]:
    """What must be equal to resume. Paths may differ: what they held is compared instead."""
    splits = loaded.splits
    return {
        "space": config.data["space"],
        "stage": config.data["stage"],
        "objective": config.data["objective"],
        "device": config.data.get("device"),
        "task": {
            "_target_": config.data["task"]["_target_"],
            **{name: f"{len(s)} examples, digest {s.digest}" for name, s in _search_splits(splits)},
        },
        "model": {"_target_": config.data["model"]["_target_"], "digest": loaded.start.digest},
    }


def _search_splits(splits: Splits) -> list[tuple[str, Any]]:
    return [("calibration", splits.calibration), ("validation", splits.validation), ("test", splits.test)]
