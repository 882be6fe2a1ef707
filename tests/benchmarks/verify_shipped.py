"""Scores a shipped CIFAR-10 file with onnxruntime and numpy alone, and compares with what the study recorded.

Run from the root of the repository, after a study::

    python tests/benchmarks/verify_shipped.py --study outputs/cifar10_resnet20 --data ../shared/data/cifar10/test.npz

Nothing of Paredown is imported: the images are scaled and normalised here by the figures that the checkpoints' authors give,
in single precision as the study does it (`(x * scale - mean) / std`). In double precision the inputs differ by up to 7e-7, which
can move a pixel to the next integer, and so one image in ten thousand to another class.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def accuracy(model: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Returns the top-1 accuracy in per cent of an ONNX file on `(n, 32, 32, 3)` uint8 images."""
    session = onnxruntime.InferenceSession(model)
    name, right = session.get_inputs()[0].name, 0
    for start in range(0, len(images), 500):
        inputs = ((images[start : start + 500] * np.float32(1 / 255) - MEAN) / STD).transpose(0, 3, 1, 2)
        right += int(
            (session.run(None, {name: inputs})[0].argmax(axis=1) == labels[start : start + 500]).sum()
        )
    return 100.0 * right / len(images)


def main() -> None:
    """Prints both figures for every file of the front, and fails if one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    data = np.load(arguments.data)
    best = json.loads((arguments.study / "summary.json").read_text())["best"]["number"]
    with (arguments.study / "pareto.csv").open() as file:
        recorded = {row["number"]: float(row["metric.test_top1"]) for row in csv.DictReader(file)}
    differing = 0
    for number, top1 in recorded.items():
        found = accuracy(arguments.study / "models" / f"trial_{number}.onnx", data["x"], data["y"])
        differing += abs(found - top1) > 1e-9
        print(
            f"trial {number}{' (best)' if number == str(best) else ''}: recorded {top1:.2f} %, here {found:.2f} %"
        )
    raise SystemExit(f"{differing} files differ" if differing else 0)


if __name__ == "__main__":
    main()
