"""Fake results with the shape of a real study, for tests of reports and trackers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.base import Measurement
from evaluators.column import Column
from search.record.results import Alias, Constraint, DevicePick, Objective, StudyRecord, TrialRecord
from spaces.candidate import Candidate, Value
from spaces.digest import digest_of

LAYERS = ("stem", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2", "block2.skip", "fc")
TOP1 = str(Column.of("top1"))
_BASELINE_TOP1 = 98.0
_BASELINE_BYTES = 124_000.0
KNOBS: dict[str, tuple[Value, ...]] = {
    "prune.ratio": (),
    "quantize.scheme": ("float", "int"),
    "quantize.weight_bits": (4, 8),
    "quantize.granularity": ("tensor", "channel"),
    "quantize.clip": ("minmax", "percentile", "mse"),
    "quantize.keep_float": ((), ("stem",), ("stem", "fc")),
}


def fake_results(
    folder: Path,
    n_trials: int = 24,
    devices: Sequence[str] = ("host", "stm32h743"),
    seed: int = 0,
    top1_min: float = 94.0,
) -> StudyRecord:
    """Returns a study of `n_trials` trials: some failed, some infeasible, the rest with per-layer details.

    Args:
        folder: The value of `Results.folder`; nothing is written there.
        n_trials: Number of trials.
        devices: Device names; without any, the accuracy is the only objective.
        seed: Seed of the random values.
        top1_min: Lowest accuracy that is feasible, in per cent; above 100 nothing is feasible.
    """
    rng = np.random.default_rng(seed)
    constraints = [Constraint("accuracy", TOP1, "min", top1_min)]
    if devices:
        constraints.append(Constraint("memory", str(Column.of("weight_bytes", devices[-1])), "max", 90_000))
    trials = tuple(_trial(number, devices, tuple(constraints), rng) for number in range(n_trials))
    objectives = [Objective(TOP1, "maximize")]
    for device in devices:
        objectives.append(Objective(str(Column.of("latency_ms", device)), "minimize"))
        objectives.append(Objective(str(Column.of("weight_bytes", device)), "minimize"))
    return _results(folder, trials, tuple(objectives), tuple(constraints), tuple(devices))


def _results(
    folder: Path,
    trials: tuple[TrialRecord, ...],
    objectives: tuple[Objective, ...],
    constraints: tuple[Constraint, ...],
    devices: tuple[str, ...],
) -> StudyRecord:
    front = _front(trials, objectives)
    by_number = {t.number: t.values() for t in trials}
    best = front[0] if front else None
    good = [n for n in front if by_number[n][TOP1] >= _BASELINE_TOP1 - 1] or list(front)
    picks = tuple(
        DevicePick(d, n, "the smallest model on the front within 1 pp of the baseline")
        for d in devices
        if (n := min(good, key=lambda i: by_number[i][str(Column.of("weight_bytes", d))], default=None))
        is not None
    )
    volumes = tuple(len(_front(trials[: i + 1], objectives)) / 20 for i in range(len(trials)))
    aliases = tuple(Alias(t.candidate, t.number) for t in trials[:2])
    return StudyRecord(
        name="digits",
        folder=folder,
        config=_config(),
        command="paredown experiment=digits study.n_trials=24 seed=0",
        sampler="tpe",
        objectives=objectives,
        constraints=constraints,
        knobs=KNOBS,
        notes=("quantize.clip: entropy gives the same ranges as minmax on this network",),
        baseline=_measurements(_BASELINE_TOP1, _BASELINE_BYTES, devices, is_baseline=True),
        trials=trials,
        aliases=aliases,
        front=front,
        best=best,
        best_why="highest accuracy on the front" if best is not None else "",
        picks=picks,
        hypervolume=volumes[-1] if volumes else None,
        hypervolumes=volumes,
        wall_s=sum(t.wall_s for t in trials),
        environment={"python": "3.12.1", "onnxruntime": "1.31.1", "cpu": "test CPU", "cores": "2"},
    )


def _config() -> dict[str, Any]:
    return {
        "seed": 0,
        "study": {"name": "digits", "n_trials": 24},
        "sampler": {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 10},
        "tracker": {"uri": "postgresql://user:hunter2@db.example/mlflow"},
    }


def _trial(
    number: int, devices: Sequence[str], constraints: tuple[Constraint, ...], rng: np.random.Generator
) -> TrialRecord:
    values = _values(rng)
    candidate = Candidate(values)
    seconds = {"prune": 0.2, "quantize": float(rng.uniform(0.1, 0.3)), "accuracy": float(rng.uniform(1, 2))}
    if number % 8 == 5:
        reason = f"StageError: quantize: layer block{number % 3}.conv1 has no ranges"
        return TrialRecord(number, "failed", reason, candidate, (), {}, {"prune": 0.2}, 0.2, None)
    bits = float(str(values.get("quantize.weight_bits", 32)))
    lost = 2.0 * (bits == 4) + 1.5 * (values.get("quantize.granularity") == "tensor") * (bits == 4)
    lost += 6.0 * float(str(values["prune.ratio"])) ** 2 + rng.normal(0, 0.15)
    size = _BASELINE_BYTES * bits / 32 * (1 - float(str(values["prune.ratio"]))) + 1000
    measurements = _measurements(round(_BASELINE_TOP1 - lost, 2), float(round(size)), devices)
    columns = {m.column: m.value for m in measurements}
    broken = [c for c in constraints if c.excess(columns[c.column]) > 0]
    reason = "; ".join(f"{c.column} {columns[c.column]:g} breaks {c.kind} {c.limit:g}" for c in broken)
    layers = [
        {
            "layer": name,
            "weight_sqnr_db": None if bits == 32 else float(6 * bits - 8 + rng.normal(0, 2)),
            "output_sqnr_db": None if bits == 32 else float(5 * bits - 6 + 3 * (i % 3) + rng.normal(0, 2)),
        }
        for i, name in enumerate(LAYERS)
    ]
    return TrialRecord(
        number,
        "infeasible" if broken else "complete",
        reason,
        candidate,
        measurements,
        {"layers": layers},
        seconds,
        sum(seconds.values()),
        digest_of(candidate.digest),
    )


def _values(rng: np.random.Generator) -> dict[str, object]:
    values: dict[str, object] = {"prune.ratio": round(float(rng.uniform(0, 0.6)), 3)}
    values["quantize.scheme"] = "int" if rng.random() < 0.9 else "float"
    if values["quantize.scheme"] == "int":
        for path in ("quantize.weight_bits", "quantize.granularity", "quantize.clip", "quantize.keep_float"):
            values[path] = KNOBS[path][int(rng.integers(len(KNOBS[path])))]
    return values


def _measurements(
    top1: float, size: float, devices: Sequence[str], *, is_baseline: bool = False
) -> tuple[Measurement, ...]:
    measurements = [
        Measurement("top1", top1, "%", "measured"),
        Measurement("top1_low", top1 - 0.6, "%", "measured"),
        Measurement("top1_high", min(100.0, top1 + 0.6), "%", "measured"),
    ]
    if not is_baseline:
        drop = _BASELINE_TOP1 - top1
        measurements.append(Measurement("top1_drop", drop, "%", "measured"))
        measurements.append(Measurement("top1_drop_low", drop - 0.4, "%", "measured"))
        measurements.append(Measurement("top1_drop_high", drop + 0.4, "%", "measured"))
    for speed, device in enumerate(devices, start=1):
        latency = round(0.2 + size / 40_000 / speed, 4)
        measurements.append(
            Measurement("latency_ms", latency, "ms", "measured" if device == "host" else "modelled", device)
        )
        measurements.append(Measurement("weight_bytes", size, "bytes", "measured", device))
    return tuple(measurements)


def _front(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> tuple[int, ...]:
    """Returns the numbers of the feasible trials that no other one dominates, best first objective first."""
    points = {
        t.number: np.array(
            [t.values()[o.column] * (1 if o.direction == "minimize" else -1) for o in objectives]
        )
        for t in trials
        if t.state == "complete"
    }
    front = [
        number
        for number, point in points.items()
        if not any((other <= point).all() and (other < point).any() for other in points.values())
    ]
    return tuple(sorted(front, key=lambda n: tuple(points[n])))


def hostile_text() -> str:
    """Returns a text with markup of HTML, Markdown, rich and terminals, and of a spreadsheet's formulas."""
    return (
        "=HYPERLINK(1)<script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; ``` [a](javascript:b) [bold]x[/] "
        "\x1b[31m\x1b]0;t\x07{} {0} %s ${x} | a\n# head\r\n1) b"
    )


