"""Networks of the usual kinds, trained here on real data: what 8 bits with the default settings cost, and what stays float.

Run from the root of the repository::

    python tests/benchmarks/usual_networks.py DATA --cache FOLDER [--networks lstm vit] [--prune --recover '{"epochs": 3}']

DATA is a folder with `cifar10` and `har`. ViT, MobileViT-like and ConvNeXt-like networks learn CIFAR-10 (20,000 images, tested on
5,000 test images), LSTM, GRU and a Conformer-like one activities from phones (tested on 9 unseen people), a U-Net which
pixels of a CIFAR-10 image belong to one of two handwritten digits that were blended into it (mean intersection over union of
digits and background). Trained networks are kept in FOLDER. Drops are paired, with 95 % bootstrap intervals over examples.

Scores are with exact 8-bit sums; a further column has those of this machine's own kernels, which saturate on x86 without VNNI.
With `--prune` each network is also cut to half its multiply-accumulates and recovered with the defaults but for the knobs of `--recover`, then quantized.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from usual_modules import Conformer, ConvNeXt, MobileViT, Recurrent, UNet, ViT

from evaluators.runtime import run_batches
from evaluators.task.data.splits import Normalise
from evaluators.task.tasks.classification.cifar10 import Cifar10Task
from evaluators.task.tasks.classification.npz import NpzTask
from evaluators.task.tasks.task import Splits
from spaces.errors import ParedownError
from spaces.models.export import ExportStage
from spaces.models.torch.accelerator import device_of
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.prune import PruneStage
from spaces.quantization.quantize import QuantizeStage
from spaces.recovery.recover import RecoverStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

N_RESAMPLES = 2000
N_TEST = 5000  # images of CIFAR-10
N_CLASSES = 2  # of pixels: background and digits

Row = dict[str, Any]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """One network with its data and training."""

    build: Callable[[], nn.Module]
    data: str
    epochs: int
    learning_rate: float = 2e-3


KINDS = {
    "lstm": Kind(lambda: Recurrent("lstm"), "har", 12),
    "gru": Kind(lambda: Recurrent("gru"), "har", 12),
    "conformer": Kind(Conformer, "har", 10, 1e-3),
    "vit": Kind(ViT, "cifar10", 8, 1e-3),
    "unet": Kind(lambda: UNet(n_classes=N_CLASSES), "digits", 5),
    "convnext": Kind(ConvNeXt, "cifar10", 5),
    "mobilevit": Kind(MobileViT, "cifar10", 5),
}


def cifar10(root: Path) -> Splits:
    """Returns CIFAR-10: training images that are not for calibration are for training."""
    found = Cifar10Task(str(root / "cifar10"), calibration=256, validation=200).splits()
    return replace(found, test=found.test.subset(np.arange(N_TEST)))


def har(root: Path) -> Splits:
    """Returns windows of human activities, divided by people."""
    mean, std = (0.8, 0.0, 0.1, 0.0, 0.0, 0.0), (0.4, 0.4, 0.35, 0.4, 0.4, 0.25)
    task = NpzTask(
        str(root / "har" / "hapt_windows128.npz"), (6, 128), 6, group="subject", mean=mean, std=std,
        calibration=2, validation=1, test=9,
    )  # fmt: skip
    return task.splits()


def digits(root: Path) -> Splits:
    """Returns images with digits of scikit-learn's set blended in; labels are 1 where a pixel belongs to one."""
    from sklearn.datasets import load_digits

    images = cifar10(root)
    shapes, _ = load_digits(return_X_y=True)
    shapes = np.kron(shapes.reshape(-1, 8, 8) / 16, np.ones((2, 2)))

    def blended(split: ArraySplit, n: int, digit_rows: slice, seed: int) -> ArraySplit:
        rng = np.random.default_rng(seed)
        raw = np.asarray(split.raw[:n]).astype(np.float32)
        labels = np.zeros((len(raw), 32, 32), np.int64)
        for picture, label in zip(raw, labels, strict=True):
            for _ in range(2):
                at = rng.integers(len(shapes[digit_rows]))
                top, left = rng.integers(17, size=2)
                share = 0.6 * shapes[digit_rows][at][..., None]
                part = picture[top : top + 16, left : left + 16]
                part += share * (rng.integers(256, size=3) - part)
                label[top : top + 16, left : left + 16][share[..., 0] > 0.3] = 1
        transform = Normalise(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return ArraySplit(raw.astype(np.uint8), labels, transform)

    learn, held = slice(0, 1200), slice(1200, None)
    return Splits(
        train=blended(images.train, 6_000, learn, 0), calibration=blended(images.calibration, 256, learn, 1),
        validation=blended(images.validation, 200, learn, 2), test=blended(images.test, 1000, held, 3),
    )  # fmt: skip


DATA = {"cifar10": cifar10, "har": har, "digits": digits}


def trained(name: str, splits: Splits, given: argparse.Namespace) -> nn.Module:
    """Returns the network, trained once and then read from the cache."""
    torch.manual_seed(0)
    kind, file = KINDS[name], given.cache / f"{name}.pt"
    epochs = given.epochs or kind.epochs
    module = kind.build()
    if file.exists():
        module.load_state_dict(torch.load(file, weights_only=True))
        return module.eval()
    began = time.perf_counter()
    learn = splits.train.subset(np.arange(min(given.images or len(splits.train), len(splits.train))))
    device, size = device_of(given.accelerator), 64
    inputs, labels = (torch.from_numpy(array).to(device) for array in (learn.inputs, learn.labels))
    module.to(device)
    n_steps = epochs * (len(inputs) // size)
    optimizer = torch.optim.AdamW(module.parameters(), kind.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, kind.learning_rate, n_steps, pct_start=0.2)
    module.train()
    for epoch in range(epochs):
        order = torch.randperm(len(inputs)).to(device)
        for rows in order[: len(order) // size * size].split(size):
            x = inputs[rows]
            if kind.data == "cifar10" and torch.rand(()) < 0.5:
                x = x.flip(3)
            loss = nn.functional.cross_entropy(module(x), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        print(
            f"{name}: epoch {epoch}, loss {loss.item():.3f}, {time.perf_counter() - began:.0f} s", flush=True
        )
    torch.save(module.cpu().state_dict(), file)
    return module.eval()


def counts(artifact: Artifact, split: ArraySplit, exact: bool) -> Counts:
    """Returns what scores are sums of, `(n, ...)`: right answers, or per class the pixels in the intersection and the union."""
    found = []
    for outputs, labels in run_batches(artifact, split.batches, 256, 1, exact):
        if labels.ndim == 1:
            found.append((outputs.argmax(1) == labels).astype(np.int64))
            continue
        given = outputs.reshape(len(labels), N_CLASSES, -1).argmax(1)
        true = labels.reshape(len(labels), -1)
        pairs = [((given == c) & (true == c), (given == c) | (true == c)) for c in range(N_CLASSES)]
        found.append(np.stack([np.stack([a.sum(1), b.sum(1)], 1) for a, b in pairs], 1))
    return np.concatenate(found)


def score(rows: Counts) -> float:
    """Returns accuracy, or mean intersection over union, in percent."""
    sums = rows.sum(0)
    return 100 * float(
        sums / len(rows) if sums.ndim == 0 else (sums[:, 0] / np.maximum(sums[:, 1], 1)).mean()
    )


def drop_text(before: Counts, after: Counts) -> str:
    """Returns the drop of the score with its interval."""
    rng = np.random.default_rng(0)
    rows = (rng.integers(len(before), size=len(before)) for _ in range(N_RESAMPLES))
    low, high = np.quantile([score(before[r]) - score(after[r]) for r in rows], [0.025, 0.975])
    return f"{score(before) - score(after):+.2f} [{low:+.2f}, {high:+.2f}]"


def quantized_row(float_model: Artifact, splits: Splits, before: Counts, given: argparse.Namespace) -> Row:
    """Quantizes with the defaults and returns the measurements."""
    stage, context = QuantizeStage(), StageContext(splits.calibration, Cache())
    model = stage.apply(float_model, given.quantize, context)
    after, own = (counts(model, splits.test, exact) for exact in (True, False))
    domains = {knob: (value,) for knob, value in given.quantize.items()}
    sizes = [len(m.onnx_bytes) for m in (float_model, model)]
    return {
        "float": round(score(before), 2), "int8": round(score(after), 2), "drop": drop_text(before, after),
        "own kernels": round(score(own), 2), "KiB": [round(s / 1024) for s in sizes],
        "left float": list(stage.remarks(float_model, domains, context)),
    }  # fmt: skip


def pruned(
    module: nn.Module, shape: tuple[int, ...], splits: Splits, given: argparse.Namespace
) -> tuple[Artifact, float]:
    """Returns the network cut to half its multiply-accumulates and recovered, and the share of these that is left."""
    dense = torch_artifact(module, InputSpec(shape))
    context = StageContext(
        splits.calibration,
        Cache(),
        given.seed,
        train=splits.train,
        teacher=dense,
        accelerator=given.accelerator,
    )
    cut = PruneStage(threads=1).apply(dense, {"keep": 0.5}, context)
    made = RecoverStage(1).apply(cut, given.recover, context)
    counted = [total(layer_counts(m.model, shape).values()).macs for m in (dense, made)]
    return made, counted[1] / counted[0]


def exported(artifact: Artifact) -> Artifact:
    """Returns the network as an ONNX artifact."""
    return ExportStage().apply(artifact, {}, StageContext(None, Cache()))


def measured(name: str, given: argparse.Namespace) -> list[Row]:
    """Returns the rows of one network: as trained, and pruned."""
    splits = DATA[KINDS[name].data](given.data)
    module = trained(name, splits, given)
    if given.train_only:
        return []
    shape = tuple(splits.test.inputs.shape[1:])
    dense = exported(torch_artifact(module, InputSpec(shape)))
    before = counts(dense, splits.test, False)
    rows = [{"network": name, **quantized_row(dense, splits, before, given)}]
    if given.prune:
        try:
            cut, share = pruned(module, shape, splits, given)
            small = exported(cut)
            row = quantized_row(small, splits, counts(small, splits.test, False), given)
            rows.append({"network": f"{name}, {share:.0%} of the MACs", **row})
        except ParedownError as error:
            rows.append({"network": f"{name}, pruned", "refused": str(error)})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, measures the networks, prints a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="folder for trained networks")
    parser.add_argument("--networks", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--quantize", type=json.loads, default={}, help="knobs, JSON")
    parser.add_argument("--prune", action="store_true", help="half the multiply-accumulates, too")
    parser.add_argument("--recover", type=json.loads, default={"epochs": 3}, help="knobs, JSON")
    parser.add_argument("--seed", type=int, default=0, help="of cutting and recovery")
    parser.add_argument("--epochs", type=int, help="of every training; each network's own if not given")
    parser.add_argument("--images", type=int, help="training examples; all if not given")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--accelerator", default="cpu", help="that trains: cpu, cuda or auto")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    for name in given.networks:
        for row in measured(name, given):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
