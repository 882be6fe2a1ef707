"""From sensor readings to an int8 network for 64 KiB of flash and 16 KiB of memory, for several divisions of the people.

Run from the root of the repository::

    python tests/benchmarks/mcu_har.py --data ../shared/data/har/hapt_windows128.npz --splits 3

Every study starts from nothing: a cache of its own, so that the dense network is trained too. People differ more than windows
of one person do: what holds for one division of 30 people into training, validation and test need not hold for another.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DEVICE = "stm32g0b1_hale"
HEAD = (
    "split  seconds  dense test top1  shipped test top1  change             flash KiB  memory KiB  MACs kept"
)


def main() -> None:
    """Reads the command line, runs the studies and prints a row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="hapt_windows128.npz")
    parser.add_argument("--splits", type=int, default=3, help="divisions of the people")
    parser.add_argument("--trials", type=int, default=32)
    given = parser.parse_args()
    print(HEAD)
    for split_seed in range(given.splits):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            summary = study(given.data.resolve(), split_seed, given.trials, Path(folder))
            print(row(summary, split_seed, time.perf_counter() - began), flush=True)


def study(data: Path, split_seed: int, n_trials: int, folder: Path) -> dict[str, Any]:
    """Runs `experiment=mcu_har` as a user would; returns its summary."""
    command = [
        *(sys.executable, "-m", "search", "experiment=mcu_har", f"task.root={data}", "tracker=none"),
        *(f"task.split_seed={split_seed}", f"study.n_trials={n_trials}", f"study.dir={folder}/study"),
        *(f"cache_dir={folder}/cache", "knowledge=none"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    summary: dict[str, Any] = json.loads((folder / "study/summary.json").read_text())
    return summary


def row(summary: dict[str, Any], split_seed: int, seconds: float) -> str:
    """Returns the chosen network beside the dense one."""
    dense, best = summary["baseline"]["metrics"], summary["best"]
    metrics, costs = best["metrics"], best["costs"][DEVICE]
    low, high = -metrics["test_top1_drop_high"], -metrics["test_top1_drop_low"]
    change = f"{-metrics['test_top1_drop']:+.2f} [{low:+.2f}, {high:+.2f}]"
    return (
        f"{split_seed:5d}  {seconds:7.0f}  {dense['test_top1']:15.2f}  {metrics['test_top1']:17.2f}  {change:20s} "
        f"{costs['flash_bytes'] / 1024:7.2f}  {costs['peak_sram_bytes'] / 1024:10.2f}  {best['knobs']['prune.keep']:9g}"
    )


if __name__ == "__main__":
    main()
