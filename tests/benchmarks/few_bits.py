"""Accuracy and seconds of each rounding at few bits, from the same float network and the same calibration images.

Run from the root of the repository::

    python tests/benchmarks/few_bits.py --network resnet20 --data DATA --widths 4x8 3x8 4x4 3x3
    python tests/benchmarks/few_bits.py --network mobilenet_v2 --data DATA --widths 4x8

Weights per channel, first and last layer at 8 bits, scales and ranges by the least squared error. Calibration: 512 training images of
CIFAR-10, or 250 of the 500 ImageNet sample images. Judged on all 10,000 test images, or on the sample images that did not calibrate, by the
files in plain onnxruntime with exact 8-bit sums. Intervals are 95 % of the paired difference to the float network.
"""

import argparse
import itertools
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from evaluators.task.tasks.classification.cifar10 import Cifar10Task
from evaluators.task.tasks.classification.image_folder import ImageFolderTask
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.zoo.cifar_resnet import CifarResNetModel
from spaces.models.zoo.mobilenet_v2 import MobileNetV2Model
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, Split
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

BATCH = 100
ROUNDINGS = ("nearest", "gptq", "adaround", "brecq")


def case_of(arguments: argparse.Namespace) -> tuple[Artifact, Split, Split, int]:
    """Returns the float network, the calibration split, the test split and the number of calibration images."""
    data = Path(arguments.data)
    if arguments.network == "resnet20":
        n_images = 512
        splits = Cifar10Task(str(data / "cifar10"), calibration=n_images, validation=1_000).splits()
        test = splits.test
    else:
        n_images, cache = 250, str(Path(arguments.cache).expanduser())
        folder = str(data / "imagenet_sample")
        splits = ImageFolderTask(folder, cache, calibration=n_images, validation=249, test=1).splits()
        test = splits.validation
    context = StageContext(splits.calibration, Cache())
    return (
        ExportStage().apply(network_of(arguments), {}, context),
        splits.calibration,
        test,
        n_images,
    )


def network_of(arguments: argparse.Namespace) -> Artifact:
    """Returns the float network in torch."""
    weights = Path(arguments.data) / "weights"
    model: CifarResNetModel | MobileNetV2Model
    if arguments.network == "resnet20":
        model = CifarResNetModel(depth=20, checkpoint=str(weights / "resnet20-12fca82f.th"))
    else:
        model = MobileNetV2Model(checkpoint=str(weights / "mobilenet_v2-b0353104.pth"))
    return model.load(LoadContext(None, Path("unused")))


def session_of(artifact: Artifact) -> ort.InferenceSession:
    """Returns a session of the file."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # exact sums without VNNI
    return ort.InferenceSession(artifact.onnx_bytes, options, providers=["CPUExecutionProvider"])


def answers(artifact: Artifact, split: Split, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the class that the file answers for each example, and the labels."""
    session = session_of(artifact)
    found, labels = [], []
    for inputs, classes in split.batches(BATCH, n):
        found.append(session.run(None, {artifact.input.name: inputs})[0].argmax(1))
        labels.append(classes)
    return np.concatenate(found), np.concatenate(labels)


def rows(arguments: argparse.Namespace) -> Iterator[str]:
    """Yields a line for each width, rounding and seed."""
    start, calibration, test, n_images = case_of(arguments)
    of_float, labels = answers(start, test, arguments.test)
    yield f"float: {100 * (of_float == labels).mean():.2f} % of {len(labels)} images; calibration: {n_images} images"
    for widths, rounding in itertools.product(arguments.widths, arguments.roundings):
        weight_bits, activation_bits = map(int, widths.split("x"))
        for seed in arguments.seeds if rounding in ("adaround", "brecq") else arguments.seeds[:1]:
            values = {
                "calibration_images": n_images, "clipping": "mse", "ends_8_bit": True, "weight_bits": weight_bits,
                "activation_bits": activation_bits, "rounding": rounding, "rounding_steps": arguments.steps,
                "network_steps": arguments.network_steps,
            }  # fmt: skip
            stage, context = (
                QuantizeStage(),
                StageContext(calibration, Cache(), seed, accelerator=arguments.accelerator),
            )
            began = time.perf_counter()
            made = stage.apply(start, stage.defaults() | values, context)
            seconds = time.perf_counter() - began
            got, _ = answers(made, test, arguments.test)
            yield line(
                f"W{weight_bits}A{activation_bits} {rounding:8} seed {seed}", got, of_float, labels, seconds
            )


def line(name: str, got: np.ndarray, of_float: np.ndarray, labels: np.ndarray, seconds: float) -> str:
    """Returns accuracy, paired difference to the float network with its interval, agreement with it, and seconds."""
    difference = (got == labels).astype(float) - (of_float == labels)
    half = 196 * difference.std() / np.sqrt(len(labels))
    return (
        f"{name}: {100 * (got == labels).mean():.2f} %, difference {100 * difference.mean():+.2f} +- {half:.2f} points, "
        f"agreement {100 * (got == of_float).mean():.1f} %, {seconds:.0f} s"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--network", choices=("resnet20", "mobilenet_v2"), required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--widths", nargs="+", default=["4x8"], help="bits of weights x bits of activations")
    parser.add_argument("--roundings", nargs="+", choices=ROUNDINGS, default=list(ROUNDINGS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--network-steps", type=int, default=0, help="steps of tuning the network as a whole")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--cache", default="~/.cache/paredown", help="where decoded images are kept")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for row in rows(parser.parse_args()):
        print(row, flush=True)


if __name__ == "__main__":
    main()
