"""A numeric table of 19 knobs: CIFAR-10 top-1 of ResNet-20 by the share of filters that each convolution loses.

Run from the root of the repository, best on a machine with a GPU::

    python tests/benchmarks/pruning_table.py --data ../shared/data --to pruning.csv --rows 2000

In each convolution the filters with the smallest L1 norm (Li et al. 2017, arXiv 1608.08710) are set to zero, with their
BatchNorm; the network is trained for `--steps` steps on training images and judged by the 10,000 test images. A third of the
rows has independent ratios, a third a common ratio with deviations, a third are children of the best rows so far (of
`score`). Columns: `knob.ratio[LAYER]`, `metric.top1`, `metric.macs` (the share of multiply-accumulates that is left),
`metric.score` (top-1, less a point for every percent of `macs` beyond `--keep`).

`--repeats` rows are measured three times with other seeds of training; the standard deviation of their top-1 is the
table's noise, and is printed.
"""

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Array = NDArray[np.float64]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOST = 0.8
BATCH, TEST_BATCH = 128, 2_000
LEARNING_RATE, MOMENTUM, DECAY = 0.02, 0.9, 1e-4
PAD = 4
PARENTS = 40


@dataclass(frozen=True)
class Layer:
    """One convolution with its BatchNorm.

    Attributes:
        name: Its name in the network.
        conv: The convolution.
        norm: The BatchNorm after it.
        area: Elements of a channel of its output.
        source: Positions of the layers whose outputs are summed to its input; empty for the image.
    """

    name: str
    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    area: int
    source: Sequence[int]


