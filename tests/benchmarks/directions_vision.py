"""What the papers of the families of architectures for images say, tried on small real data, with the product's own training.

    python tests/benchmarks/directions_vision.py  # scikit-learn's digits at 32 x 32 pixels
    python tests/benchmarks/directions_vision.py --data FOLDER  # with cifar10/train_20k.npz and test.npz: CIFAR-10
    python tests/benchmarks/directions_vision.py --families resnet --size 16 --epochs 8  # minutes on one core
    python tests/benchmarks/directions_vision.py --families phantom shvit --epochs 30 --seeds 3

Trains on an accelerator if there is one. Prints, per direction, the figures of every seed and whether the direction holds on the mean of all:

- phantom: in place of full convolutions at least 40 % fewer parameters, at most 2 points less accuracy.
- lwganet: all four ranges find more of the small objects than the local one alone at no fewer parameters.
- shvit: one head over a part of the channels takes less time on a CPU than four heads over all, within 1 point of accuracy.
- resnet: without normalisation the worst of four domains is better than with BatchNorm, after federated averaging over clients
  with one domain each.
"""

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spaces.architectures.families.lwganet import LWGANet
from spaces.architectures.families.phantom import Phantom
from spaces.architectures.families.resnet import ResNet
from spaces.architectures.families.shvit import SHViT
from spaces.architectures.family import Family
from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.models.torch.accelerator import device_of
from spaces.recovery.train import TrainStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

N_CLASSES = 10
SIZE = 32
SCALES = (8, 16, 32)  # pixels of an object
N_TIMED = 300  # inferences of each network
RATES = (0.01, 0.03, 0.1)  # peak learning rates of the federated trainings; the best by validation is taken

Images = NDArray[np.float32]  # (n, channels, 32, 32)
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """Training and test images, of mean 0 and deviation 1."""

    x: Images
    y: Labels
    test_x: Images
    test_y: Labels

    def mapped(self, change: Callable[[Images], Images]) -> "Data":
        """Returns the data with changed images."""
        return Data(change(self.x), self.y, change(self.test_x), self.test_y)


@dataclass(frozen=True)
class Options:
    """What all directions share."""

    epochs: int
    accelerator: str


@dataclass(frozen=True)
class Finding:
    """A direction with its figures, one line per seed, and whether it holds."""

    family: str
    direction: str
    figures: Sequence[str]
    summary: str
    holds: bool


