"""Whether the pick stands on a loaded machine: the default study's front timed again 20 times beside other work.

Run from the root of the repository, after a study (`paredown` in a scratch folder), or several with other seeds, whose fronts are
taken together::

    python tests/benchmarks/pick_timing.py SCRATCH/outputs/tones_board --repeats 20

First a careful benchmark times the front's files and the float model in turns, 100 rounds, each in a new session, without the
added load. Then, in every repeat, two processes compute beside the timing, on and off for random times. Each
repeat times the front as a study does after its search (`search.study.race`) and takes the pick (`search.record.picks`), once by
the study's accuracies, once as if all models were equally accurate, so that any of those within 3 % may be taken. For comparison
the same is done with one timing of each model beside the float model, as in a trial. A repeat is
wrong if the careful benchmark finds the pick slower than another model of the front, at the lower end of the 99 % interval
of their ratio, by more than what is stated of the pick: the tie of 3 %, or the interval of its ratio to the fastest if that
goes further.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from evaluators.base import EvaluationContext, Measurement
from evaluators.cost.latency.measured import LatencyEvaluator, latency_measurements, runner, take_turns
from evaluators.cost.latency.order import TIE, ratio
from search.api import compose
from search.cli.app import FIRST_STUDY
from search.planning.loading import load
from search.record.front import TIMES
from search.record.picks import cost_ratio, picks
from search.record.results import BASELINE, Constraint, DevicePick, Objective, TrialRecord, model_path
from search.study.race import FIRST_ROUNDS, Times, race, without_load
from spaces.candidate import Candidate
from spaces.stages.artifact import Artifact, Split

LATENCY = "cost.host.latency_ms"
AXES = (Objective("metric.top1", "maximize"), Objective(LATENCY, "minimize"))
ANY = (Constraint("drop", "metric.top1_drop", "max", 100.0),)  # the cheapest of all is wanted
EVALUATOR = LatencyEvaluator()


@dataclass(frozen=True)
class Front:
    """The models of a front, with the float one, by number; their accuracies; and data to run them on."""

    models: Mapping[int, Artifact]
    top1: Mapping[int, float]
    context: EvaluationContext

    @property
    def split(self) -> Split:
        """The examples."""
        return self.context.split

    def time_again(self, numbers: Sequence[int], n_rounds: int, offset: int) -> list[list[float]]:
        """Times models in turns."""
        artifacts = [self.models[n] for n in numbers]
        return EVALUATOR.time_again(artifacts, self.context, n_rounds, offset).tolist()

    def records(
        self, times: Mapping[int, Sequence[float]] | None = None, *, equal: bool = False
    ) -> list[TrialRecord]:
        """Returns the models as trials; with `equal` all have the same accuracy."""
        alike = without_load(dict(times)) if times else {n: [1.0] for n in self.models}
        return [self._record(n, alike[n], equal) for n in self.models]

    def _record(self, number: int, own: Sequence[float | None], equal: bool) -> TrialRecord:
        known = [t for t in own if t]
        top1 = Measurement("top1", 0.0 if equal else self.top1[number], "%", "measured")
        measured = (top1, *latency_measurements(known, known, "host"))
        return TrialRecord(number, "complete", "", Candidate({"n": number}), measured, {TIMES: list(own)})


def read(folders: Sequence[Path], overrides: Sequence[str]) -> Front:
    """Reads the files of the fronts of studies with one task; the float model comes from the config.

    A model's number is that of its trial, plus 1000 for each folder before its own.
    """
    loaded = load(compose(list(overrides)), lambda text: None)
    models, top1 = {BASELINE: loaded.dense}, {BASELINE: _baseline_top1(folders[0])}
    for offset, folder in enumerate(folders):
        table = pd.read_csv(folder / "pareto.csv", dtype={"number": str})
        for number, value in zip(table["number"], table["metric.top1"], strict=True):
            if number != "baseline":
                file = model_path(folder, int(number)).read_bytes()
                models[1000 * offset + int(number)] = Artifact.onnx(file, loaded.dense.input)
                top1[1000 * offset + int(number)] = float(value)
    context = EvaluationContext(loaded.splits.validation, None, None)  # type: ignore[arg-type]
    return Front(models, top1, context)


def _baseline_top1(folder: Path) -> float:
    summary = json.loads((folder / "summary.json").read_text())
    return float(summary["baseline"]["metrics"]["top1"])


def compute(seed: int, stop: "multiprocessing.synchronize.Event") -> None:
    """Computes and rests for random times of up to 3 and 2 s."""
    rng = np.random.default_rng(seed)
    matrix = rng.random((600, 600))
    while not stop.is_set():
        until = time.monotonic() + rng.uniform(0.05, 3.0)
        while time.monotonic() < until and not stop.is_set():
            matrix = matrix @ matrix / 300
            matrix = matrix / matrix.max()
        stop.wait(rng.uniform(0.0, 2.0))


@contextlib.contextmanager
def other_work(n_processes: int, seed: int) -> Iterator[None]:
    """Runs processes that compute on and off."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    workers = [context.Process(target=compute, args=(100 * seed + i, stop)) for i in range(n_processes)]
    for worker in workers:
        worker.start()
    time.sleep(2.0)  # numpy is loaded
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def timed_once(front: Front) -> dict[int, list[float]]:
    """Returns one timing of each model beside the float model, in blocks of one session, as in a trial.

    They are divided by the float model's time beside them, and multiplied by the median of all of these.
    """
    pairs = {}
    for number, artifact in front.models.items():
        runs = [runner(a, front.split, 1) for a in (front.models[BASELINE], artifact)]
        timings = take_turns(runs[0], runs[1], EVALUATOR.rounds, EVALUATOR.max_seconds)
        pairs[number] = float(np.median(timings.first_ms)), float(np.median(timings.second_ms))
    usual = float(np.median([beside for beside, _ in pairs.values()]))
    return {number: [own / beside * usual] for number, (beside, own) in pairs.items()} | {BASELINE: [usual]}