def hostile_results(folder: Path) -> StudyRecord:
    """Returns a study whose every text is `hostile_text`, as one from elsewhere may be."""
    evil = hostile_text()
    results = fake_results(folder, 14)
    trials = tuple(
        replace(
            t,
            reason=evil if t.reason else "",
            candidate=Candidate({**t.candidate, evil: evil}),
            details=_hostile(t.details) | {evil: {evil: [evil]}},
            seconds={evil: 1.0},
            measurements=(*t.measurements, Measurement(evil, 1.0, evil, "measured", evil))
            if t.measurements
            else (),
        )
        for t in results.trials
    )
    return replace(
        results,
        name=evil,
        trials=trials,
        notes=(evil,),
        learned=(evil,),
        ended=evil,
        command=evil,
        sampler=evil,
        best_why=evil,
        prediction=evil,
        picks=tuple(replace(p, why=evil, device=evil) for p in results.picks),
        knobs={**results.knobs, evil: (evil,)},
        constraints=tuple(replace(c, name=evil) for c in results.constraints),
        aliases=(Alias(Candidate({evil: evil}), 0),),
        environment={evil: evil},
        config={evil: evil, "sampler": {"_target_": evil}},
        objectives=(*results.objectives, Objective(str(Column.of(evil, evil)), "minimize")),
    )


def _hostile(value: Any) -> Any:
    """Returns details with every text replaced."""
    if isinstance(value, Mapping):
        return {key: _hostile(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hostile(item) for item in value]
    return hostile_text() if isinstance(value, str) else value
