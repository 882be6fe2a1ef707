"""Times Quantune's 96 configurations, every candidate fully evaluated, against a plain loop of onnxruntime's `quantize_static`.

Run from the root of the repository::

    python tests/benchmarks/quantize_speed.py --network mobilenet_v2 --data DATA
    python tests/benchmarks/quantize_speed.py --network mobilenet_v2 --data DATA --entropy-images 256  # needs some 16 GB
    python tests/benchmarks/quantize_speed.py --network resnet20 --data DATA --plain-every 4

Both sides get the same network, calibration images, validation images and evaluation, and begin with nothing cached; they take turns,
calibration size by calibration size. The plain loop quantizes each configuration by itself, which takes very long:
`--plain-every k` lets it do a k-th of the configurations of each (calibration size, clipping), and extrapolates.

Where the two cannot do the same, the plain loop does less: its entropy calibrator keeps every tensor of all images in memory, so it gets
only so many of them (`--entropy-images`); it has no power-of-two scales, so it rounds symmetrically instead.
"""

import argparse
import io
import itertools
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from evaluators.base import EvaluationContext, Reference
from evaluators.task.accuracy import AccuracyEvaluator, reference_outputs
from evaluators.task.tasks.classification.cifar10 import Cifar10Task
from evaluators.task.tasks.classification.image_folder import ImageFolderTask
from evaluators.task.tasks.task import Task
from search.trials.machine_lock import MachineLock
from search.trials.trial import CompressionRunner, TrialRequest
from spaces.candidate import Candidate
from spaces.models.base import LoadContext
from spaces.models.checkpoint import CheckpointModel
from spaces.models.export import ExportStage
from spaces.models.layers import layers
from spaces.models.zoo.cifar_resnet import CifarResNetModel
from spaces.models.zoo.mobilenet_v2 import MobileNetV2Model
from spaces.quantization.quantize import QuantizeStage
from spaces.space import Space
from spaces.space_config import read_space
from spaces.stages.artifact import Artifact, Split
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import StageContext

SCHEMES = ("asymmetric", "symmetric", "symmetric_uint8", "symmetric_power2")
ASYMMETRIC_ACTIVATIONS = ("asymmetric", "symmetric_uint8")
CLIPPINGS, GRANULARITIES, MIXED = ("max", "kl"), ("tensor", "channel"), (False, True)
BATCH = 32  # of the plain loop's calibration

Stratum = tuple[int, str]
"""Calibration images and clipping."""


@dataclass(frozen=True)
class Case:
    """A network and its data."""

    model: CheckpointModel
    task: Task
    sizes: tuple[int, int, int]
    most_entropy_images: int


@dataclass
class Side:
    """Seconds that one side took."""

    wall_s: dict[Stratum, list[float]] = field(default_factory=dict)
    quantize_s: dict[Stratum, list[float]] = field(default_factory=dict)
    rest_share: list[float] = field(default_factory=list)

    def note(self, stratum: Stratum, wall_s: float, quantize_s: float, inference_s: float) -> None:
        """Adds the seconds of one configuration."""
        self.wall_s.setdefault(stratum, []).append(wall_s)
        self.quantize_s.setdefault(stratum, []).append(quantize_s)
        self.rest_share.append((wall_s - inference_s) / inference_s)

    def n(self) -> int:
        """Number of configurations done."""
        return sum(map(len, self.wall_s.values()))


def total(seconds: dict[Stratum, list[float]], like: Side) -> float:
    """Returns the seconds of as many configurations as `like` has done, from the mean of each stratum."""
    return sum(len(like.wall_s[stratum]) * float(np.mean(values)) for stratum, values in seconds.items())


class InferenceClock:
    """Adds up the seconds within each onnxruntime session's `run`."""

    def __init__(self) -> None:
        self.by_session: dict[int, float] = {}
        plain = ort.InferenceSession.run
        self._kept: list[ort.InferenceSession] = []

        def run(session: ort.InferenceSession, *arguments: object, **more: object) -> object:
            began = time.perf_counter()
            try:
                return plain(session, *arguments, **more)
            finally:
                if id(session) not in self.by_session:
                    self._kept.append(session)  # or another might get its id
                spent = time.perf_counter() - began
                self.by_session[id(session)] = self.by_session.get(id(session), 0.0) + spent

        ort.InferenceSession.run = run

    def last_s(self) -> float:
        """Seconds of the session that ran last, which is the evaluator's; forgets all sessions."""
        found = list(self.by_session.values())[-1]
        self.by_session.clear()
        self._kept.clear()
        return found