def digits(seed: int, size: int = SIZE) -> Data:
    """Returns 1,000 digits for training and 797 for the test, scaled from 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.target))
    small = torch.from_numpy(found.images[order, None].astype(np.float32))
    x = functional.interpolate(small, (size, size), mode="bilinear", align_corners=False).numpy()
    return _standard(x, found.target[order].astype(np.int64), 1000)


def cifar(folder: Path, seed: int, n_train: int = 8000, n_test: int = 4000) -> Data:
    """Returns random images of the 20,000 for training, and of the test set."""
    rng = np.random.default_rng(seed)
    parts = []
    for name, n in (("train_20k", n_train), ("test", n_test)):
        with np.load(folder / "cifar10" / f"{name}.npz") as file:
            rows = rng.permutation(len(file["y"]))[:n]
            parts.append(
                (file["x"][rows].transpose(0, 3, 1, 2).astype(np.float32), file["y"][rows].astype(np.int64))
            )
    (x, y), (test_x, test_y) = parts
    return _standard(np.concatenate([x, test_x]), np.concatenate([y, test_y]), n_train)


def _standard(x: Images, y: Labels, n_train: int) -> Data:
    x = (x - x[:n_train].mean()) / x[:n_train].std()
    return Data(x[:n_train], y[:n_train], x[n_train:], y[n_train:])


def phantom(data: Callable[[int], Data], seeds: range, options: Options) -> Finding:
    """Full convolutions against phantoms."""
    values = {"width": 32, "stages": 2, "depth": 1}
    lost, figures, saved = [], [], 0.0
    for seed in seeds:
        found = data(seed)
        scores, parameters = {}, {}
        for block in ("full", "phantom"):
            network = trained(Phantom(), {**values, "block": block}, found, seed, options)
            scores[block], parameters[block] = accuracy(network, found, options), n_parameters(network)
        saved = 1 - parameters["phantom"] / parameters["full"]
        lost.append(scores["full"] - scores["phantom"])
        figures.append(f"full {scores['full']:.2f} %, phantom {scores['phantom']:.2f} %")
    summary = f"{saved:.1%} fewer parameters, {np.mean(lost):+.2f} points lost"
    direction = "at least 40 % fewer parameters, at most 2 points lost"
    return Finding("phantom", direction, figures, summary, bool(saved >= 0.4 and np.mean(lost) <= 2))


def lwganet(data: Callable[[int], Data], seeds: range, options: Options) -> Finding:
    """All ranges against the local one alone, on objects of three sizes."""
    small = {"depth1": 1, "depth2": 1, "depth3": 1, "depth4": 1, "features": 128, "patch": 2}
    whole = {**small, "stem_dim": 16}
    gains, figures, counted = [], [], {}
    for seed in seeds:
        found, sizes = at_scales(data(seed), seed)
        shape = found.x.shape[1:]
        least = LWGANet().counts(LWGANet().defaults() | whole, shape, N_CLASSES).parameters
        local = {**small, **_least_local(small, least, shape)}
        recall = {}
        for name, values in (("local", local), ("all", whole)):
            network = trained(LWGANet(), values, found, seed, options)
            right = correct(network, found, options)
            recall[name] = [100 * right[sizes == size].mean() for size in SCALES]
            counted[name] = n_parameters(network)
        gains.append(recall["all"][0] - recall["local"][0])
        figures.append(
            "; ".join(f"{name} {', '.join(f'{r:.1f}' for r in recall[name])} %" for name in recall)
        )
    summary = f"small objects {np.mean(gains):+.2f} points at {counted['all']:,} against {counted['local']:,} parameters"
    direction = (
        f"all ranges recall more objects of {SCALES[0]} pixels than the local one (recall by size {SCALES})"
    )
    return Finding("lwganet", direction, figures, summary, bool(np.mean(gains) > 0))


def _least_local(small: dict[str, Any], least: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Returns the values of the smallest network with the local range alone that has so many parameters."""
    off = {"point": False, "medium": False, "global": False}
    sizes = [
        {**off, "stem_dim": dim, "mlp_ratio": ratio} for dim in range(8, 128, 8) for ratio in (1, 2, 3, 4)
    ]
    family = LWGANet()
    counted = [family.counts(family.defaults() | small | size, shape, N_CLASSES).parameters for size in sizes]
    _, at = min((n, at) for at, n in enumerate(counted) if n >= least)
    return sizes[at]


def at_scales(data: Data, seed: int) -> tuple[Data, NDArray[np.int64]]:
    """Returns images with their objects shrunk to one of the scales, somewhere; and the test images' scales."""
    rng = np.random.default_rng(seed)
    sizes = [rng.choice(SCALES, len(x)) for x in (data.x, data.test_x)]
    x, test_x = (
        np.stack([_placed(image, int(size), rng) for image, size in zip(part, each, strict=True)])
        for part, each in zip((data.x, data.test_x), sizes, strict=True)
    )
    return Data(x, data.y, test_x, data.test_y), sizes[1]


def _placed(image: Images, size: int, rng: np.random.Generator) -> Images:
    """Returns an image `(channels, 32, 32)`, shrunk to a size and put somewhere on its own darkest value."""
    canvas = np.full_like(image, image.min())
    top, left = rng.integers(0, SIZE - size + 1, 2)
    shrunk = functional.adaptive_avg_pool2d(torch.from_numpy(image), size).numpy()
    canvas[:, top : top + size, left : left + size] = shrunk
    return canvas


