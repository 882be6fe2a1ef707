"""Trials an hour by executor, and how busy many slots are.

Run from the root of the repository::

    python tests/benchmarks/executors.py               # serial, processes and ray on trials that compute
    python tests/benchmarks/executors.py --slots 256   # Ray actors without CPUs, with trials that sleep

A study of a stub: a trial computes in one thread for `--seconds` of processor time, or sleeps. The rate is counted from when every
worker has returned a result until none is left to be handed out, so that neither the start nor the end counts; the start is printed apart. Executors take turns, `--rounds` times.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evaluators.base import Measurement
from search.executors.base import Executor
from search.executors.processes import ProcessesExecutor
from search.executors.ray import RayExecutor
from search.executors.serial import SerialExecutor
from search.record.results import TrialRecord
from search.study.study import run_study
from search.study.testing import SilentObserver, analytic_plan
from search.trials.trial import TrialRequest, TrialResult
from spaces.candidate import Candidate
from spaces.digest import digest_of
from spaces.space_config import read_space

os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@dataclass(frozen=True)
class Stub:
    """Trials that compute, or sleep.

    Attributes:
        seconds: Processor time of a trial, or how long it sleeps.
        sleeps: Whether it sleeps.
    """

    seconds: float
    sleeps: bool = False

    def key(self, candidate: Candidate) -> str:
        """The candidate's digest."""
        return candidate.digest

    def run(self, request: TrialRequest) -> TrialResult:
        """Computes or sleeps."""
        began = time.perf_counter()
        if self.sleeps:
            time.sleep(self.seconds)
        else:
            until = time.thread_time() + self.seconds
            while time.thread_time() < until:
                sum(i * i for i in range(10_000))
        measured = (
            Measurement("quality", float(request.id), "", "measured"),
            Measurement("size", 1.0, "", "modelled", "board"),
            Measurement("pid", float(os.getpid()), "", "measured"),
        )
        return TrialResult(
            request.id, request.candidate, "measured", measurements=measured,
            wall_s=time.perf_counter() - began, artifact_digest=digest_of(request.candidate.digest),
        )  # fmt: skip


@dataclass(frozen=True)
class Rate:
    """How fast a study was.

    Attributes:
        per_hour: Trials an hour once all workers run.
        n: Trials that were counted.
        up_s: Seconds from the start until each worker has returned a result.
        busy: Share of the slots' time, once up, in which trials ran.
        driver_s: Processor time of the study's process per trial.
    """

    per_hour: float
    n: int
    up_s: float
    busy: float
    driver_s: float


def rate(executor: Executor, runner: Stub, n_trials: int, slots: int) -> Rate:
    """Runs a study and returns how fast it was."""
    ends: list[float] = []
    seconds: list[float] = []
    pids: list[float] = []

    def note(record: TrialRecord) -> None:
        ends.append(time.perf_counter())
        seconds.append(record.wall_s - record.seconds.get("propose", 0.0))
        pids.extend(m.value for m in record.measurements if m.name == "pid")

    with tempfile.TemporaryDirectory() as folder:
        plan = analytic_plan(
            Path(folder), runner=runner, executor=executor, n_trials=n_trials,
            space=read_space({"x": {"int": [0, 10_000_000]}, "y": [0], "z": ["a"]}), constraints=(),
        )  # fmt: skip
        began, cpu = time.perf_counter(), time.process_time()
        run_study(plan, SilentObserver(note))
    in_process = runner.seconds if executor.in_process and not runner.sleeps else 0.0
    first, last = max(pids.index(pid) for pid in set(pids)), n_trials - slots
    if len(set(pids)) < slots or first >= last:
        raise SystemExit(f"{len(set(pids))} of {slots} workers ran within {n_trials} trials: more --trials")
    span, n = ends[last] - ends[first], last - first
    return Rate(
        3600 * n / span,
        n,
        ends[first] - began,
        sum(seconds[first + 1 : last + 1]) / (span * slots),
        (time.process_time() - cpu) / n_trials - in_process,
    )


def compare(seconds: float, n_trials: int, rounds: int, cores: int) -> None:
    """Prints trials an hour of the executors, in turns."""
    made: dict[str, Callable[[], Executor]] = {
        "serial": SerialExecutor,
        f"processes, {cores} workers": lambda: ProcessesExecutor(workers=cores),
        f"ray, {cores} workers": lambda: RayExecutor(address="local", workers=cores),
    }
    rates: dict[str, list[Rate]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, executor in made.items():
            slots = 1 if name == "serial" else cores
            rates[name].append(rate(executor(), Stub(seconds), n_trials, slots))
            print(f"{name:24} {rates[name][-1].per_hour:8.0f} an hour, up after {rates[name][-1].up_s:.1f} s")
    names = list(rates)
    for name, other in ((names[1], names[0]), (names[2], names[0]), (names[2], names[1])):
        ratios = [a.per_hour / b.per_hour for a, b in zip(rates[name], rates[other], strict=True)]
        print(
            f"{name} / {other}: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def many(slots: int, seconds: float, n_trials: int) -> None:
    """Prints how busy many Ray actors are that need no CPU."""
    executor = RayExecutor(address="local", workers=slots, cpus_per_trial=0)
    found = rate(executor, Stub(seconds, sleeps=True), n_trials, slots)
    print(
        f"{slots} slots, trials of {seconds:g} s: busy {100 * found.busy:.1f} %, {found.per_hour:.0f} trials an hour over {found.n} trials, "
        f"up after {found.up_s:.0f} s, {1000 * found.driver_s:.0f} ms of the study's processor time per trial"
    )


def main() -> None:
    """Reads the command line and runs a comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--trials", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--slots", type=int, default=None)
    asked = parser.parse_args()
    if asked.slots is None:
        compare(asked.seconds or 1.0, asked.trials or 40, asked.rounds, asked.cores)
    else:
        many(asked.slots, asked.seconds or 15.0, asked.trials or 5 * asked.slots)


if __name__ == "__main__":
    import executors  # workers find the stub in the module of this name

    executors.main()
