"""Whether what papers say of families of networks for sequences, images of tokens and super-resolution holds here.

Run from the root of the repository::

    python tests/benchmarks/directions_sequences.py --data DATA --seeds 3 [--only femba tokens] [--epochs 20] [--accelerator auto]

Networks are trained by the product's train stage, on a GPU where there is one, and judged on examples that no training saw: HAR
(9 unseen people), digits of scikit-learn, tones that are made here, passages of Python's standard library, tiles of
scikit-learn's two photographs. A row has the figures of each seed, A and B, and whether A is at least B (less a margin, where one is
named) in the mean; then in how many seeds. Costs are counted, times are the least of 6 runs.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from sklearn.datasets import load_digits, load_sample_image
from torch import nn
from torch.nn import functional

from evaluators.task.tasks.classification.npz import NpzTask
from evaluators.task.tasks.task import Splits, Task
from search.api import compose
from search.planning.loading import made
from spaces.architectures.counting import counts_of
from spaces.architectures.families.convformer import ConvFormer
from spaces.architectures.families.embbert import EmbBERT
from spaces.architectures.families.femba import FEMBA
from spaces.architectures.families.funnelnet import FunnelNet
from spaces.architectures.families.spike_vit import SpikeViT
from spaces.architectures.families.swift_f0 import SwiftF0
from spaces.architectures.family import Family
from spaces.architectures.selective_scan import Mamba
from spaces.architectures.spiking import spike_energy
from spaces.models.export import ExportStage
from spaces.models.torch.accelerator import device_of
from spaces.pruning.tokens.testing import SmallTransformer, TransformerBlock
from spaces.pruning.tokens.tokens import TokenStage
from spaces.quantization.quantize import QuantizeStage
from spaces.recovery.train import TrainStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec, Split
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

RATE = 16000
TONE_BINS = 60  # of the pitch, from 80 to 800 Hz


@dataclass
class Row:
    """A direction: A is expected to be at least B, less a margin."""

    family: str
    direction: str
    a: list[float] = field(default_factory=list)
    b: list[float] = field(default_factory=list)
    margin: float = 0.0

    def add(self, a: float, b: float) -> None:
        self.a.append(a)
        self.b.append(b)

    def __str__(self) -> str:
        good = [a >= b - self.margin for a, b in zip(self.a, self.b, strict=True)]
        verdict = "holds" if np.mean(self.a) >= np.mean(self.b) - self.margin else "does not hold"
        figures = "; ".join(" ".join(f"{v:.4g}" for v in values) for values in (self.a, self.b))
        return f"| {self.family} | {self.direction} | {figures} | {verdict}, {sum(good)} of {len(good)} |"


@dataclass(frozen=True)
class Bench:
    """Settings of the runs."""

    data: Path
    epochs: int
    accelerator: str
    folder: Path

    def built(
        self, family: Family, values: Mapping[str, Any], shape: tuple[int, ...], n: int, seed: int
    ) -> Artifact:
        """Returns an untrained network."""
        chosen = family.canonical({**family.defaults(), **values})
        if why := family.broken(chosen, shape):
            raise ValueError(why)
        torch.manual_seed(seed)
        return torch_artifact(family.build(chosen, shape, n), InputSpec(shape, dtype=family.input_dtype))

    def trained(
        self, start: Artifact, train: Split, seed: int, loss: str = "cross_entropy", **knobs: Any
    ) -> Artifact:
        """Returns the trained network."""
        stage = TrainStage(threads=1)
        context = StageContext(None, Cache(), seed, train=train, accelerator=self.accelerator, loss=loss)
        values = stage.defaults() | {"epochs": self.epochs, "augmentation": "none"} | knobs
        return stage.apply(start, stage.canonical(start, values, context), context)

    def har(self) -> Splits:
        """Returns windows of 128 samples of 6 channels; test people are in no other split."""
        scale = {"mean": [0.8, 0.0, 0.1, 0.0, 0.0, 0.0], "std": [0.4, 0.4, 0.35, 0.4, 0.4, 0.25]}
        root = str(self.data / "har" / "hapt_windows128.npz")
        return NpzTask(
            root, [6, 128], 6, group="subject", layout="NCHW", calibration=2, validation=7, test=9, **scale
        ).splits()


def outputs(artifact: Artifact, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields outputs and labels of a torch network or an ONNX file."""
    if artifact.kind == "onnx":
        session = ort.InferenceSession(artifact.onnx_bytes, providers=["CPUExecutionProvider"])
        for x, y in split.batches(64):
            yield session.run(None, artifact.input.feeds(x))[0], y
        return
    with torch.no_grad():
        for x, y in split.batches(256):
            yield artifact.model(torch.from_numpy(x)).numpy(), y


