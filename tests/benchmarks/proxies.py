"""Do zero-cost proxies rank architectures better than their exact counts do?

    python -m tests.benchmarks.proxies --root hapt_windows128.npz --networks 48 --epochs 4

Random architectures of DS-CNN's space on windows of human activities, each trained with the `train` stage's defaults. Printed for two
seeds of the weights: Spearman's rank correlation of each proxy, of MACs and of parameters with the accuracy on the validation people, with
a bootstrap interval over architectures; and of the residual accuracy once a quadratic in log MACs and log parameters is taken out: what a
surrogate that knows the exact counts would learn from a proxy.
"""

import argparse
import time

import numpy as np
import torch
from scipy.stats import spearmanr

from evaluators.task.tasks.task import Task
from search.api import compose
from search.planning.loading import made
from spaces.architectures.families.ds_cnn import DSCNN
from spaces.architectures.stage import ArchitectureStage
from spaces.recovery.train import TrainStage
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact
from tests.benchmarks.zero_cost import PROXIES

CHOICES = {
    "width": [8, 12, 16, 24, 32, 48], "depth": [1, 2, 3, 4], "kernel": [3, 5, 7], "stem_kernel": [3, 5, 9],
    "stem_stride": [1, 2, 4], "halvings": [0, 1, 2], "growth": [1.0, 1.5, 2.0], "block": ["separable", "full"],
}  # fmt: skip


def interval(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> str:
    """Returns Spearman's correlation and its bootstrap interval as text."""
    draws = rng.integers(len(a), size=(1000, len(a)))
    found = [spearmanr(a[d], b[d]).statistic for d in draws]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return f"{spearmanr(a, b).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    """Trains the networks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--root", required=True)
    parser.add_argument("--networks", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = compose(["task=har", f"task.root={given.root}", "model=ds_cnn"])
    splits = made(Task, config.section("task"), "task", config).splits()
    x, y = next(iter(splits.train.batches(64, 64)))
    inputs, labels = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y)
    tests = [(torch.from_numpy(np.ascontiguousarray(a)), b) for a, b in splits.validation.batches(512)]
    stage, train, shape = ArchitectureStage(DSCNN(), 6), TrainStage(1), (6, 128)
    rng = np.random.default_rng(0)
    rows: list[dict[str, float]] = []
    while len(rows) < given.networks:
        values = stage.family.canonical({**stage.defaults(), **{k: c[rng.integers(len(c))] for k, c in CHOICES.items()}})  # fmt: skip
        if stage.family.broken(values, shape) is not None:
            continue
        row = dict(vars(stage.family.counts(values, shape, 6)))
        for seed in (0, 1):
            context = StageContext(None, Cache(), seed, train=splits.train, accelerator="auto")
            start = stage.apply(torch_artifact(torch.nn.Identity(), InputSpec(shape)), values, context)
            for name, proxy in PROXIES.items():
                began = time.perf_counter()
                row[f"{name}_{seed}"] = proxy(start.model, inputs, labels)
                row[f"{name}_s"] = time.perf_counter() - began
            began = time.perf_counter()
            made_ = train.apply(start, {**train.defaults(), "epochs": given.epochs}, context)
            row["training_s"] = time.perf_counter() - began
            with torch.no_grad():
                right = sum(int((made_.model(a).argmax(1).numpy() == b).sum()) for a, b in tests)
            row[f"top1_{seed}"] = 100 * right / len(splits.validation)
        rows.append(row)
        print(len(rows), {k: round(float(v), 2) for k, v in row.items() if k.startswith(("top1", "macs", "training"))}, flush=True)  # fmt: skip
    table = {name: np.array([row[name] for row in rows], float) for name in rows[0]}
    report(table)


def report(table: dict[str, np.ndarray]) -> None:
    """Prints the correlations."""
    rng = np.random.default_rng(1)
    print(f"accuracy of two seeds: {interval(table['top1_0'], table['top1_1'], rng)}; seconds of a training {np.median(table['training_s']):.1f}")  # fmt: skip
    a, b = np.log(table["macs"]), np.log(table["parameters"])
    design = np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], axis=1)
    for seed in (0, 1):
        top1 = table[f"top1_{seed}"]
        rest = top1 - design @ np.linalg.lstsq(design, top1, rcond=None)[0]
        for name in ("macs", "parameters", "peak_activation_bytes", *PROXIES):
            values = table.get(f"{name}_{seed}", table.get(name))
            seconds = f", {np.median(table[f'{name}_s']):.3f} s" if name in PROXIES else ""
            print(f"seed {seed} {name:22s} {interval(values, top1, rng)}; of what counts leave {interval(values, rest, rng)}{seconds}")  # fmt: skip


if __name__ == "__main__":
    main()