class Images(CalibrationDataReader):
    """The first images of a split, as onnxruntime's calibrators read them."""

    def __init__(self, split: Split, name: str, n: int) -> None:
        self._batches = ({name: inputs} for inputs, _ in split.batches(BATCH, n))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next batch."""
        return next(self._batches, None)


def configurations(sizes: tuple[int, ...], every: int) -> Iterator[tuple[Stratum, dict[str, Any]]]:
    """Yields stratum and values; neighbours differ in every knob, so that the first few stand for all."""
    rest = list(itertools.product(SCHEMES, GRANULARITIES, MIXED))
    spread = [rest[5 * i % len(rest)] for i in range(len(rest))]  # 5 and 16 have no common factor
    for size, clipping in itertools.product(sizes, CLIPPINGS):
        for scheme, granularity, mixed in spread[: -(-len(spread) // every)]:
            values = {
                "calibration_images": size,
                "scheme": scheme,
                "clipping": clipping,
                "granularity": granularity,
                "mixed_precision": mixed,
            }
            yield (size, clipping), values


def case_of(arguments: argparse.Namespace) -> Case:
    """Returns the network and the data."""
    data, validation = Path(arguments.data), arguments.validation
    if arguments.network == "resnet20":
        weights = str(data / "weights/resnet20-12fca82f.th")
        most = arguments.entropy_images or 512
        task = Cifar10Task(str(data / "cifar10"), calibration=10_000, validation=validation or 4_000)
        return Case(CifarResNetModel(depth=20, checkpoint=weights), task, (1, 1_000, 10_000), most)
    weights = str(data / "weights/mobilenet_v2-b0353104.pth")
    folder, cache = str(data / "imagenet_sample"), str(Path(arguments.cache).expanduser())
    n = validation or 200
    images = ImageFolderTask(folder, cache, calibration=256, validation=n, test=500 - 256 - n)
    return Case(MobileNetV2Model(checkpoint=weights), images, (1, 64, 256), arguments.entropy_images or 32)


def space_of(case: Case, stage: QuantizeStage, start: Artifact) -> Space:
    """Returns the space of the 96 configurations."""
    knobs = {
        "calibration_images": list(case.sizes),
        "scheme": list(SCHEMES),
        "clipping": list(CLIPPINGS),
        "granularity": list(GRANULARITIES),
        "mixed_precision": list(MIXED),
    }
    names = [layer.name for layer in layers(start.proto())]
    return read_space({"quantize": knobs, "constraints": {}}, [stage], names)


def plain_quantized(
    path: Path, start: Artifact, split: Split, values: dict[str, Any], case: Case, folder: Path
) -> bytes:
    """Returns the file of `quantize_static` for a configuration, or for the nearest one that it supports."""
    asymmetric = values["scheme"] in ASYMMETRIC_ACTIVATIONS
    found = layers(start.proto())
    entropy = values["clipping"] == "kl"
    n = (
        min(values["calibration_images"], case.most_entropy_images)
        if entropy
        else values["calibration_images"]
    )
    quantize_static(
        path,
        folder / "quantized.onnx",
        Images(split, start.input.name, n),
        quant_format=QuantFormat.QDQ,
        per_channel=values["granularity"] == "channel",
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[found[0].node, found[-1].node] if values["mixed_precision"] else [],
        calibrate_method=CalibrationMethod.Entropy if entropy else CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": not asymmetric,
            "WeightSymmetric": values["scheme"] != "asymmetric",
        },
    )
    return (folder / "quantized.onnx").read_bytes()


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", choices=("mobilenet_v2", "resnet20"), required=True)
    parser.add_argument("--data", required=True, help="folder with weights/, cifar10/ and imagenet_sample/")
    parser.add_argument(
        "--validation", type=int, help="validation images (200 of ImageNet, 4000 of CIFAR-10)"
    )
    parser.add_argument("--plain-every", type=int, default=1, help="the plain loop does a k-th of them")
    parser.add_argument(
        "--entropy-images",
        type=int,
        help="at most so many for the plain loop's (32 of ImageNet, 512 of CIFAR-10)",
    )
    parser.add_argument(
        "--every", type=int, default=1, help="both sides do a k-th of the 96, for a quick result"
    )
    parser.add_argument("--threads", type=int, default=1, help="onnxruntime's threads in the evaluation")
    parser.add_argument("--cache", default="~/.cache/paredown", help="where decoded images are kept")
    return parser.parse_args()


def main() -> None:
    """Prints seconds and ratios."""
    arguments = _parsed()
    warnings.simplefilter("ignore")  # the exporter's, about its own dependencies
    logging.disable(logging.WARNING)  # the tool's, once for each model, that it might be preprocessed
    case, clock = case_of(arguments), InferenceClock()
    splits = case.task.splits()
    # A study announces its calibration sizes, so that no image is run twice for several of them.
    context = StageContext(splits.calibration, Cache(), calibration_sizes=case.sizes)
    start = ExportStage().apply(case.model.load(LoadContext(None, Path("unused"))), {}, context)
    evaluator = AccuracyEvaluator(threads=arguments.threads, sqnr_images=0)
    reference = Reference(start, reference_outputs(start, splits.validation))
    judging = EvaluationContext(splits.validation, case.task.metric, reference, {}, 0)
    stage = QuantizeStage()
    space = space_of(case, stage, start)
    runner = CompressionRunner(space, start, Pipeline([stage]), context, judging, [evaluator], MachineLock())
    ours, plain = Side(), Side()
    chosen = list(configurations(case.sizes, arguments.every))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "float.onnx"
        path.write_bytes(start.onnx_bytes)
        for stratum, rows in itertools.groupby(chosen, key=lambda row: row[0]):
            group = list(rows)
            for _, values in group:
                candidate = Candidate({f"quantize.{knob}": value for knob, value in values.items()})
                result = runner.run(TrialRequest(0, candidate))
                if result.outcome != "measured":
                    raise SystemExit(f"{values}: {result.reason}")
                ours.note(stratum, result.wall_s, result.seconds["quantize"], clock.last_s())
            for _, values in group[: -(-len(group) // arguments.plain_every)]:
                began = time.perf_counter()
                with redirect_stdout(io.StringIO()):  # the tool prints what it collects
                    model = plain_quantized(path, start, splits.calibration, values, case, folder)
                quantize_s = time.perf_counter() - began
                evaluator.evaluate(Artifact.onnx(model, start.input), judging)
                plain.note(stratum, time.perf_counter() - began, quantize_s, clock.last_s())
            print(
                f"{stratum[0]} images, {stratum[1]}: " + ", ".join(_means(ours, plain, stratum)), flush=True
            )
    _report(arguments, case, ours, plain, len(splits.validation))


def _means(ours: Side, plain: Side, stratum: Stratum) -> Iterator[str]:
    for name, side in (("paredown", ours), ("plain loop", plain)):
        quantize, wall = np.mean(side.quantize_s[stratum]), np.mean(side.wall_s[stratum])
        yield f"{name} {quantize:.3f} s to quantize, {wall:.3f} s in all"


def _report(arguments: argparse.Namespace, case: Case, ours: Side, plain: Side, n_validation: int) -> None:
    of = {"paredown": ours, "plain loop": plain}
    print(
        f"\n{arguments.network}: {ours.n()} configurations, calibration images {case.sizes}, {n_validation} validation "
        f"images; the plain loop's entropy calibration got at most {case.most_entropy_images} images"
    )
    if plain.n() < ours.n():
        print(f"the plain loop did {plain.n()} of them; its seconds are extrapolated to {ours.n()}")
    for what, seconds in (("wall", "wall_s"), ("quantize step", "quantize_s")):
        mine, theirs = (total(getattr(side, seconds), ours) for side in of.values())
        print(f"{what}: paredown {mine:.1f} s, plain loop {theirs:.1f} s: {theirs / mine:.1f} times")
    for name, side in of.items():
        share = 100 * float(np.median(side.rest_share))
        print(f"{name}: everything but inference, as a share of inference, median: {share:.1f} %")


if __name__ == "__main__":
    main()