def accuracy(artifact: Artifact, split: Split) -> float:
    """Returns the share of right classes, of examples or of steps, in per cent."""
    right = [
        (found.argmax(-1) == y).mean(axis=tuple(range(1, y.ndim))) for found, y in outputs(artifact, split)
    ]
    return 100 * float(np.concatenate([np.atleast_1d(r) for r in right]).mean())


def quantized(artifact: Artifact, examples: Split, **values: Any) -> Artifact:
    """Returns the exported file with integers."""
    context = StageContext(examples, Cache())
    exported, stage = ExportStage().apply(artifact, {}, context), QuantizeStage()
    return stage.apply(exported, stage.canonical(exported, stage.defaults() | values, context), context)


def digits(seed: int, shape: tuple[int, ...], size: int = 8) -> tuple[ArraySplit, ArraySplit]:
    """Returns 1,297 digits for training and 500 for the test."""
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy((images.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32))
    x = functional.interpolate(x, (size, size), mode="bilinear") if size != 8 else x
    order = np.random.default_rng(seed).permutation(len(labels))
    rows, y = x.numpy().reshape(-1, *shape)[order], labels[order].astype(np.int64)
    return ArraySplit(rows[500:], y[500:]), ArraySplit(rows[:500], y[:500])


def tones(n: int, seed: int) -> ArraySplit:
    """Returns synthetic tones with harmonics in noise of 10 dB, labelled with the bin of their pitch in each frame."""
    rng, length = np.random.default_rng(seed), 2048
    bins = rng.integers(0, TONE_BINS, n)
    pitch = 80 * 10 ** (bins / (TONE_BINS - 1)) * 2 ** rng.uniform(-0.02, 0.02, n)
    time_s, harmonics = np.arange(length) / RATE, np.arange(1, 9)
    strength = rng.uniform(0, 1, (n, 8)) / harmonics
    strength[rng.random(n) < 0.3, 0] = 0  # a missing fundamental
    phases = rng.uniform(0, 2 * np.pi, (n, 8))
    angles = 2 * np.pi * pitch[:, None, None] * harmonics[:, None] * time_s + phases[:, :, None]
    sound = (strength[:, :, None] * np.sin(angles)).sum(1)
    sound /= sound.std(1, keepdims=True)
    sound += rng.normal(0, 10 ** (-10 / 20), sound.shape)
    return ArraySplit(
        (0.1 * sound).astype(np.float32), np.tile(bins[:, None], (1, length // 256)).astype(np.int64)
    )


def swift_f0(bench: Bench, seeds: range) -> Iterator[Row]:
    dilated = Row("swift_f0", "pitch right, %: harmonic against plain dilations, equal parameters")
    eight = Row("swift_f0", "pitch right, %: 8 bits against float, within 1", margin=1.0)
    family, test = SwiftF0(), tones(400, 10**6)
    for seed in seeds:
        train, networks = tones(2000, seed), {}
        for dilation in ("harmonic", "plain"):
            values = {"width": 4, "depth": 3, "kernel": 3, "axis": "log", "dilation": dilation}
            start = bench.built(family, values, (2048,), TONE_BINS, seed)
            networks[dilation] = bench.trained(start, train, seed, "tokens")
        dilated.add(*(accuracy(networks[kind], test) for kind in ("harmonic", "plain")))
        whole = quantized(networks["harmonic"], train, calibration_images=64, keep_float=("front_end.*",))
        eight.add(accuracy(whole, test), dilated.a[-1])
    yield from (dilated, eight)


def femba(bench: Bench, seeds: range) -> Iterator[Row]:
    row = Row("femba", "HAR top-1, %: both directions against forward only, equal depth and width")
    splits = bench.har()
    small = {"embed_dim": 8, "depth": 2, "expand": 2, "patch_time": 8, "head": "linear"}
    for seed in seeds:
        found = []
        for directions in ("add", "forward"):
            start = bench.built(FEMBA(), small | {"directions": directions}, (6, 128), 6, seed)
            found.append(accuracy(bench.trained(start, splits.train, seed), splits.test))
        row.add(*found)
    yield row
    scan, attention = (exponent(bench, make) for make in (lambda: Mamba(64), lambda: TransformerBlock(64, 1)))
    linear = Row("femba", "exponent of time over length 1024 to 8192: 1.3 against the scan's", [1.3], [scan])
    yield from (linear, Row("femba", "the same: attention's against 1.5", [attention], [1.5]))


def exponent(bench: Bench, make: Callable[[], nn.Module]) -> float:
    """Returns the slope of log time over log length of a layer."""
    device, lengths, seconds = device_of(bench.accelerator), (1024, 2048, 4096, 8192), []
    layer = make().eval().to(device)
    for length in lengths:
        x, times = torch.randn(1, length, 64, device=device), []
        for _ in range(6):
            start = time.perf_counter()
            with torch.no_grad():
                layer(x).sum().item()  # waits for an accelerator
            times.append(time.perf_counter() - start)
        seconds.append(min(times))
    return float(np.polyfit(np.log(lengths), np.log(seconds), 1)[0])


class PlainBert(nn.Module):
    """Vectors of tokens and positions, transformer blocks, the mean and a linear layer: what EmbBERT is compared with."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, n_classes: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, 1) for _ in range(depth)))
        self.head = nn.Linear(width, n_classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.token(ids) + self.position.weight).mean(1))


def total_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Returns the bytes of 8-bit weights and of float activations at their peak."""
    counts = counts_of(network, shape, torch.int64)
    return counts.parameters + counts.peak_activation_bytes


def embbert(bench: Bench, seeds: range) -> Iterator[Row]:
    length, n_classes, vocabulary = 96, 6, 257
    row = Row("embbert", "")
    config = compose(
        [
            "experiment=python_text",
            f"model.input_shape=[{length}]",
            f"task.data.length={length}",
            f"cache_dir={bench.folder}",
        ]
    )
    splits = made(Task, config.section("task"), "task", config).splits()
    family, values = EmbBERT(vocabulary), {"depth": 2, "width": 32, "reduced": 16}
    # the widest of two blocks in the same bytes
    plain = max(width for width in range(4, 65, 2) if _fits(width, family, values, length))
    for seed in seeds:
        start = bench.built(family, values, (length,), n_classes, seed)
        torch.manual_seed(seed)
        other = torch_artifact(PlainBert(vocabulary, length, plain, 2, n_classes), start.input)
        adam = {"optimizer": "adamw", "learning_rate": 3e-3}
        row.add(
            *(accuracy(bench.trained(s, splits.train, seed, **adam), splits.test) for s in (start, other))
        )
    budget = total_bytes(start.model, (length,))
    row.direction = (
        f"top-1 of texts, %: against plain BERT blocks of width {plain}, at most {budget:,} B in all"
    )
    yield row


def _fits(width: int, family: EmbBERT, values: Mapping[str, Any], length: int) -> bool:
    network = family.build({**family.defaults(), **values}, (length,), 6)
    return total_bytes(PlainBert(257, length, width, 2, 6), (length,)) <= total_bytes(network, (length,))


def tiles(photograph: str, n: int, seed: int) -> ArraySplit:
    """Returns crops of 48x48, halved by area, as inputs of 24x24 and labels."""
    image = torch.from_numpy(load_sample_image(photograph).copy()).permute(2, 0, 1).float() / 255
    rng = np.random.default_rng(seed)
    places = [(rng.integers(0, image.shape[1] - 48), rng.integers(0, image.shape[2] - 48)) for _ in range(n)]
    crops = torch.stack([image[:, y : y + 48, x : x + 48] for y, x in places])
    return ArraySplit(functional.avg_pool2d(crops, 2).numpy(), crops.numpy())


def psnr(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> float:
    """Returns the mean ratio of white to the error of the luma, dB, without 2 pixels at each border."""
    luma = np.array([0.299, 0.587, 0.114])[:, None, None]
    found = []
    for made_, wanted in pairs:
        error = ((np.clip(made_, 0, 1) - wanted) * luma).sum(1)[:, 2:-2, 2:-2]
        found += [-10 * log10(mse) for mse in (error**2).mean((1, 2))]
    return float(np.mean(found))


def convformer(bench: Bench, seeds: range) -> Iterator[Row]:
    edges = Row(
        "convformer", "PSNR of Y on flower.jpg after training on china.jpg, dB: edge branches against none"
    )
    cubic, eight = (
        Row("convformer", "the same against bicubic"),
        Row("convformer", "the same: 8 bits against float, within 0.3 dB", margin=0.3),
    )
    test = tiles("flower.jpg", 200, 10**6)
    family = ConvFormer()
    for seed in seeds:
        train, found = tiles("china.jpg", 400, seed), []
        for with_edges in (True, False):
            start = bench.built(family, {"width": 16, "depth": 2, "edges": with_edges}, (3, 24, 24), 3, seed)
            artifact = bench.trained(
                start, train, seed, "absolute", batch_size=16, optimizer="adamw", learning_rate=2e-3
            )
            found.append(psnr(outputs(artifact, test)))
            if with_edges:
                whole = psnr(outputs(quantized(artifact, train, calibration_images=64), test))
        edges.add(*found)
        bicubic = (
            (functional.interpolate(torch.from_numpy(x), scale_factor=2, mode="bicubic").numpy(), y)
            for x, y in test.batches(64)
        )
        cubic.add(found[0], psnr(bicubic))
        eight.add(whole, found[0])
    yield from (edges, cubic, eight)


def funnelnet(bench: Bench, seeds: range) -> Iterator[Row]:
    row = Row("funnelnet", "", margin=1.0)
    for seed in seeds:
        train, test = digits(seed, (64,))
        found, macs = [], []
        for block in ("separable", "full"):
            start = bench.built(FunnelNet(), {"block": block, "width": 8, "scales": 16}, (64,), 10, seed)
            found.append(accuracy(bench.trained(start, train, seed), test))
            macs.append(sum(counts_of(layer, (n, 4, 16)).macs for n, layer in _bottleneck(start.model)))
        row.add(*found)
    row.direction = (
        f"digits as signals, top-1, %: separable bottleneck of {macs[0] / macs[1]:.0%} of the MACs, within 1"
    )
    yield row


def _bottleneck(network: Any) -> list[tuple[int, nn.Module]]:
    return [(next(layer.parameters()).shape[0], layer) for layer in list(network.layers)[3:-1]]


def spike_vit(bench: Bench, seeds: range) -> Iterator[Row]:
    levels = Row("spike_vit", "digits in 4-bit weights, top-1, %: 4 levels against binary neurons")
    energy = Row("spike_vit", "spikes per value: 4.6 / 0.9 against those of 4 levels")
    for seed in seeds:
        train, test = digits(seed, (1, 8, 8))
        found = []
        for n in (4, 1):
            start = bench.built(SpikeViT(), {"patch": 2, "width": 48, "levels": n}, (1, 8, 8), 10, seed)
            artifact = bench.trained(start, train, seed)
            found.append(
                accuracy(
                    quantized(artifact, train, weight_bits=4, granularity="channel", calibration_images=128),
                    test,
                )
            )
            if n == 4:
                images = torch.from_numpy(next(test.batches(200))[0])
                energy.add(4.6 / 0.9, spike_energy(artifact.model, images).spikes_per_value)
        levels.add(*found)
    yield from (levels, energy)


def tokens(bench: Bench, seeds: range) -> Iterator[Row]:
    yield from _propagation(bench, seeds)
    yield from _sequences(bench, seeds)


def _propagation(bench: Bench, seeds: range) -> Iterator[Row]:
    rows = [
        Row("tokens", f"digits of 32x32, -30 % of MACs, no training, top-1, %: propagation against {what}")
        for what in ("dropping the same number", "random dropping")
    ]
    for seed in seeds:
        train, test = digits(seed, (1, 32, 32), 32)
        torch.manual_seed(seed)
        network = SmallTransformer(
            (1, 32, 32), patch=4, width=48, depth=6, n_outputs=10, heads=4, has_class=True
        )
        trained = bench.trained(
            torch_artifact(network, InputSpec((1, 32, 32))),
            train,
            seed,
            optimizer="adamw",
            learning_rate=1e-3,
        )
        whole, drop = counts_of(trained.model, (1, 32, 32)).macs, 1
        while (
            counts_of(_reduced(trained, seed, method="propagate", drop=drop).model, (1, 32, 32)).macs
            > 0.7 * whole
        ):
            drop += 1
        plain = {"method": "propagate", "drop": drop}
        sets = (plain, plain | {"alpha": 0.0}, plain | {"alpha": 0.0, "selection": "random"})
        found = [accuracy(_reduced(trained, seed, **values), test) for values in sets]
        rows[0].add(found[0], found[1])
        rows[1].add(found[0], found[2])
    yield from rows


def _sequences(bench: Bench, seeds: range) -> Iterator[Row]:
    cuts = Row("tokens", "")
    picks = Row("tokens", "HAR top-1 at a third of the tokens, %: cluster centres against a uniform sample")
    splits, shape = bench.har(), (6, 128)
    for seed in seeds:
        torch.manual_seed(seed)
        network = SmallTransformer(shape, patch=2, width=32, depth=6, n_outputs=6, heads=4)
        start = torch_artifact(network, InputSpec(shape))
        pyramid = _reduced(start, seed, method="dpc_knn", keep=0.5, cuts=2, first_cut=2)
        # the largest single cut that costs no more
        budget = counts_of(pyramid.model, shape).macs
        singles = (
            _reduced(start, seed, method="dpc_knn", keep=k / 64, first_cut=2) for k in range(63, 0, -1)
        )
        single = next(s for s in singles if counts_of(s.model, shape).macs <= budget)
        thirds = [
            _reduced(start, seed, method=pick, keep=0.33, first_cut=1) for pick in ("dpc_knn", "sample")
        ]
        scores = [
            accuracy(bench.trained(a, splits.train, seed, optimizer="adamw", learning_rate=1e-3), splits.test)
            for a in (pyramid, single, *thirds)
        ]
        cuts.add(*scores[:2])
        picks.add(*scores[2:])
        lengths = [a.notes["tokens"]["tokens_per_block"] for a in (pyramid, single)]
    cuts.direction = f"HAR top-1, %: tokens {lengths[0]} against {lengths[1]}"
    yield from (cuts, picks)


def _reduced(artifact: Artifact, seed: int, **values: Any) -> Artifact:
    stage = TokenStage()
    return stage.apply(artifact, stage.defaults() | values, StageContext(None, Cache(), seed))


FAMILIES = {f.__name__: f for f in (swift_f0, femba, embbert, convformer, funnelnet, spike_vit, tokens)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.data, given.epochs, given.accelerator, Path(folder))
        print("| family | direction | A; B by seed | |\n| --- | --- | --- | --- |", flush=True)
        for name in given.only:
            for row in FAMILIES[name](bench, range(given.seeds)):
                print(row, flush=True)


if __name__ == "__main__":
    main()
