"""How well a profile of this machine predicts whole networks that it was not fitted to.

Run from the root of the repository, with nothing else running::

    python tests/benchmarks/host_profile.py --data ../shared/data                # profiles first, 5 minutes
    python tests/benchmarks/host_profile.py --data ../shared/data --profile DIR/device/NAME.yaml

Every network is timed in float and as the quantize stage's int8 file at batch 1, in rounds in which all take turns; its
latency is the median over all rounds, the first run of each turn left out. Beside the prediction stand a MAC count with
the best scale (fitted to these very networks) and the profile's figures without the learned correction. How fast an
anchor network ran at the median while profiling is in the profile's first lines; that of the measurement is printed.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml
from scipy.stats import spearmanr

from evaluators.cost.graph import OpGraph, op_graph
from evaluators.cost.graph.runtime_graph import runtime_graph
from evaluators.cost.latency.measured import pinned
from evaluators.cost.latency.roofline import roofline
from evaluators.devices.config import device_from_config
from evaluators.profile.machine_load import Anchor, times_us
from evaluators.profile.measure import open_anchor, runner
from evaluators.testing import RandomSplit
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.onnx_file import OnnxModel
from spaces.models.zoo.cifar_resnet import CifarResNetModel
from spaces.models.zoo.digits_cnn import DigitsCNNModel
from spaces.models.zoo.mobilenet_v2 import MobileNetV2Model
from spaces.models.zoo.squeezenet import SqueezeNetModel
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

RESNETS = (20, 32, 56)
MOBILENETS = (
    *((0.25, 96), (0.35, 64), (0.35, 160), (0.5, 96), (0.5, 128), (0.5, 224)),
    *((0.75, 128), (0.75, 160), (1.0, 64), (1.0, 128), (1.0, 224), (1.4, 96)),
)
SQUEEZENETS = (96, 160, 224)
TINY = {"ad": "ad01_fp32", "kws": "kws_ref_model_float32", "ic": "pretrainedResnet", "vww": "vww_96_float"}
BLOCK_US = 5000.0


@dataclass
class Network:
    """One file: its name, dtype and timings."""

    name: str
    dtype: str
    artifact: Artifact
    blocks_us: list[np.ndarray] = field(default_factory=list)

    @property
    def latency_us(self) -> float:
        """Median of all counted runs."""
        return float(np.median(np.concatenate(self.blocks_us)))


def sources(data: Path) -> Iterator[tuple[str, Artifact]]:
    """Yields the networks with random weights; those of MLPerf Tiny come from their files."""
    context = LoadContext(None, Path(tempfile.gettempdir()))
    for depth in RESNETS:
        yield f"resnet{depth}", CifarResNetModel(depth, None).load(context)
    for width, size in MOBILENETS:
        classes = 1000 if size > 100 else 100
        yield (
            f"mobilenet_v2_{width}_{size}",
            MobileNetV2Model(None, width, classes, (3, size, size)).load(context),
        )
    for size in SQUEEZENETS:
        yield f"squeezenet_{size}", SqueezeNetModel(None, 1000, (3, size, size)).load(context)
    digits = DigitsCNNModel(None)
    yield "digits_cnn", torch_artifact(digits.build_seeded(0), InputSpec(digits.input_shape))
    for name, file in TINY.items():
        yield f"mlperf_tiny_{name}", OnnxModel(str(data / "mlperf_tiny" / f"{file}.onnx")).load(context)


def networks(data: Path) -> Iterator[Network]:
    """Yields every network in float and in int8."""
    export, quantize = ExportStage(), QuantizeStage()
    for name, artifact in sources(data):
        exported = export.apply(artifact, {}, StageContext(None, Cache()))
        context = StageContext(RandomSplit(8, exported.input.shape), Cache())
        values = {**quantize.defaults(), "calibration_images": 8}
        yield Network(name, "float32", exported)
        yield Network(name, "int8", quantize.apply(exported, values, context))


def time_in_turns(found: list[Network], rounds: int, threads: int) -> Anchor:
    """Times all networks in every round; returns the anchor network, which is timed between them."""
    with pinned(threads):
        anchor = open_anchor(threads)
        runs = [runner(network.artifact, threads) for network in found]
        once = [float(np.median(times_us(run, 3))) for run in runs]
        random = np.random.default_rng(0)
        for turn in range(rounds):
            print(f"\rround {turn + 1} of {rounds}  ", end="", file=sys.stderr)
            for i in random.permutation(len(found)):
                anchor.timing_us()
                found[i].blocks_us.append(times_us(runs[i], int(np.clip(BLOCK_US / once[i], 3, 60))))
    return anchor


def figures(name: str, predicted: np.ndarray, measured: np.ndarray) -> str:
    """One line: shares, error, rank correlation."""
    errors = np.abs(predicted / measured - 1)
    return (
        f"{name:44s} within 10 %: {np.mean(errors <= 0.1):6.1%}   within 20 %: {np.mean(errors <= 0.2):6.1%}   "
        f"MAPE {np.mean(errors):6.1%}   Spearman {spearmanr(predicted, measured)[0]:.4f}"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--minutes", default="5")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    profile = arguments.profile
    if profile is None:
        folder = tempfile.mkdtemp(prefix="paredown-profile-")
        command = [sys.executable, "-m", "evaluators.profile.app", "--name", "this_machine", "--out", folder]
        subprocess.run([*command, "--minutes", arguments.minutes, "--seed", arguments.seed], check=True)
        profile = Path(folder) / "device/this_machine.yaml"
    ((name, section),) = yaml.safe_load(profile.read_text()).items()
    device = device_from_config(name, section, str(profile))
    found = list(networks(arguments.data))
    anchor = time_in_turns(found, arguments.rounds, 1)
    report(found, device, anchor, arguments.csv)


def report(found: list[Network], device, anchor: Anchor, file: Path | None) -> None:
    """Prints every network and the summary; writes the rows."""
    graphs: list[OpGraph] = [runtime_graph(network.artifact) for network in found]
    measured = np.array([network.latency_us for network in found])
    predicted = np.array([1e3 * roofline(graph, device).latency_ms for graph in graphs])
    plain = np.array([1e3 * roofline(graph, replace(device, residual=None)).latency_ms for graph in graphs])
    macs = np.array([float(op_graph(network.artifact).macs) for network in found])
    by_macs = macs * np.exp(np.median(np.log(measured / macs)))
    rows = [
        (n.name, n.dtype, f"{m:.1f}", f"{p:.1f}", f"{100 * (p / m - 1):+.1f}")
        for n, m, p in zip(found, measured, predicted, strict=True)
    ]
    print(f"\n{'network':28s} {'dtype':8s} {'measured us':>12s} {'predicted us':>12s} {'error %':>8s}")
    for row in rows:
        print(f"{row[0]:28s} {row[1]:8s} {row[2]:>12s} {row[3]:>12s} {row[4]:>8s}")
    print(
        f"\n{len(found)} networks; the anchor took {anchor.typical_us:.1f} us at the median, "
        f"{anchor.typical_us / anchor.calm_us:.2f}x its calm time ({anchor.calm_share:.0%} of the moments)"
    )
    print(figures("profile with its learned correction", predicted, measured))
    for dtype in ("float32", "int8"):
        of = np.array([n.dtype == dtype for n in found])
        print(figures(f"  {dtype}", predicted[of], measured[of]))
    print(figures("profile's figures alone (NNLS roofline)", plain, measured))
    print(figures("MACs, one scale fitted to these networks", by_macs, measured))
    if file is not None:
        with file.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(("network", "dtype", "measured_us", "predicted_us", "error_percent"))
            writer.writerows(rows)


if __name__ == "__main__":
    main()
