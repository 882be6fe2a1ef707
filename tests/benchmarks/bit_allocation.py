r"""Bits per layer: the exact allocator against uniform, random and greedy allocations of equal size, with real evaluations.

    python tests/benchmarks/bit_allocation.py --data DATA [--network resnet20] [--budgets 3 4 5] [--rounding nearest]
    python tests/benchmarks/bit_allocation.py --solver

DATA holds `cifar10/`, `imagenet_sample/` and `weights/`. First and last layer have 8 bits, the others one of `--widths`;
budgets are average bits per weight of the others; activations have 8 bits. Calibration, sensitivities and greedy search see the
first 512 training images (100 images of the ImageNet sample), never the test images. Compared at each budget:

- the allocator: one solve, losses by `--sensitivity`, measured one layer and width at a time on `--examples` images;
- uniform: all layers at the budget's width (5 bits, say, even if `--widths` lacks it);
- `--random` allocations within 0.02 bits of the budget, drawn with `--seed`: of those in one draw, each layer's width comes from
  one random distribution over the widths;
- greedy by flips: from 8 bits down, the flip of least loss per saved bit of the same table (as AIMET's and Haq's phase of flips);
- greedy by evaluations: from the uniform or next smaller allocation, one flip or swap at a time is kept if the loss on the
  `--examples` calibration images falls; as many evaluations as the table of sensitivities took.

Prints top-1 and the divergence from the float network (nats) on the test images with 95 % intervals (bootstrap over images), how
many random allocations are beaten, and Spearman's correlation of predicted with measured loss over the random ones, with a 95 %
interval (bootstrap over allocations). With a `--rounding` other than nearest, sensitivities are those of gptq.

`--solver` solves 800 layers x 4 widths, and prints the seconds and how far from the limit the solution is.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))  # where the project is not installed

from search.allocators.problem import Problem, average_bits
from search.allocators.program import solve

TASKS = {
    "resnet20": ("cifar10", "weights/resnet20-12fca82f.th"),
    "mobilenet_v2": ("image_folder", "weights/mobilenet_v2-b0353104.pth"),
}
ROOTS = {"cifar10": "cifar10", "image_folder": "imagenet_sample"}
GRID = {"scheme": "symmetric", "granularity": "channel", "clipping": "mse"}
TOLERANCE = 0.02  # bits: MixDQ's
RESAMPLES = 2000

Floats = NDArray[np.float64]
Widths = dict[str, int]


@dataclass(frozen=True)
class Measured:
    """An allocation's results for each test image: whether it is right, and the divergence from the float network."""

    right: NDArray[np.bool_]
    divergence: Floats

    @property
    def loss(self) -> float:
        return float(self.divergence.mean())

    def text(self, float_right: NDArray[np.bool_]) -> str:
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(self.right), size=(RESAMPLES, len(self.right)))
        top1 = np.quantile(self.right[drawn].mean(axis=1), [0.025, 0.975]) * 100
        drop = np.quantile((self.right.astype(float) - float_right)[drawn].mean(axis=1), [0.025, 0.975]) * 100
        return (
            f"top-1 {self.right.mean() * 100:6.2f} % [{top1[0]:.2f}, {top1[1]:.2f}], against float {(self.right.mean() - float_right.mean()) * 100:+.2f} "
            f"[{drop[0]:+.2f}, {drop[1]:+.2f}] points, divergence {self.loss:.4f} nats"
        )


