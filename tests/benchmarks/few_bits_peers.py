"""AIMET's AdaRound beside ours: the same ONNX file of ResNet-20, the same calibration images, the same number of steps.

Needs `pip install aimet-onnx` (2.42 was used) beside the project. Run from the root of the repository::

    python tests/benchmarks/few_bits_peers.py --data DATA --widths 4x8 3x8

Weights per channel, first and last layer at 8 bits, activations per tensor. AIMET's model is run as AIMET simulates it in onnxruntime, ours as the file
that users get. Seconds are of rounding alone, one after the other on the same cores.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import few_bits
import numpy as np
import onnx

from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, Split
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

QUANTIZED = ("Conv", "Gemm", "MatMul")


def aimet(start: Artifact, calibration: Split, n: int, bits: tuple[int, int], steps: int) -> Any:
    """Returns AIMET's simulation after AdaRound; its session lives as long as it does."""
    import aimet_onnx.common.quantsim_config as configs
    from aimet_onnx import QuantizationSimModel, apply_adaround, int8

    config = Path(next(iter(configs.__path__))) / "default_config_per_channel.json"
    examples = [{start.input.name: inputs} for inputs, _ in calibration.batches(32, n)]
    proto = onnx.load_model_from_string(start.onnx_bytes)
    layers = [node for node in proto.graph.node if node.op_type in QUANTIZED]
    sim = QuantizationSimModel(
        proto, param_type=int8, activation_type=int8, quant_scheme="min_max", config_file=str(config), providers=["CPUExecutionProvider"],
    )  # fmt: skip
    for node in layers[1:-1]:
        sim.qc_quantize_op_dict[node.input[1]].set_bitwidth(bits[0])
        if bits[1] != 8 and node.input[0] in sim.qc_quantize_op_dict:
            sim.qc_quantize_op_dict[node.input[0]].set_bitwidth(bits[1])
    apply_adaround(sim, examples, num_iterations=steps)
    sim.compute_encodings(examples)
    return sim


def ours(
    start: Artifact, calibration: Split, n: int, bits: tuple[int, int], steps: int, rounding: str
) -> Artifact:
    """Returns our file."""
    values = {
        "calibration_images": n, "clipping": "mse", "ends_8_bit": True, "weight_bits": bits[0], "activation_bits": bits[1],
        "rounding": rounding, "rounding_steps": steps,
    }  # fmt: skip
    stage = QuantizeStage()
    return stage.apply(
        start, stage.defaults() | values, StageContext(calibration, Cache(), 0, accelerator="cpu")
    )


def rows(given: argparse.Namespace) -> Iterator[str]:
    """Yields a line for each width and tool."""
    start, calibration, test, n = few_bits.case_of(given)
    of_float, labels = few_bits.answers(start, test, given.test)
    yield f"float: {100 * (of_float == labels).mean():.2f} % of {len(labels)} images; {n} calibration images, {given.steps} steps"
    for widths in given.widths:
        weight_bits, activation_bits = map(int, widths.split("x"))
        bits = (weight_bits, activation_bits)
        for name in ("AIMET AdaRound", "gptq", "adaround"):
            began = time.perf_counter()
            if name.startswith("AIMET"):
                sim = aimet(start, calibration, n, bits, given.steps)
                seconds = time.perf_counter() - began
                got = np.concatenate([
                    sim.session.run(None, {start.input.name: x})[0].argmax(1) for x, _ in test.batches(few_bits.BATCH, given.test)
                ])  # fmt: skip
            else:
                made = ours(start, calibration, n, bits, given.steps, name)
                seconds = time.perf_counter() - began
                got, _ = few_bits.answers(made, test, given.test)
            yield few_bits.line(f"W{weight_bits}A{activation_bits} {name:14}", got, of_float, labels, seconds)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--widths", nargs="+", default=["4x8", "3x8"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--test", type=int, default=10_000)
    parser.set_defaults(network="resnet20")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for row in rows(parser.parse_args()):
        print(row, flush=True)


if __name__ == "__main__":
    main()
