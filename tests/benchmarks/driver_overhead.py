"""CPU time and memory that the driver itself takes, per trial, as a study grows.

    python tests/benchmarks/driver_overhead.py [--trials 5000] [--tracker none mlflow] [--storage journal sqlite]

Trials are stubs that take no time (12 knobs, 8 measurements, two objectives, one constraint), run by the serial executor in
the driver; the sampler is Optuna's random one, since a sampler's own model is no overhead of the driver. CPU time is the
process's, with all of its threads (MLflow's writer is one). Each study runs in a process of its own.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from evaluators.base import Measurement
from search.study.study import run_study
from search.study.testing import SilentObserver, analytic_plan
from search.tracking.mlflow_tracker import MlflowTracker
from search.trials.trial import TrialRequest, TrialResult
from spaces.candidate import Candidate
from spaces.digest import digest_of
from spaces.space_config import read_space

_KNOBS = [f"quantize.layer{i}.bits" for i in range(11)]
_WINDOW = 250  # trials before and at n, over which figures are means


@dataclass(frozen=True)
class Stub:
    """Trials that measure nothing, and say what they would."""

    def key(self, candidate: Candidate) -> str:
        """Every candidate is a model of its own."""
        return candidate.digest

    def run(self, request: TrialRequest) -> TrialResult:
        """Returns numbers that follow from the candidate."""
        values = [int(v) for v in request.candidate.values()]
        size, quality = sum(values), 100 - sum(v % 7 for v in values) / 10
        measurements = (
            Measurement("quality", quality, "%", "measured"),
            Measurement("size", float(size), "B", "modelled", "board"),
            *(Measurement(f"extra{i}", size / (i + 1), "", "modelled", "board") for i in range(6)),
        )
        return TrialResult(
            request.id, request.candidate, "measured", measurements=measurements,
            seconds={"quantize": 0.01, "accuracy": 0.02}, artifact_digest=digest_of(values),
        )  # fmt: skip


class Meter(SilentObserver):
    """Notes CPU time and memory after each trial."""

    def __init__(self) -> None:
        super().__init__()
        self._process = psutil.Process()
        self.cpu_s, self.rss = [], []

    def trial(self, record, results) -> None:
        """Notes both."""
        self.cpu_s.append(time.process_time())
        self.rss.append(self._process.memory_info().rss if record.number % 50 == 0 else self.rss[-1])


def measure(n_trials: int, tracker: str, storage: str) -> None:
    """Runs one study and prints a line for each 1,000 trials."""
    space = read_space({**{knob: {"int": [1, 8]} for knob in _KNOBS}, "x": {"int": [0, 10**6]}})
    with tempfile.TemporaryDirectory() as folder:
        changes = (
            {"tracker": MlflowTracker(f"sqlite:///{folder}/mlflow.db", close_timeout_s=600)}
            if tracker == "mlflow"
            else {}
        )
        url = None if storage == "journal" else f"sqlite:///{folder}/study.db"
        meter = Meter()
        plan = analytic_plan(
            Path(folder) / "study",
            space=space,
            runner=Stub(),
            n_trials=n_trials,
            constraints=(),
            storage=url,
            **changes,
        )
        began = time.process_time()
        run_study(plan, meter)
        total = time.process_time() - began
    for n in sorted({min(1000, n_trials), *range(1000, n_trials + 1, 1000), n_trials}):
        first = max(0, n - 1 - _WINDOW)
        cpu_ms = 1000 * (meter.cpu_s[n - 1] - meter.cpu_s[first]) / (n - 1 - first)
        grown = (meter.rss[n - 1] - meter.rss[min(100, n - 1)]) / 2**20
        print(
            f"{storage:8} {tracker:7} {n:6} trials  {cpu_ms:6.2f} ms/trial  RSS +{grown:6.1f} MiB since trial 100"
        )
    print(
        f"{storage:8} {tracker:7} {n_trials:6} trials  {1000 * total / n_trials:6.2f} ms/trial over the whole study, its end included"
    )


def main() -> None:
    """Runs each study in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--tracker", nargs="+", default=["none", "mlflow"])
    parser.add_argument("--storage", nargs="+", default=["journal"])
    parser.add_argument("--one", action="store_true", help="run the study in this process")
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.trials, arguments.tracker[0], arguments.storage[0])
        return
    for storage in arguments.storage:
        for tracker in arguments.tracker:
            command = [sys.executable, __file__, "--one", f"--trials={arguments.trials}"]
            subprocess.run([*command, "--tracker", tracker, "--storage", storage], check=True)


if __name__ == "__main__":
    main()
