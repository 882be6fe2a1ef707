"""Measures the baseline and makes the plan of a compression study."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import optuna

from evaluators.base import EvaluationContext, Measurement, Reference
from evaluators.column import Column
from evaluators.cost.graph.formats import UNSUPPORTED
from evaluators.devices.device import Device
from evaluators.integer_kernels import integer_kernels_saturate
from evaluators.metric import Metric, direction_of
from evaluators.runtime import labels_of, reference_outputs
from evaluators.task.guess import guess_note
from evaluators.task.preparation import preparation_of
from evaluators.task.statistics.early_stopping import score_bounds
from evaluators.task.statistics.scores import is_pooled, statistics_of
from search.executors.base import Executor
from search.planning.basics import basics
from search.planning.config.schema import Config
from search.planning.gather_knowledge import knowledge_of
from search.planning.identity import compression_identity
from search.planning.loading import Loaded, Say, made
from search.planning.samplers_for import check_allocator, sampler_factory
from search.record.objectives import Measured, read_limits, read_objectives
from search.record.results import Constraint, Objective
from search.samplers.candidates.context import LowFidelityEvaluations
from search.study.plan import StudyPlan
from search.study.waits import waits_told
from search.trials.allocation import allocation_context
from search.trials.compression_work import CalledReEvaluator, CompressionWork
from search.trials.expense import TrainingExpense
from search.trials.low_fidelity import CompressionLowFidelity
from search.trials.machine_lock import MachineLock
from search.trials.run_trial import described
from search.trials.structures import Buildable
from search.trials.trial import CompressionRunner
from spaces.candidate import Candidate, Value
from spaces.errors import EvaluationError, ParedownError
from spaces.quantization.quantize import QuantizeStage


def plan_compression(config: Config, loaded: Loaded, say: Say) -> StudyPlan:
    """Measures the baseline and returns the plan.

    Args:
        config: The config.
        loaded: Its model, task, devices and space.
        say: Reports progress, one line of text a step.

    Raises:
        ConfigError: An objective, constraint or evaluator is wrong.
    """
    executor = made(Executor, config.section("executor"), "executor", config)
    base = _baseline(config, loaded, say)
    objectives, constraints = read_objectives(config.section("objective"), base.names)
    constraints = (*constraints, *format_constraints(loaded.devices, base.measurements))
    base = replace(base, runner=replace(base.runner, limits=constraints))
    knowledge = knowledge_of(config, loaded, objectives, base.measurements)
    low_fidelity = _low_fidelity(config, loaded, base.runner, executor, objectives, constraints)
    values = {m.column: m.value for m in base.measurements}
    defaults = _defaults(loaded)
    by_time = config.study.time_limit_s is not None and loaded.start.kind == "torch"
    expense = TrainingExpense(base.runner) if by_time else None
    allocation = allocation_context(
        base.runner, executor.call, constraints, partial(read_limits, measured=base.names), defaults
    )
    if config.data["dry_run"]:  # which makes no sampler
        check_allocator(config, allocation)
    metric = loaded.task.metric
    wants_stops = any(getattr(evaluator, "stop_early", False) for evaluator in base.runner.evaluators)
    stops_early = wants_stops and _is_bounded(base.runner.context)
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
            low_fidelity,
            baselines=[values.get(o.column) for o in objectives],
            allocation=allocation,
            expense=expense,
        ),
        runner=CompressionWork(base.runner, loaded.splits.test, loaded.task.groups().get("test")),
        executor=executor,
        identity=compression_identity(config, loaded, (*objectives, *constraints), base.measurements),
        baseline=base.measurements,
        measuring_s=base.seconds,
        re_evaluator=CalledReEvaluator(executor.call),
        first=_first(config, loaded),
        notes=_notes(loaded, base.runner.context, objectives, base.details, wants_stops and not stops_early),
        preparation=preparation_of(loaded.task, loaded.splits.validation),
        learned=knowledge.notes,
        record=knowledge.record,
        low_fidelity=low_fidelity,
        early_metric=metric.name if stops_early else None,
        early_direction=direction_of(metric),
        explain=partial(executor.call, "explain"),
        pruner=_pruner(config),
        expense=expense,
    )


@dataclass(frozen=True)
class _Baseline:
    """The float model's measurements, and what made them.

    Attributes:
        runner: Builds and evaluates candidates.
        measurements: The measurements.
        details: The evaluators' details.
        seconds: Seconds that it took.
        names: What objectives and limits may name.
    """

    runner: CompressionRunner
    measurements: tuple[Measurement, ...]
    details: Mapping[str, Any]
    seconds: float
    names: Measured


def _baseline(config: Config, loaded: Loaded, say: Say) -> _Baseline:
    """Measures the float model."""
    lock = MachineLock(study=str(config.study.folder.resolve()), name=config.study.name)
    say("measuring the float model")
    began = time.perf_counter()
    with waits_told(lock, say):
        with lock.shared():
            outputs = reference_outputs(loaded.dense, loaded.splits.validation)
        context = _evaluation_context(config, loaded, outputs)
        runner = CompressionRunner(
            loaded.space,
            loaded.start,
            loaded.pipeline,
            loaded.stage_context,
            context,
            loaded.evaluators,
            lock,
        )
        measurements, details = _measured(runner)
    seconds = time.perf_counter() - began
    return _Baseline(runner, measurements, details, seconds, _names(loaded, runner, measurements))


def _evaluation_context(config: Config, loaded: Loaded, outputs: Any) -> EvaluationContext:
    task = loaded.task
    return EvaluationContext(
        loaded.splits.validation,
        task.metric,
        Reference(loaded.dense, outputs),
        loaded.devices,
        config.seed,
        others=task.others,
        agreement=task.agreement,
        groups=loaded.task.groups().get("validation"),
    )


def _names(loaded: Loaded, runner: CompressionRunner, baseline: Sequence[Measurement]) -> Measured:
    metric = loaded.task.metric
    possible = [evaluator.possible(runner.context) for evaluator in runner.evaluators]
    return Measured(
        metric.name,
        list(loaded.devices),
        {m.column for m in baseline}.union(*possible),
        _sizes(loaded.devices),
        direction_of(metric),
        {m.column: m for m in baseline},
        loaded.task.guess_error(),
    )


def _low_fidelity(
    config: Config,
    loaded: Loaded,
    runner: CompressionRunner,
    executor: Executor,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> LowFidelityEvaluations | None:
    """Returns low-fidelity evaluations; None where a network is pruned and trained, whose costs and quality are known once it is built.

    Of architectures it is known which can be built.
    """
    if any(stage.rebuilds for stage in loaded.pipeline.stages):
        return Buildable(runner, len(objectives))
    if loaded.start.kind != "onnx":
        return None
    call = partial(executor.call, time_limit_s=config.study.trial_time_limit_s, tries=1)
    return CompressionLowFidelity(runner, objectives, constraints, call)


def _first(config: Config, loaded: Loaded) -> tuple[Candidate, ...]:
    """Returns the candidates of the first trials, without those that break a constraint between knobs.

    They are the defaults, and these with each other value of a knob whose values tell nothing of one another.
    """
    if not config.study.start_with_defaults:
        return ()
    apart = {f"{s.name}.{k.name}" for s in loaded.pipeline.stages for k in s.knobs if k.each_first}
    values: list[dict[str, Value]] = [{}]
    for knob in loaded.space.knobs:
        if knob.path in apart and knob.domain.size is not None:
            values += [{knob.path: value} for value in knob.domain]
    found = [_defaults(loaded, fixed) for fixed in values]
    distinct = [given for at, given in enumerate(found) if given not in found[:at]]
    return tuple(Candidate(given) for given in distinct if not loaded.space.broken(given))


def _pruner(config: Config) -> optuna.pruners.BasePruner | None:
    pruner: optuna.pruners.BasePruner = made(
        optuna.pruners.BasePruner, config.section("pruner"), "pruner", config
    )
    return None if isinstance(pruner, optuna.pruners.NopPruner) else pruner


def _measured(runner: CompressionRunner) -> tuple[tuple[Measurement, ...], dict[str, Any]]:
    """Returns the float model's measurements and details; an evaluator of the user's may raise anything."""
    try:
        return runner.measure(runner.dense, runner.context)
    except ParedownError:
        raise
    except Exception as error:
        raise EvaluationError(f"the float model cannot be evaluated: {described(error)}") from error


def _defaults(loaded: Loaded, fixed: Mapping[str, Value] | None = None) -> dict[str, Value]:
    """Returns the stages' defaults as values of the space, but for `fixed` ones; they may break a constraint between knobs."""
    defaults = {f"{s.name}.{k.name}": k.default for s in loaded.pipeline.stages for k in s.knobs}
    defaults |= fixed or {}
    values: dict[str, Value] = {}
    for knob in loaded.space.knobs:
        if not loaded.space.active(knob, values):
            continue
        default = defaults[knob.base]
        if default in knob.domain:
            values[knob.path] = default
        else:  # the space lacks the default: take the middle of its values
            domain = knob.domain
            options = list(domain) if domain.size is not None else [domain.sample(np.random.default_rng(0))]
            values[knob.path] = options[len(options) // 2]
    return values


def format_constraints(
    devices: Mapping[str, Device], baseline: Sequence[Measurement]
) -> tuple[Constraint, ...]:
    """Returns, for each device whose profile says which formats its runtime takes, that a file has no others."""
    columns = {name: str(Column.of(UNSUPPORTED, name)) for name in devices}
    measured = {m.column for m in baseline}
    return tuple(
        Constraint(f"formats.{name}", column, "max", 0.0)
        for name, column in columns.items()
        if column in measured
    )


def _sizes(devices: Mapping[str, Device]) -> dict[str, float]:
    """Returns the memory sizes in bytes that the profiles state, by the column that must fit."""
    sizes = {
        str(Column.of(cost, name)): size
        for name, device in devices.items()
        for cost, size in (("peak_sram_bytes", device.ram_bytes), ("flash_bytes", device.flash_bytes))
    }
    return {column: float(size) for column, size in sizes.items() if size is not None}


def _is_bounded(context: EvaluationContext) -> bool:
    """Whether the metric is a mean of bounded scores, so that a part of the examples bounds the whole."""
    if is_pooled(context.metric):
        return False
    scores = statistics_of(context.metric, context.reference.outputs, labels_of(context.split))
    return score_bounds(context.metric, scores) is not None


def _notes(
    loaded: Loaded,
    context: EvaluationContext,
    objectives: Sequence[Objective],
    details: Mapping[str, Any],
    never_stops: bool,
) -> tuple[str, ...]:
    """Returns what is to be said before the first trial.

    Args:
        loaded: The model, devices and space.
        context: What evaluators get.
        objectives: Axes of the front.
        details: The evaluators' details of the float model.
        never_stops: Whether early stopping was wanted, but part of the examples bounds nothing.
    """
    return (
        *loaded.notes,
        *_devices_without_objective(loaded, objectives),
        *_unknown_operators(details),
        *_inexact_kernels(loaded, context),
        *_groups(context),
        *_guess(loaded, context),
        *(_no_early_stopping(context.metric) if never_stops else ()),
    )


def _devices_without_objective(loaded: Loaded, objectives: Sequence[Objective]) -> tuple[str, ...]:
    """Returns a note for each device that has no objective, although others have."""
    with_objective = {Column.parse(o.column).device for o in objectives} - {None}
    return tuple(
        f"device {name} has no objective: its profile lacks a figure that the cost of the float model needs"
        for name in loaded.devices
        if with_objective and name not in with_objective
    )


def _guess(loaded: Loaded, context: EvaluationContext) -> tuple[str, ...]:
    if loaded.task.whole_outputs and loaded.task.guess_error() is None:  # labels may be large, and on disk
        return ()
    note = guess_note(loaded.task, context.reference.outputs, labels_of(context.split))
    return () if note is None else (note,)


def _unknown_operators(details: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = details.get("cost", {}).get("unknown_operators", {})
    if not unknown:
        return ()
    operators = ", ".join(f"{op} ({count})" for op, count in unknown.items())
    return (f"the cost models do not know {operators}: their bytes are counted, their arithmetic is not",)


def _inexact_kernels(loaded: Loaded, context: EvaluationContext) -> tuple[str, ...]:
    quantizes = any(stage.name == QuantizeStage.name for stage in loaded.pipeline.stages)
    if context.exact_sums or not (quantizes and integer_kernels_saturate()):
        return ()
    return (
        "this machine is one of the devices, so accuracies are those of its 8-bit kernels, which saturate (x86 without VNNI): with "
        "unsigned activations and signed weights they can be lower than on other devices",
    )


def _groups(context: EvaluationContext) -> tuple[str, ...]:
    if context.groups is None:
        return ()
    n, n_groups = len(context.groups), len(np.unique(context.groups))
    return (
        f"the {n:,} validation examples come from {n_groups:,} groups, which intervals take for alike within themselves",
    )


def _no_early_stopping(metric: Metric) -> tuple[str, ...]:
    why = "it is no mean over examples" if is_pooled(metric) else "its scores have no bounds"
    return (
        f"every evaluation takes all examples: part of them gives no bound of {metric.name}, because {why}",
    )
