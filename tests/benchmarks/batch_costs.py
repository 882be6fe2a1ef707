"""Times the costs of very many candidates that differ in bit widths only, on one core.

Run from the root of the repository::

    python tests/benchmarks/batch_costs.py --candidates 10000 --devices 25

Every candidate gets random bit widths (4 or 8) for each layer's weight; a few of them are worked out once more on their own, by
`with_bits`, and compared. Weights are random: sizes decide costs, not values.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import yaml

from evaluators.cost.batch import Skeleton
from evaluators.cost.graph import OpGraph, op_graph
from evaluators.cost.graph.bits import layers_of, with_bits
from evaluators.cost.latency.roofline import roofline
from evaluators.cost.memory import plan_memory
from evaluators.devices.config import devices_from_config
from evaluators.devices.device import Device
from spaces.models.export import ExportStage
from spaces.models.zoo.cifar_resnet import CifarResNet
from spaces.models.zoo.mobilenet_v2 import MobileNetV2
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

CATALOGUE = Path("conf/device")
N_COMPARED = 20


def quantized(module: torch.nn.Module, shape: tuple[int, ...]) -> Artifact:
    """Returns the module as an 8-bit ONNX file."""
    context = StageContext(noise_split(shape, 2), Cache())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about its own dependencies
        exported = ExportStage().apply(
            Artifact("torch", module.eval(), InputSpec(shape), "random"), {}, context
        )
    return QuantizeStage().apply(exported, {"calibration_images": 2}, context)


def catalogue(n: int) -> dict[str, Device]:
    """Returns the first `n` modelled devices of the catalogue that run integers."""
    found: dict[str, Device] = {}
    for file in sorted(CATALOGUE.glob("*.yaml")):
        profiles = {k: v for k, v in yaml.safe_load(file.read_text()).items() if k != "defaults"}
        devices = devices_from_config(profiles) if profiles else {}
        found |= {k: d for k, d in devices.items() if not d.measured and d.throughput("int4") is not None}
    return dict(list(found.items())[:n])


def largest_difference(
    graph: OpGraph, costs: dict, bits: tuple[np.ndarray, np.ndarray], devices: dict
) -> float:
    """Returns the largest relative difference to the costs of single graphs, over some candidates."""
    worst = 0.0
    for row in range(min(N_COMPARED, len(bits[0]))):
        one = with_bits(graph, bits[0][row].tolist(), bits[1][row].tolist())
        for name, device in devices.items():
            expected = {"weight_bytes": one.weight_bytes, "latency_ms": roofline(one, device).latency_ms}
            if device.deployment.arena == "liveness" and device.deployment.patches == 1:
                expected["peak_sram_bytes"] = plan_memory(one, device.deployment).peak_sram_bytes
            for cost, value in expected.items():
                if cost in costs[name]:
                    worst = max(worst, abs(costs[name][cost][row] / value - 1))
    return worst


def main() -> None:
    """Prints one row for every network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    networks = {
        "ResNet-20, 32x32": quantized(CifarResNet(20), (3, 32, 32)),
        "MobileNetV2, 224x224": quantized(MobileNetV2(), (3, 224, 224)),
    }
    devices = catalogue(arguments.devices)
    random = np.random.default_rng(arguments.seed)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("network | layers | kernels | read (ms) | candidates | devices | seconds | largest difference")
    for name, artifact in networks.items():
        started = time.perf_counter()
        graph = op_graph(artifact)
        read_ms = 1e3 * (time.perf_counter() - started)
        shape = (arguments.candidates, len(layers_of(graph)))
        bits = random.choice([4, 8], shape), np.full(shape, 8)
        started = time.perf_counter()
        costs = Skeleton(graph).costs(*bits, devices)
        seconds = time.perf_counter() - started
        print(
            f"{name} | {len(layers_of(graph))} | {len(graph.kernels)} | {read_ms:.1f} | {shape[0]} | {len(devices)} | "
            f"{seconds:.2f} | {largest_difference(graph, costs, bits, devices):.1e}"
        )


if __name__ == "__main__":
    main()