class Network:
    """ResNet-20 on one device, which is cut, trained and judged; the images stay on the device.

    On a GPU a step of training and a batch of judging are recorded once as CUDA graphs: such small kernels take less time
    than their launches.

    Args:
        data: A folder with `cifar10/` and `weights/`.
        device: Of torch.
    """

    def __init__(self, data: Path, device: str) -> None:
        from spaces.models.base import LoadContext
        from spaces.models.zoo.cifar_resnet import CifarResNetModel

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        source = CifarResNetModel(20, str(data / "weights/resnet20-12fca82f.th"))
        self.model: nn.Module = source.load(LoadContext(None, data, 0)).model.to(device)  # type: ignore[union-attr]
        self._state = {k: v.clone() for k, v in self.model.state_dict().items()}
        train_x, self._train_y = _images(data / "cifar10/train_20k.npz", device)
        self._train_x = functional.pad(train_x, (PAD,) * 4)
        self._test_x, self._test_y = _images(data / "cifar10/test.npz", device)
        self.layers = _layers(self.model)
        self._weights = list(self.model.parameters())
        self._masked = [w for at in self.layers for w in (at.conv.weight, at.norm.weight, at.norm.bias)]
        self._masks = [torch.ones_like(w) for w in self._masked]
        self._velocity = [torch.zeros_like(w) for w in self._weights]
        self._chosen = torch.zeros(BATCH, dtype=torch.long, device=device)
        self._shift = torch.zeros(2, dtype=torch.long, device=device)
        self._flip = torch.zeros((), dtype=torch.bool, device=device)
        self._rate = torch.zeros((), device=device)
        self._judged = torch.zeros_like(self._test_x[:TEST_BATCH])
        self._right = torch.zeros(TEST_BATCH, dtype=torch.long, device=device)
        self._area = torch.arange(32, device=device)
        self._device = device
        self._step = _recorded(self._one_step, device, self.model.train())
        self._judge = _recorded(self._one_batch, device, self.model.eval())

    def macs(self, ratios: Sequence[float]) -> float:
        """Returns the share of multiply-accumulates that is left: filters, and inputs that any filter writes."""
        kept = [np.ones(layer.conv.out_channels, bool) for layer in self.layers]
        for mask, cut in zip(kept, self._cuts(ratios), strict=True):
            mask[cut.cpu().numpy()] = False
        total = left = 0.0
        for layer, mask in zip(self.layers, kept, strict=True):
            n_in, n_out = layer.conv.in_channels, layer.conv.out_channels
            alive = np.zeros(n_in, bool)
            for at in layer.source:  # a shortcut pads with as many zeros before as after
                before = (n_in - len(kept[at])) // 2
                alive[before : before + len(kept[at])] |= kept[at]
            n_alive = int(alive.sum()) if layer.source else n_in
            total += 9 * layer.area * n_in * n_out
            left += 9 * layer.area * n_alive * int(mask.sum())
        return left / total

    @torch.no_grad()
    def measure(self, ratios: Sequence[float], steps: int, seed: int) -> float:
        """Returns top-1 in percent of the cut network after `steps` steps of training."""
        self.model.load_state_dict(self._state)
        torch._foreach_zero_(self._velocity)
        for mask in self._masks:
            mask.fill_(1.0)
        for at, cut in enumerate(self._cuts(ratios)):
            for mask in self._masks[3 * at : 3 * at + 3]:
                mask[cut] = 0.0
        torch._foreach_mul_(self._masked, self._masks)
        self._train(steps, seed)
        self.model.eval()
        right = torch.zeros((), dtype=torch.long, device=self._device)
        for x, y in zip(*(torch.split(a, TEST_BATCH) for a in (self._test_x, self._test_y)), strict=True):
            self._judged.copy_(x)
            self._judge()
            right += (self._right == y).sum()
        return 100 * int(right) / len(self._test_y)

    def _cuts(self, ratios: Sequence[float]) -> list[Tensor]:
        """Returns the positions of the filters that each convolution loses; one is always kept."""
        cuts = []
        for layer, ratio in zip(self.layers, ratios, strict=True):
            norms = self._state[f"{layer.name}.weight"].abs().sum(dim=(1, 2, 3))
            n_cut = min(round(ratio * len(norms)), len(norms) - 1)
            cuts.append(norms.argsort()[:n_cut])
        return cuts

    def _train(self, steps: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        chosen = torch.from_numpy(rng.integers(len(self._train_y), size=(steps, BATCH))).to(self._device)
        shifts = torch.from_numpy(rng.integers(2 * PAD + 1, size=(steps, 2))).to(self._device)
        flips = torch.from_numpy(rng.random(steps) < 0.5).to(self._device)
        rates = LEARNING_RATE * (1 + np.cos(np.pi * np.arange(steps) / max(steps, 1))) / 2
        self.model.train()
        for at in range(steps):
            self._chosen.copy_(chosen[at])
            self._shift.copy_(shifts[at])
            self._flip.copy_(flips[at])
            self._rate.fill_(float(rates[at]))
            self._step()

    def _one_step(self) -> None:
        """One step of SGD with momentum, all images of the batch shifted and flipped alike."""
        x = self._train_x[self._chosen]
        x = x[:, :, self._area + self._shift[0]][:, :, :, self._area + self._shift[1]]
        x = torch.where(self._flip, x.flip(3), x)
        with torch.enable_grad():
            loss = functional.cross_entropy(self.model(x), self._train_y[self._chosen])
            gradients = torch.autograd.grad(loss, self._weights)
        with torch.no_grad():
            torch._foreach_mul_(self._velocity, MOMENTUM)
            torch._foreach_add_(self._velocity, list(gradients))
            torch._foreach_add_(self._velocity, [w.detach() for w in self._weights], alpha=DECAY)
            torch._foreach_sub_(self._weights, torch._foreach_mul(self._velocity, self._rate))
            torch._foreach_mul_(self._masked, self._masks)

    @torch.no_grad()
    def _one_batch(self) -> None:
        self._right.copy_(self.model(self._judged).argmax(1))


def _recorded(function: Callable[[], None], device: str, _mode: nn.Module) -> Callable[[], None]:
    """Returns the function; on a GPU one that repeats a record of it, made in the network's present mode."""
    if device == "cpu":
        return function
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose their kernels before the recording
        function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def _images(path: Path, device: str) -> tuple[Tensor, Tensor]:
    arrays = np.load(path)
    x = torch.from_numpy(arrays["x"]).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))
    return ((x - mean) / std).contiguous(), torch.from_numpy(arrays["y"].astype(np.int64)).to(device)


def _layers(model: nn.Module) -> list[Layer]:
    """Returns the convolutions in order of execution; a block's second one and all before it in its stage write one sum."""
    modules: dict[str, Any] = dict(model.named_modules())
    found = [Layer("conv1", modules["conv1"], modules["bn1"], 1024, ())]
    writers = [0]  # layers whose outputs are summed in the residual stream
    for stage, area in ((1, 1024), (2, 256), (3, 64)):
        for block in range(3):
            name = f"layer{stage}.{block}"
            for at in (1, 2):
                source = tuple(writers) if at == 1 else (len(found) - 1,)
                conv, norm = modules[f"{name}.conv{at}"], modules[f"{name}.bn{at}"]
                found.append(Layer(f"{name}.conv{at}", conv, norm, area, source))
            writers.append(len(found) - 1)
    return found