def shvit(data: Callable[[int], Data], seeds: range, options: Options) -> Finding:
    """One head over a part of the channels against four over all."""
    small = {
        "dim1": 32,
        "dim2": 56,
        "dim3": 84,
        "depth1": 1,
        "depth2": 2,
        "depth3": 2,
        "stem_stride": 2,
        "attention_from": 1,
    }
    kinds = {"part": {}, "all": {"heads": 4, "partial_ratio": 1.0}}
    lost, ratios, figures = [], [], []
    for seed in seeds:
        found = data(seed)
        networks = {
            name: trained(SHViT(), {**small, **values}, found, seed, options)
            for name, values in kinds.items()
        }
        scores = {name: accuracy(network, found, options) for name, network in networks.items()}
        times = latencies_ms(networks)
        lost.append(scores["all"] - scores["part"])
        ratios.append(times["part"] / times["all"])
        figures.append("; ".join(f"{name} {scores[name]:.2f} %, {times[name]:.3f} ms" for name in kinds))
    summary = f"{np.mean(ratios):.2f} of the time, {np.mean(lost):+.2f} points lost"
    direction = "one head over a part of the channels is faster on a CPU than four over all, within 1 point"
    return Finding("shvit", direction, figures, summary, bool(np.mean(ratios) < 1 and np.mean(lost) <= 1))


def latencies_ms(networks: dict[str, Artifact]) -> dict[str, float]:
    """Returns the median times of one example by onnxruntime with one thread, taken in turns."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    sessions = {}
    for name, network in networks.items():
        file = ExportStage().apply(network, {}, StageContext(None, Cache(), accelerator="cpu")).onnx_bytes
        sessions[name] = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    example = {InputSpec.name: np.zeros((1, *next(iter(networks.values())).input.shape), np.float32)}
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(N_TIMED):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, example)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(each)) for name, each in seconds.items()}


def resnet(data: Callable[[int], Data], seeds: range, options: Options) -> Finding:
    """BatchNorm against standardised weights, after federated averaging over clients of different domains."""
    worst: dict[str, list[float]] = {"bn": [], "none_ws": []}
    figures = []
    for seed in seeds:
        found = data(seed)
        lines = []
        for norm, scores in worst.items():
            runs = [federated(norm, rate, found, seed, options) for rate in RATES]
            rate, (_, by_domain) = max(zip(RATES, runs, strict=True), key=lambda run: run[1][0])
            scores.append(min(by_domain))
            lines.append(
                f"{norm} {', '.join(f'{score:.1f}' for score in by_domain)} % (learning rate {rate})"
            )
        figures.append("; ".join(lines))
    gain = np.mean(worst["none_ws"]) - np.mean(worst["bn"])
    summary = f"worst domain {np.mean(worst['none_ws']):.2f} % against {np.mean(worst['bn']):.2f} %, {gain:+.2f} points"
    direction = (
        f"without normalisation the worst of the domains ({', '.join(DOMAINS)}) is better than with BatchNorm"
    )
    return Finding("resnet", direction, figures, summary, bool(gain > 0))


def federated(norm: str, rate: float, data: Data, seed: int, options: Options) -> tuple[float, list[float]]:
    """Returns the worst domain's accuracy on a quarter of the training images, and all domains' on the test images, in percent.

    Every client has one domain; each round it trains the mean of all networks for an epoch, and there are as many rounds as epochs.
    """
    n_held = len(data.x) // 4
    parts = np.array_split(np.arange(n_held, len(data.x)), len(DOMAINS))
    domains = [data.mapped(change) for change in DOMAINS.values()]
    clients = [Data(d.x[rows], d.y[rows], d.test_x, d.test_y) for d, rows in zip(domains, parts, strict=True)]
    network = built(ResNet(), {"norm": norm, "width": 16}, data, seed)
    for at in range(options.epochs):
        recipe = {"epochs": 1, "learning_rate": rate, "schedule": "constant", "batch_size": 32}
        try:
            locals_ = [fitted(network, client, seed + 1000 * at, recipe, options) for client in clients]
        except StageError:  # diverged at this learning rate
            return 0.0, [0.0] * len(DOMAINS)
        network = averaged(locals_)
    held = [Data(d.x, d.y, d.x[:n_held], d.y[:n_held]) for d in domains]
    return min(accuracy(network, d, options) for d in held), [accuracy(network, d, options) for d in domains]


def averaged(networks: Sequence[Artifact]) -> Artifact:
    """Returns a network whose parameters and statistics are the means of the others'."""
    modules = [network.model for network in networks]
    mean = copy.deepcopy(modules[0])
    states = [module.state_dict() for module in modules]
    mean.load_state_dict({name: torch.stack([s[name].float() for s in states]).mean(0).to(states[0][name].dtype) for name in states[0]})  # fmt: skip
    return torch_artifact(mean, networks[0].input)


