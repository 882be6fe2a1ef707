"""How long until a fast and exact int8 form is found: ResNet-20, CIFAR-10, every form that onnxruntime's tool can write.

Run from the root of the repository, with nothing else running::

    python tests/benchmarks/forms_job.py --data ../shared/data --seeds 5

First a plain loop measures every form, 72 in all (types of activations and weights, per tensor or per channel, QDQ or QOperator,
symmetric activations or not, three calibration methods; calibration shared through `calibration_cache_path`): quantize, score,
time. Signed activations with unsigned weights are left out: no kernel supports them. Processor time is
printed beside wall time: where they differ much, the machine was loaded by other processes, and the result is
unreliable. `--loop-only` ends there. Then `paredown` runs in a fresh process for each seed. Both use the same
float file, 300 calibration images, the same 2,000 validation images and the same timing. The result is the
seconds from the start of the process to the end of the first trial whose model, judged afterwards, is within
3 % of the loop's fastest (timed in turns with it) and within 0.2 points of float on the 10,000 test images.
"""

import argparse
import itertools
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from evaluators.cost.latency.measured import pinned, runner, take_turns
from evaluators.runtime import run_split
from search.api import compose
from search.planning.loading import Loaded, load
from search.record.results import TrialRecord
from search.record.trial_records import record_from_json
from spaces.stages.artifact import Artifact, Split

FASTEST, POINTS = 1.03, 0.2
ROUNDS, SECONDS = 8, 0.3  # of timing, as evaluator=latency has them
TYPES = (  # of activations and weights
    (QuantType.QUInt8, QuantType.QInt8),
    (QuantType.QUInt8, QuantType.QUInt8),
    (QuantType.QInt8, QuantType.QInt8),
)
SPACE = [
    "space=forms",
    "+space.quantize.scheme=[asymmetric,symmetric]",
    "+space.quantize.clipping=[max,kl,percentile]",
]


@dataclass
class Form:
    """One file of the plain loop."""

    name: str
    artifact: Artifact
    top1: float
    latency_ms: float


class Clock:
    """Adds up seconds by step."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[float, float]] = {}
        self.start()

    def start(self) -> None:
        """Begins a step."""
        self._at = time.monotonic(), time.process_time()

    def stop(self, step: str) -> None:
        """Ends a step; the next begins."""
        (wall_s, cpu_s), before = self._steps.get(step, (0.0, 0.0)), self._at
        self.start()
        self._steps[step] = wall_s + self._at[0] - before[0], cpu_s + self._at[1] - before[1]

    def __str__(self) -> str:
        return ", ".join(
            f"{step} {wall_s:.1f} ({cpu_s:.1f})" for step, (wall_s, cpu_s) in self._steps.items()
        )


class Reader(CalibrationDataReader):
    """Feeds the calibration split to onnxruntime's tool."""

    def __init__(self, split: Split, name: str) -> None:
        self._split, self._name = split, name
        self.rewind()

    def get_next(self):
        """Returns the next example."""
        found = next(self._batches, None)
        return None if found is None else {self._name: found[0]}

    def rewind(self) -> None:
        """Starts again."""
        self._batches = self._split.batches(1)


def top1(artifact: Artifact, split: Split) -> float:
    """Per cent of right answers."""
    outputs, labels = run_split(artifact, split, 256, 1)
    return 100.0 * float(np.mean(outputs.argmax(axis=1) == labels))


def times_ms(
    first: Artifact, second: Artifact, split: Split, seconds: float = SECONDS
) -> tuple[float, float]:
    """Medians of two models that take turns."""
    with pinned(1):
        timings = take_turns(runner(first, split, 1), runner(second, split, 1), ROUNDS, seconds)
    return float(np.median(timings.first_ms)), float(np.median(timings.second_ms))


def plain_loop(loaded: Loaded, types: Sequence[tuple[QuantType, QuantType]]) -> tuple[list[Form], float, int]:
    """Measures every form; returns those that run, the seconds, and how many do not."""
    began, forms, failed = time.monotonic(), [], 0
    clock = Clock()
    start = loaded.start
    folder = Path(tempfile.mkdtemp())
    choices = itertools.product(
        (CalibrationMethod.MinMax, CalibrationMethod.Entropy, CalibrationMethod.Percentile),
        *((True, False), (True, False), (QuantFormat.QDQ, QuantFormat.QOperator)),
        types,
    )
    for method, per_channel, symmetric, form, (activations, weights) in choices:
        name = f"{form.name} {activations.name} {weights.name} channel={per_channel} symmetric={symmetric} {method.name}"
        clock.start()
        try:
            quantize_static(
                start.proto(), folder / "q.onnx", Reader(loaded.splits.calibration, start.input.name),
                quant_format=form, per_channel=per_channel, activation_type=activations, weight_type=weights,
                calibrate_method=method, extra_options={"ActivationSymmetric": symmetric},
                calibration_cache_path=folder / f"{method.name}.json",
            )  # fmt: skip
            artifact = Artifact.onnx((folder / "q.onnx").read_bytes(), start.input)
            clock.stop(f"quantize, calibration {method.name}")
            accuracy = top1(artifact, loaded.splits.validation)
            clock.stop("score")
            latency_ms = times_ms(start, artifact, loaded.splits.validation)[1]
            clock.stop("time")
            forms.append(Form(name, artifact, accuracy, latency_ms))
        except Exception as error:  # what onnxruntime cannot run costs the loop its time, too
            failed += 1
            print(f"  fails: {name}: {str(error).splitlines()[0][:80]}")
    print(f"  seconds by step (the processor's): {clock}")
    return forms, time.monotonic() - began, failed