def errors(careful: Times, records: Sequence[TrialRecord]) -> list[float]:
    """Returns by how much each model's time over the float model's is off, relative to the careful benchmark's."""
    values = {r.number: r.values()[LATENCY] for r in records}
    found = {n: ratio(row, careful[BASELINE]) for n, row in careful.items()}
    return [
        abs(values[n] / values[BASELINE] / true.median - 1)
        for n, true in found.items()
        if true is not None and n != BASELINE
    ]


def pick_of(records: Sequence[TrialRecord]) -> DevicePick:
    """Returns the pick for this machine."""
    baseline = next(r for r in records if r.number == BASELINE)
    return picks(records, AXES, ANY, ["host"], baseline.values())[0]


def slower(careful: Times, number: int, *, by_end: bool = True) -> float:
    """Returns how much slower a model surely is than the fastest other one: the highest lower end of their ratios."""
    found = [ratio(careful[number], row) for n, row in careful.items() if n != number]
    return max((r.low if by_end else r.median for r in found if r is not None), default=1.0)


def stated(records: Sequence[TrialRecord], pick: DevicePick) -> float:
    """Returns by how much the pick may be slower than the fastest, as the study states it."""
    by_number = {r.number: r for r in records}
    cheapest = min(records, key=lambda r: r.values()[LATENCY])
    return max(1 + TIE, cost_ratio(by_number[pick.number], cheapest, LATENCY).high)


def main() -> None:
    """Prints the careful benchmark, a line per repeat, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument(
        "--overrides",
        nargs="+",
        default=list(FIRST_STUDY),
        help="the studies' command (default: %(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--careful-rounds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 2)
    given = parser.parse_args()
    front = read(given.folders, given.overrides)
    numbers = list(front.models)
    rows = front.time_again(numbers, given.careful_rounds, 0)
    careful: Times = {n: list(row) for n, row in zip(numbers, rows, strict=True)}
    for number, row in careful.items():
        print(
            f"careful {number:3d}: {np.median(row):.5f} ms, slower than the fastest by {slower(careful, number):.3f} to "
            f"{slower(careful, number, by_end=False):.3f}, top1 {front.top1[number]:.2f}",
            flush=True,
        )
    kinds = ("race, study's accuracies", "race, equal accuracies", "timed once, study's", "timed once, equal")
    off: dict[str, list[float]] = {kind: [] for kind in kinds}
    wrong, chosen = dict.fromkeys(kinds, 0), {kind: set[int]() for kind in kinds}
    for repeat in range(given.repeats):
        with other_work(given.processes, repeat):
            began = time.monotonic()
            raced = race(front.records(), AXES, front.time_again)
            seconds = time.monotonic() - began
            once = timed_once(front)
        for kind, times, equal in zip(kinds, (raced, raced, once, once), (False, True) * 2, strict=True):
            records = front.records(times, equal=equal)
            pick = pick_of(records)
            allowed = stated(records, pick)
            chosen[kind].add(pick.number)
            off[kind] += errors(careful, records)
            is_wrong = slower(careful, pick.number) > allowed
            wrong[kind] += is_wrong
            print(
                f"{repeat:2d} {kind}: {pick.number}, stated up to {allowed:.3f}, rivals {pick.rivals}"
                f"{', WRONG' if is_wrong else ''}",
                flush=True,
            )
        n_rounds = len(next(iter(raced.values())))
        print(
            f"{repeat:2d} {n_rounds} rounds (at least {FIRST_ROUNDS}), {seconds:.1f} s, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    for kind in kinds:
        typical, high = np.percentile(off[kind], [50, 95])
        print(
            f"{kind}: {wrong[kind]} of {given.repeats} wrong; picked {sorted(chosen[kind])}; times over float are off by "
            f"{100 * typical:.2f} % (median), {100 * high:.2f} % (95th percentile), {100 * max(off[kind]):.1f} % (most)"
        )


if __name__ == "__main__":
    main()