# -- rows ------------------------------------------------------------------------------------------------------


def drawn(n: int, n_knobs: int, rng: np.random.Generator) -> list[Array]:
    """Returns `n` vectors of ratios: half of them independent, half a common ratio with deviations."""
    rows = []
    for at in range(n):
        alike = rng.uniform(0, MOST) + rng.normal(0, 0.15, n_knobs)
        row = rng.uniform(0, MOST, n_knobs) if at % 2 else alike
        rows.append(np.asarray(np.round(np.clip(row, 0, MOST), 3), np.float64))
    return rows


def child(parents: Sequence[Array], rng: np.random.Generator) -> Array:
    """Returns a vector: a parent crossed with another, a few ratios changed."""
    a, b = (parents[int(at)] for at in rng.integers(len(parents), size=2))
    row = np.where(rng.random(len(a)) < 0.3, b, a)
    changed = rng.random(len(a)) < 3 / len(a)
    row = np.where(changed, row + rng.normal(0, 0.15, len(a)), row)
    return np.asarray(np.round(np.clip(row, 0, MOST), 3))


@dataclass
class Measured:
    """The table as it grows.

    Attributes:
        network: Measures rows.
        steps: Steps of training.
        keep: Share of multiply-accumulates beyond which each percent costs a point of `score`.
        rows: Vectors of ratios.
        values: `(score, top1, macs)` of each.
    """

    network: Network
    steps: int
    keep: float
    rows: list[Array] = field(default_factory=list)
    values: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, row: Array) -> None:
        """Measures a row."""
        top1, macs = self.network.measure(row.tolist(), self.steps, 0), self.network.macs(row.tolist())
        self.rows.append(row)
        self.values.append((top1 - 100 * max(0.0, macs - self.keep), top1, macs))

    def best(self, n: int) -> list[Array]:
        """Returns the rows with the highest scores."""
        return [self.rows[i] for i in np.argsort([-v[0] for v in self.values], kind="stable")[:n]]

    def write(self, path: Path) -> None:
        """Writes the table."""
        knobs = [f"knob.ratio[{layer.name}]" for layer in self.network.layers]
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["task", *knobs, "metric.score", "metric.top1", "metric.macs"])
            for row, (score, top1, macs) in zip(self.rows, self.values, strict=True):
                writer.writerow(["resnet20", *row.tolist(), round(score, 4), round(top1, 2), round(macs, 5)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, measures the rows, writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=np.inf, help="no new row after this time")
    given = parser.parse_args(arguments)
    network = Network(given.data, "cuda" if torch.cuda.is_available() else "cpu")
    table, rng = Measured(network, given.steps, given.keep), np.random.default_rng(0)
    began = time.monotonic()
    n_random = given.rows * 2 // 3
    for at, row in enumerate(drawn(n_random, len(network.layers), rng)):
        table.add(row)
        if at % 100 == 99 or at == n_random - 1:
            table.write(given.to)
            print(
                f"{at + 1} rows, {time.monotonic() - began:.0f} s, best {max(table.values)[0]:.2f}",
                flush=True,
            )
        if time.monotonic() - began > 0.67 * given.seconds:
            break
    while len(table.rows) < given.rows and time.monotonic() - began < given.seconds:
        parents = table.best(PARENTS)
        for _ in range(PARENTS):
            table.add(child(parents, rng))
        table.write(given.to)
    scores = np.array([v[0] for v in table.values])
    print(
        f"{len(scores)} rows in {time.monotonic() - began:.0f} s; best {scores.max():.2f}, median {np.median(scores):.2f}"
    )
    print("standard deviation of top-1 over three seeds of training, points:")
    for name, some in (
        ("random rows", drawn(given.repeats, len(network.layers), rng)),
        ("the best rows", table.best(given.repeats)),
    ):
        again = np.array(
            [[network.measure(row.tolist(), given.steps, seed) for seed in (1, 2, 3)] for row in some]
        )
        print(f"  {name}: {np.sqrt(np.mean(again.var(axis=1, ddof=1))):.2f}")


if __name__ == "__main__":
    main()