def study(overrides: list[str], folder: Path, seed: int) -> list[tuple[TrialRecord, float]]:
    """Runs `paredown`; returns trials with the seconds from the start of the process to their end."""
    began = time.time()
    command = [sys.executable, "-m", "search", *overrides, f"study.dir={folder}", f"seed={seed}"]
    subprocess.run(command, check=True, capture_output=True)
    took = time.time() - began
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    ended = [
        (record_from_json(t.user_attrs["record"]), t.datetime_complete.timestamp() - began)
        for t in trials
        if "record" in t.user_attrs and t.datetime_complete is not None
    ]
    print(f"seed {seed}: {len(ended)} trials, {took:.1f} s with report and everything")
    return sorted(ended, key=lambda trial: trial[1])


def found_after(ended, loaded: Loaded, fastest: Form, least: float) -> float | None:
    """Returns the seconds to the first good model; builds and judges the trials' models again, in order."""
    for record, seconds in ended:
        context = loaded.stage_context
        values = loaded.pipeline.canonical(loaded.start, loaded.space, record.candidate, context)
        artifact = loaded.pipeline.run(loaded.start, values, context)
        theirs, ours = times_ms(fastest.artifact, artifact, loaded.splits.validation, 4 * SECONDS)
        accuracy = top1(artifact, loaded.splits.test)
        print(
            f"  trial {record.number}: {seconds:.1f} s, {accuracy:.2f} %, {ours / theirs:.3f} x the loop's fastest"
        )
        if ours <= FASTEST * theirs and accuracy >= least - POINTS:
            return seconds
    return None


def main() -> None:
    """Prints the loop's result, every study's and the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument(
        "--quick", action="store_true", help="loop over the first types only, the usual ones on x86"
    )
    parser.add_argument("--loop-only", action="store_true", help="no paredown")
    parser.add_argument("overrides", nargs="*", help="more for paredown, e.g. sampler=tpe")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # the tool advises before every file
    data = arguments.data.resolve()
    common = [
        *("model=resnet20", f"model.checkpoint={data}/weights/resnet20-12fca82f.th"),
        *("task=cifar10", f"task.root={data}/cifar10", "task.calibration=300", "task.validation=2000"),
        *("device=[host]", "space.quantize.calibration_images=300", f"study.n_trials={arguments.trials}"),
        *("tracker=none", "study.name=forms_job", *SPACE, *arguments.overrides),
    ]
    loaded = load(compose(common), lambda text: None)
    float_top1 = top1(loaded.start, loaded.splits.test)
    forms, loop_s, failed = plain_loop(loaded, TYPES[:1] if arguments.quick else TYPES)
    by_latency = sorted(forms, key=lambda form: form.latency_ms)
    fastest = next(f for f in by_latency if top1(f.artifact, loaded.splits.test) >= float_top1 - POINTS)
    slowest = max(forms, key=lambda form: form.latency_ms)
    print(
        f"float {float_top1:.2f} %; plain loop: {len(forms)} forms and {failed} that cannot run, {loop_s:.1f} s"
    )
    print(
        f"fastest within {POINTS} points: {fastest.latency_ms:.3f} ms, {fastest.name}; slowest {slowest.latency_ms:.3f} ms"
    )
    if arguments.loop_only:
        return
    seconds: list[float] = []
    for seed in range(arguments.seeds):
        folder = Path(tempfile.mkdtemp()) / "study"
        after = found_after(study(common, folder, seed), loaded, fastest, float_top1)
        print(f"  found after {'never' if after is None else f'{after:.1f} s'}")
        seconds.append(float("inf") if after is None else after)
    print(
        f"seconds until found: median {statistics.median(seconds):.1f}, all {[round(s, 1) for s in seconds]}"
    )


if __name__ == "__main__":
    main()