def _noisy(x: Images) -> Images:
    return x + np.random.default_rng(0).normal(size=x.shape).astype(np.float32)


def _blurred(x: Images) -> Images:
    padded = functional.pad(torch.from_numpy(x), (2, 2, 2, 2), mode="replicate")
    return functional.avg_pool2d(padded, 5, 1).numpy()


DOMAINS: dict[str, Callable[[Images], Images]] = {
    "inverted": lambda x: -x,
    "blurred": _blurred,
    "rotated": lambda x: np.rot90(x, axes=(2, 3)).copy(),
    "noisy": _noisy,
}


def built(family: Family, values: dict[str, Any], data: Data, seed: int) -> Artifact:
    """Returns a network with random weights."""
    torch.manual_seed(seed)
    shape = data.x.shape[1:]
    whole = family.canonical(family.defaults() | values)
    return torch_artifact(family.build(whole, shape, N_CLASSES), InputSpec(shape))


def trained(family: Family, values: dict[str, Any], data: Data, seed: int, options: Options) -> Artifact:
    """Returns a network trained from scratch with the defaults of the train stage."""
    return fitted(built(family, values, data, seed), data, seed, {"epochs": options.epochs}, options)


def fitted(network: Artifact, data: Data, seed: int, recipe: dict[str, Any], options: Options) -> Artifact:
    """Returns the network after the train stage."""
    stage, split = TrainStage(threads=1), ArraySplit(data.x, data.y)
    context = StageContext(split, Cache(), seed, train=split, accelerator=options.accelerator)
    return stage.apply(network, stage.canonical(network, stage.defaults() | recipe, context), context)


def correct(network: Artifact, data: Data, options: Options) -> NDArray[np.bool_]:
    """Returns which test images are classified correctly."""
    device = device_of(options.accelerator)
    module = copy.deepcopy(network.model).to(device).eval()
    with torch.no_grad():
        guesses = [
            module(part.to(device)).argmax(1).cpu() for part in torch.from_numpy(data.test_x).split(256)
        ]
    return torch.cat(guesses).numpy() == data.test_y


def accuracy(network: Artifact, data: Data, options: Options) -> float:
    """Returns the share of correct test images in percent."""
    return 100 * float(correct(network, data, options).mean())


def n_parameters(network: Artifact) -> int:
    """Returns the number of trained values."""
    return sum(p.numel() for p in network.model.parameters() if p.requires_grad)


DIRECTIONS = {"phantom": phantom, "lwganet": lwganet, "shvit": shvit, "resnet": resnet}


def main() -> None:
    """Prints every direction's figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with cifar10/; without it scikit-learn's digits")
    parser.add_argument("--families", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels of the digits, for the family resnet")
    arguments = parser.parse_args()
    folder = arguments.data
    if arguments.size != SIZE and (folder is not None or arguments.families != ["resnet"]):
        parser.error("--size is for --families resnet on digits")
    data = (lambda seed: digits(seed, arguments.size)) if folder is None else lambda seed: cifar(folder, seed)
    options = Options(arguments.epochs, arguments.accelerator)
    print(
        f"{f'digits of {arguments.size}x{arguments.size}' if folder is None else 'CIFAR-10'}, {arguments.epochs} epochs, on {device_of(options.accelerator)}"
    )
    for name in arguments.families:
        start = time.perf_counter()
        found = DIRECTIONS[name](data, range(arguments.seeds), options)
        print(f"{found.family}: {found.direction}")
        for seed, line in enumerate(found.figures):
            print(f"  seed {seed}: {line}")
        verdict = "holds" if found.holds else "does not hold"
        print(f"  mean: {found.summary}: {verdict} ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
