"""The front of pruning and quantizing together, against either alone, at the same number of trials.

Run from the root of the repository::

    python tests/benchmarks/prune_and_quantize.py OUT --trials 24 --seeds 3
    python tests/benchmarks/prune_and_quantize.py OUT --trials 24 --seeds 3 --data ../shared/data

Three studies for each seed differ in their stages and knobs alone: the same network, task, device, objectives (accuracy, modelled
latency and bytes of file), constraint and sampler. Without `--data` the network is the embedded default's; with it a CIFAR-10
ResNet-20. A killed study is resumed; a finished one is read.

Prints the hypervolumes of the three fronts, all against the same uncompressed model, by the validation split, which the search
saw, and by the test split, which it did not; the means with 95 % intervals over seeds; and each front.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy import stats

from search import run
from search.record.hypervolume import Volume
from search.record.results import Objective, StudyRecord, TrialRecord

KINDS = {
    "prune": ("[prune,recover,export]", ["space=prune"]),
    "quantize": (
        "[export,quantize]",
        ["space=prune_quantize", "~space.prune", "~space.recover", "~space.constraints"],
    ),
    "both": ("[prune,recover,export,quantize]", ["space=prune_quantize"]),
}
DEVICE = "stm32h743"


def overrides(kind: str, seed: int, given: argparse.Namespace) -> list[str]:
    """Returns the command line of one study."""
    stages, space = KINDS[kind]
    name = f"{'resnet20' if given.data else 'digits'}-{kind}-{seed}"
    found = [
        f"stage={stages}", *space, f"device={DEVICE}", "evaluator=[accuracy,cost]", "tracker=none", "knowledge=none",
        f"seed={seed}", f"study.name={name}", f"study.dir={given.out}/{name}", f"study.n_trials={given.trials}",
        f"cache_dir={given.out}/cache", f"objective.constraints.drop.max={given.drop}", *given.override,
    ]  # fmt: skip
    found += [f"stage.{stage}.threads={given.threads}" for stage in ("prune", "recover") if stage in stages]
    if given.data:
        found += [
            "model=resnet20", f"model.checkpoint={given.data}/weights/resnet20-12fca82f.th",
            "task=cifar10", f"task.root={given.data}/cifar10", "task.calibration=1000", "task.validate_on=test",
        ]  # fmt: skip
    return found


def volumes(results: StudyRecord) -> tuple[float, float]:
    """Returns the hypervolume of the front by the validation split and by the test split."""
    front = [results.trial(number) for number in results.front]
    metric = results.objectives[0]
    unseen = Objective(metric.column.replace("metric.", "metric.test_"), metric.direction)
    baseline = {m.column: m.value for m in results.baseline}
    # what the constraint allows counts from the baseline of either split
    limits = [
        replace(c, column=c.column.replace("metric.", "metric.test_"))
        if c.column == f"{metric.column}_drop"
        else c
        for c in results.constraints
    ]
    seen = Volume(results.objectives, results.constraints, baseline).of(front)
    return seen, Volume((unseen, *results.objectives[1:]), limits, baseline).of(front)


def line(record: TrialRecord) -> str:
    """Returns a model of the front as a line."""
    values = record.values()
    knobs = ", ".join(f"{path.split('.')[1]}={value}" for path, value in record.candidate.items())
    return (
        f"    {values['metric.test_top1']:6.2f} %  {values[f'cost.{DEVICE}.latency_ms']:8.2f} ms  "
        f"{values['metric.file_bytes'] / 1024:7.1f} KiB  {knobs}"
    )


def interval(values: Sequence[float]) -> str:
    """Returns a mean with its 95 % interval over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.4f}"
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]"


def main(arguments: Sequence[str]) -> None:
    """Runs the studies and prints their hypervolumes and fronts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--drop", type=float, default=15.0, help="points that a model may lose")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--override", nargs="*", default=[], help="more of the command line, for all studies")
    given = parser.parse_args(arguments)
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in given.kinds}
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for kind in given.kinds:
            results = run(overrides(kind, seed, given), console=Console(quiet=True))
            found[kind].append(volumes(results))
            seen, unseen = found[kind][-1]
            states = ", ".join(f"{n} {state}" for state, n in results.states().items() if n)
            print(
                f"seed {seed}, {kind}: hypervolume {seen:.4f}, test split {unseen:.4f}; {states}; {results.wall_s:.0f} s"
            )
            print("\n".join(line(results.trial(n)) for n in results.front), flush=True)
    print(
        f"\n{given.trials} trials, {given.seeds} seeds; mean hypervolume with 95 % interval: validation; test split"
    )
    for kind, pairs in found.items():
        print(f"{kind:>9}: {interval([a for a, _ in pairs])}; {interval([b for _, b in pairs])}")


if __name__ == "__main__":
    main(sys.argv[1:])
