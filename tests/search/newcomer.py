"""A study as a newcomer runs it, the questions that they have, and the answers of its files, which the views are compared with.

The questions: which file to ship to which device, its accuracy on unseen data with the interval, its latency, its bytes, why it, and
how to load it.
"""

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

NAME = "first_study"
DEVICES = ("host", "stm32h743")
COMMAND = (
    sys.executable, "-m", "search", f"study.name={NAME}", "study.n_trials=4", f"device=[{','.join(DEVICES)}]", "space=weights_4_8",
    "objective.constraints.drop.max=5 %",
)  # fmt: skip
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_TOLD = re.compile(
    r"(?:Ship trial (?P<number>\d+) to|Keep the float model on) (?P<device>\w+): "
    r"(?P<top1>[\d.]+) % test top1 \[(?P<top1_low>[\d.]+), (?P<top1_high>[\d.]+)\].*? at "
    r"(?P<ms>[\d.]+) ms (?:modelled )?latency \[(?P<ms_low>[\d.]+), (?P<ms_high>[\d.]+)\].*? and "
    r"(?P<size>[\d.]+ \w+) file size"
)
_UNITS = {"bytes": 1, "KiB": 1024, "MiB": 1024**2}


def run(folder):
    """Runs the study in a folder, without a terminal; returns what it printed."""
    ran = subprocess.run(COMMAND, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@dataclass(frozen=True)
class Answer:
    """What is shipped to a device, by `summary.json` and `pareto.csv`."""

    device: str
    number: str
    file: Path
    values: dict[str, float]
    file_bytes: int


def answers(folder):
    """Returns the answer of each device; both files must give the same."""
    study = folder / "outputs" / NAME
    summary = json.loads((study / "summary.json").read_text())
    front = {row["number"]: row for row in csv.DictReader((study / "pareto.csv").read_text().splitlines())}
    found = []
    for device, entry in summary["devices"].items():
        best = entry["best"]
        number, cost = str(best["number"]), best["costs"][device]
        values = {
            "top1": best["metrics"]["test_top1"], "top1_low": best["metrics"]["test_top1_low"],
            "top1_high": best["metrics"]["test_top1_high"],
            "ms": cost["latency_ms"], "ms_low": cost["latency_ms_low"], "ms_high": cost["latency_ms_high"],
        }  # fmt: skip
        row = front[number]
        assert float(row["metric.test_top1"]) == values["top1"]
        assert float(row[f"cost.{device}.latency_ms"]) == values["ms"]
        file = study / "models" / f"trial_{number}.onnx"
        assert best["metrics"]["file_bytes"] == float(row["metric.file_bytes"])
        assert file.is_file()
        found.append(Answer(device, number, file, values, best["metrics"]["file_bytes"]))
    assert {a.device for a in found} == set(DEVICES)
    return found


def is_rounded(text, value):
    """Whether a number as text is the value, rounded to as many digits as the text has."""
    decimals = len(text.partition(".")[2])
    return abs(float(text) - value) <= 0.501 * 10**-decimals


def is_size(text, n_bytes):
    """Whether e.g. `30.5 KiB` is so many bytes, rounded."""
    number, unit = text.split()
    return is_rounded(number, n_bytes / _UNITS[unit])


def check_sentences(text, expected):
    """Checks the sentence for each device, in text without line breaks."""
    told = {match["device"]: match for match in _TOLD.finditer(text)}
    assert set(told) == {answer.device for answer in expected}
    for answer in expected:
        sentence = told[answer.device]
        assert (sentence["number"] or "baseline") == answer.number
        for name, value in answer.values.items():
            assert is_rounded(sentence[name], value), (name, sentence[name], value)
        assert is_size(sentence["size"], answer.file_bytes)


def runs(code, folder, *, prelude=""):
    """Runs Python that a view gave in a process of its own; returns what it printed."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{prelude}\n{code}"],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