class Network:
    """A network that is quantized and run.

    Args:
        given: The command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        from search.api import compose
        from search.planning.loading import load

        task, checkpoint = TASKS[given.network]
        overrides = [
            f"model={given.network}", f"model.checkpoint={given.data / checkpoint}", f"task={task}",
            f"task.root={given.data / ROOTS[task]}", "space=quantize", "device=stm32h743", f"cache_dir={given.cache}", "tracker=none",
        ]  # fmt: skip
        if task == "cifar10":
            overrides.append("task.calibration=512")
        loaded = load(compose(overrides), lambda text: None)
        self._given, self._stage, self._start = given, loaded.pipeline.stages[0], loaded.start
        self._context, self._splits = loaded.stage_context, loaded.splits
        self.n_calibration = len(loaded.splits.calibration)
        self._test = _batches(loaded.splits.test, given.images)
        self._calibration = _batches(loaded.splits.calibration, given.examples)
        self._known: dict[tuple[tuple[str, int], ...], Measured] = {}

    @cached_property
    def _source(self) -> Any:
        from spaces.quantization.plan.source import Sources

        return Sources().source(self._start, False, self._context)

    @cached_property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        return dict(self._source.weights)

    @cached_property
    def ends(self) -> tuple[str, str]:
        layers = self._source.network.layers
        return layers[0].name, layers[-1].name

    @property
    def inner(self) -> tuple[str, ...]:
        return tuple(name for name in self.weights if name not in self.ends)

    @cached_property
    def float_model(self) -> bytes:
        return self._start.onnx_bytes

    def sensitivities(self, widths: Sequence[int]) -> dict[str, dict[int, float]]:
        from spaces.quantization.sensitivity.layer_losses import measured_layers

        table = dict.fromkeys(self.inner, tuple(widths))
        grid = {**GRID, "rounding": "nearest" if self._given.rounding == "nearest" else "gptq"}
        return measured_layers(
            self._start, self._given.sensitivity, table, self._given.examples, grid, self._context
        )

    def model(self, inner: Mapping[str, int]) -> bytes:
        """Returns the quantized ONNX file."""
        widths = {**inner, **dict.fromkeys(self.ends, 8)}
        values = {"weight_bits": widths, "calibration_images": self.n_calibration, **GRID}
        values |= {"rounding": self._given.rounding, "rounding_steps": self._given.steps}
        return bytes(self._stage.apply(self._start, values, self._context).onnx_bytes)

    def measured(self, inner: Mapping[str, int]) -> Measured:
        """Returns the results on the test images."""
        key = tuple(sorted(inner.items()))
        if key not in self._known:
            logits = self._run(self.model(inner), self._test)
            labels = np.concatenate([labels for _, labels in self._test])
            self._known[key] = Measured(
                logits.argmax(axis=1) == labels, _divergence(self._float_test, logits)
            )
        return self._known[key]

    def calibration_loss(self, inner: Mapping[str, int]) -> float:
        """Returns the divergence on the calibration images of sensitivities."""
        return float(
            _divergence(self._float_calibration, self._run(self.model(inner), self._calibration)).mean()
        )

    @cached_property
    def float_right(self) -> NDArray[np.bool_]:
        return np.asarray(
            self._float_test.argmax(axis=1) == np.concatenate([labels for _, labels in self._test])
        )

    @cached_property
    def _float_test(self) -> Floats:
        return self._run(self.float_model, self._test)

    @cached_property
    def _float_calibration(self) -> Floats:
        return self._run(self.float_model, self._calibration)

    def _run(self, model: bytes, batches: Sequence[tuple[Any, Any]]) -> Floats:
        from spaces.models.onnx.ort_session import ort_session

        session, spec = ort_session(model, threads=self._given.threads), self._start.input
        name = session.get_outputs()[0].name
        return np.concatenate([session.run([name], spec.feeds(x))[0] for x, _ in batches]).astype(np.float64)


def _batches(split: Any, limit: int) -> list[tuple[Any, Any]]:
    return list(split.batches(100, limit))


def _divergence(reference: Floats, logits: Floats) -> Floats:
    from spaces.quantization.sensitivity.output_losses import kl

    return kl(reference, logits)


# -- the allocations ---------------------------------------------------------------------------------------


def mean_bits(allocation: Mapping[str, int], sizes: Mapping[str, int]) -> float:
    return sum(sizes[n] * w for n, w in allocation.items()) / sum(sizes.values())


def random_allocation(
    sizes: Mapping[str, int], widths: Sequence[int], budget: float, rng: np.random.Generator
) -> Widths:
    while True:
        shares = rng.dirichlet(np.ones(len(widths)))
        drawn = dict(zip(sizes, rng.choice(widths, len(sizes), p=shares).tolist(), strict=True))
        if abs(mean_bits(drawn, sizes) - budget) <= TOLERANCE:
            return drawn


def greedy_flips(
    losses: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], budget: float
) -> Widths:
    """From the largest width down, the flip of least loss per saved bit, until the budget is kept."""
    allocation = {n: max(row) for n, row in losses.items()}
    while mean_bits(allocation, sizes) > budget:
        flips = [(n, w) for n, row in losses.items() for w in row if w < allocation[n]]

        def price(flip: tuple[str, int]) -> float:
            name, width = flip
            saved = sizes[name] * (allocation[name] - width)
            return (losses[name][width] - losses[name][allocation[name]]) / saved

        name, width = min(flips, key=price)
        allocation[name] = width
    return allocation


def greedy_evaluations(
    loss: Callable[[Mapping[str, int]], float],
    sizes: Mapping[str, int],
    widths: Sequence[int],
    budget: float,
    n_evaluations: int,
    rng: np.random.Generator,
) -> Widths:
    """From the uniform or next smaller allocation, keeps a change of one or two layers if the loss falls."""
    allocation = dict.fromkeys(sizes, max(w for w in widths if w <= budget))
    best = loss(allocation)
    for _ in range(n_evaluations - 1):
        while True:
            names = rng.choice(list(sizes), int(rng.integers(1, 3)), replace=False)
            changed = {**allocation, **{str(n): int(rng.choice(widths)) for n in names}}
            if changed != allocation and mean_bits(changed, sizes) <= budget:
                break
        found = loss(changed)
        if found < best:
            allocation, best = changed, found
    return allocation


# -- the comparison ----------------------------------------------------------------------------------------


def compare(network: Network, given: argparse.Namespace) -> None:
    began = time.perf_counter()
    sizes = {n: network.weights[n].size for n in network.inner}
    losses = network.sensitivities(given.widths)
    n_table = sum(map(len, losses.values()))
    print(f"{given.network}: {len(sizes)} layers x {len(given.widths)} widths, {given.sensitivity} on {given.examples} images: "
          f"{time.perf_counter() - began:.1f} s; rounding {given.rounding}; seed {given.seed}; {len(network.float_right)} test images, "
          f"float {network.float_right.mean() * 100:.2f} %", flush=True)  # fmt: skip
    for budget in given.budgets:
        rng = np.random.default_rng([given.seed, int(budget * 100)])
        bits = average_bits(sizes, given.widths, budget)
        began = time.perf_counter()
        chosen = solve(Problem(losses, [bits])).widths
        solve_s = time.perf_counter() - began
        rivals = {"allocator": chosen, "greedy by flips": greedy_flips(losses, sizes, budget)}
        if budget == int(budget):
            rivals["uniform"] = dict.fromkeys(sizes, int(budget))
        if given.climb:
            rivals["greedy by evaluations"] = greedy_evaluations(
                network.calibration_loss, sizes, given.widths, budget, n_table, rng
            )
        print(f"\n{budget} bits on average; solved in {solve_s * 1000:.0f} ms", flush=True)
        for name, allocation in rivals.items():
            print(
                f"  {name:22} {mean_bits(allocation, sizes):.3f} bits  {network.measured(allocation).text(network.float_right)}",
                flush=True,
            )
        print(f"    allocator's bits: {' '.join(str(w) for w in chosen.values())}")
        against_random(
            network,
            losses,
            [random_allocation(sizes, given.widths, budget, rng) for _ in range(given.random)],
            chosen,
        )


def against_random(
    network: Network, losses: Mapping[str, Mapping[int, float]], drawn: Sequence[Widths], chosen: Widths
) -> None:
    from scipy.stats import spearmanr

    measured = [network.measured(a) for a in drawn]
    predicted = np.array([sum(losses[n][w] for n, w in a.items()) for a in drawn])
    ours = network.measured(chosen)
    top1 = np.array([m.right.mean() * 100 for m in measured])
    divergence = np.array([m.loss for m in measured])
    print(f"  {len(drawn)} random             top-1 {top1.min():.2f} / {np.median(top1):.2f} / {top1.max():.2f} % (least, median, most), "
          f"divergence {divergence.min():.4f} at least; the allocator has a lower divergence than {int((divergence > ours.loss).sum())}, a higher "
          f"top-1 than {int((top1 < ours.right.mean() * 100).sum())}")  # fmt: skip
    rng = np.random.default_rng(0)
    for name, values in (("divergence", divergence), ("top-1 error", -top1)):
        rho = spearmanr(predicted, values)[0]
        samples = rng.integers(len(drawn), size=(RESAMPLES, len(drawn)))
        again = [spearmanr(predicted[i], values[i])[0] for i in samples if len(set(i.tolist())) > 2]
        low, high = np.nanquantile(again, [0.025, 0.975])
        print(f"  Spearman of predicted loss with {name}: {rho:.3f} [{low:.3f}, {high:.3f}]", flush=True)


def time_solver(seeds: int) -> None:
    """Solves 800 layers x 4 widths for several seeds."""
    widths = (2, 3, 4, 8)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        sizes = {f"layer{i}": int(n) for i, n in enumerate(rng.integers(500, 3_000_000, 800))}
        scale = np.exp(rng.normal(0, 2, 800)) / np.array([float(n) for n in sizes.values()])
        noise = rng.lognormal(0, 0.3, (800, 4))
        losses = {
            name: {w: float(s * 4.0**-w * e) for w, e in zip(widths, row, strict=True)}
            for name, s, row in zip(sizes, scale, noise, strict=True)
        }
        budget = average_bits(sizes, widths, 4.0)
        wall, cpu = time.perf_counter(), time.process_time()
        cost = solve(Problem(losses, [budget])).costs[budget.name]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(
            f"seed {seed}: {wall:.2f} s, {cpu:.2f} s of CPU; {budget.limit - cost:.0f} of {budget.limit:.0f} bits left over"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--solver", action="store_true", help="time the solver, and nothing else")
    parser.add_argument(
        "--data",
        type=lambda text: Path(text).resolve(),
        help="folder with cifar10/, imagenet_sample/, weights/",
    )
    parser.add_argument("--network", choices=TASKS, default="resnet20")
    parser.add_argument("--rounding", default="nearest")
    parser.add_argument("--steps", type=int, default=300, help="steps of learned rounding")
    parser.add_argument("--sensitivity", default="soft_kl")
    parser.add_argument("--budgets", type=float, nargs="+", default=[3.0, 4.0, 5.0])
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 3, 4, 8])
    parser.add_argument(
        "--examples", type=int, default=128, help="calibration images of sensitivities and greedy search"
    )
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--random", type=int, default=30, help="random allocations for each budget")
    parser.add_argument(
        "--climb", action=argparse.BooleanOptionalAction, default=True, help="greedy search by evaluations"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", default="~/.cache/paredown")
    given = parser.parse_args()
    if given.solver:
        time_solver(8)
    elif given.data is None:
        parser.error("--data is required")
    else:
        compare(Network(given), given)


if __name__ == "__main__":
    main()
