"""Other tools' rounding beside ours: the same ResNet-20 and calibration images, one after the other on the same cores.

Run from the root of the repository::

    python tests/benchmarks/few_bits_peers.py --data DATA --widths 4x8 3x8 --peers aimet gptq adaround
    python tests/benchmarks/few_bits_peers.py --data DATA --widths 4x8 3x8 --peers brevitas_gptq brevitas_qronos brevitas_round gptq adaround

`aimet` needs `pip install aimet-onnx` (2.42 was used), `brevitas_*` need `pip install brevitas accelerate` (0.13.4 was used) beside the project.

Weights per channel, batch normalisation folded, first and last layer at 8 bits, activations per tensor. A peer is run as it simulates its model, ours as
the file that users get. Seconds are of quantizing alone, calibration included;
those of CPU compare tools on a machine that others use.

Brevitas is called as its `brevitas_examples.imagenet_classification.ptq` does, in the settings of its best result for ResNet-18 at W4A8
(RESULTS_TORCHVISION_BEST_CONFIGS.csv: layerwise, float scales per channel, asymmetric activations, 20 iterations of equalization, order by activations,
percentile 99.999, bias correction), and with weights' scales by the least squared error as ours have them. Layerwise leaves sums in float, where our file
has 8 bits; its other form, fx, stops at the shortcuts' slices (`tuple indices must be integers`). Its learned rounding has its defaults of 1,000 iterations a layer and the regularised error;
`--peer-batch` examples an iteration and `--peer-rate` are ours, since its own (1 and 0.001) hardly move the rounding.
"""

import argparse
import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import few_bits
import numpy as np
import onnx
from numpy.typing import NDArray

from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, Split
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

QUANTIZED = ("Conv", "Gemm", "MatMul")
BATCH = 32  # calibration examples that a peer sees at once

Answers = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Maps inputs to logits."""


@dataclass(frozen=True)
class Case:
    """What is quantized.

    Attributes:
        given: The command line.
        start: The float network.
        calibration: Its examples.
        n: Their number.
        bits: Of weights and activations.
    """

    given: argparse.Namespace
    start: Artifact
    calibration: Split
    n: int
    bits: tuple[int, int]

    def batches(self) -> list[NDArray[np.float32]]:
        """Returns the calibration examples."""
        return [inputs for inputs, _ in self.calibration.batches(BATCH, self.n)]


def aimet(case: Case) -> Answers:
    """AIMET's AdaRound, as many steps as ours."""
    import aimet_onnx.common.quantsim_config as configs
    from aimet_onnx import QuantizationSimModel, apply_adaround, int8

    config = Path(next(iter(configs.__path__))) / "default_config_per_channel.json"
    name = case.start.input.name
    examples = [{name: inputs} for inputs in case.batches()]
    proto = onnx.load_model_from_string(case.start.onnx_bytes)
    layers = [node for node in proto.graph.node if node.op_type in QUANTIZED]
    sim = QuantizationSimModel(
        proto, param_type=int8, activation_type=int8, quant_scheme="min_max", config_file=str(config), providers=["CPUExecutionProvider"],
    )  # fmt: skip
    for node in layers[1:-1]:
        sim.qc_quantize_op_dict[node.input[1]].set_bitwidth(case.bits[0])
        if case.bits[1] != 8 and node.input[0] in sim.qc_quantize_op_dict:
            sim.qc_quantize_op_dict[node.input[0]].set_bitwidth(case.bits[1])
    apply_adaround(sim, examples, num_iterations=case.given.steps)
    sim.compute_encodings(examples)
    return lambda x: np.asarray(sim.session.run(None, {name: x})[0])


def brevitas(case: Case, rounding: str) -> Answers:
    """Brevitas' `gptq`, `qronos` or learned `round`."""
    import torch
    from brevitas.export.inference import quant_inference_mode
    from brevitas_examples.imagenet_classification.ptq import ptq_common as ptq

    loader = [(torch.from_numpy(x), None) for x in case.batches()]
    model = _brevitas_model(case)
    with torch.no_grad():
        model(loader[0][0])  # some quantizers take their scales from the first batch
    ptq.calibrate(loader, model)
    if rounding == "gptq":
        ptq.apply_gptq(loader, model, act_order=True)
    elif rounding == "qronos":
        ptq.apply_qronos(model, loader)
    else:
        _brevitas_round(case, model, loader)
    ptq.apply_bias_correction(loader, model)

    def answers(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad(), quant_inference_mode(model):
            return np.asarray(model(torch.from_numpy(x)))

    return answers


def _brevitas_model(case: Case) -> Any:
    """Returns the network with Brevitas' quantizers."""
    import torch
    from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize
    from brevitas.inject import value
    from brevitas_examples.imagenet_classification.ptq.ptq_common import create_quant_maps

    @value  # type: ignore[untyped-decorator]
    def width(module: torch.nn.Module) -> int:
        first = isinstance(module, torch.nn.Conv2d) and module.in_channels == 3
        return 8 if first or isinstance(module, torch.nn.Linear) else case.bits[0]

    _, layers, *_ = create_quant_maps(
        torch.float32, bias_bit_width=32, weight_bit_width=width, weight_param_method="mse", weight_scale_type="float_scale",
        weight_quant_type="sym", weight_quant_granularity="per_channel", weight_narrow_range=False, weight_quant_format="int",
        act_quant_format="int", act_bit_width=case.bits[1], act_scale_type="float_scale", act_scale_computation_type="static",
        act_param_method="stats", act_quant_type="asym", act_quant_granularity="per_tensor", act_quant_percentile=99.999,
    )  # fmt: skip
    network = few_bits.network_of(case.given).model
    prepared = preprocess_for_quantize(network.eval(), equalize_iters=20)
    return layerwise_quantize(prepared, compute_layer_map=layers).eval()


def _brevitas_round(case: Case, model: Any, loader: list[Any]) -> None:
    """Learns the rounding layer by layer, in place."""
    from functools import partial

    from brevitas_examples.imagenet_classification.ptq import learned_round_utils as learned

    config = learned.parse_args_to_dataclass(
        argparse.Namespace(
            learned_round="hard_sigmoid", learned_round_loss="regularised_mse", learned_round_iters=1000, learned_round_lr_scheduler=None,
            learned_round_lr=case.given.peer_rate, learned_round_batch_size=case.given.peer_batch,
        )
    )  # fmt: skip
    config.training_args.use_amp = False  # half precision is slow on a CPU
    with contextlib.redirect_stdout(io.StringIO()):
        learned.LearnedRoundTrainer(config).train(
            model, learned.vision_forward, learned.vision_block_forward, loader, learned.CacheVision(),
            partial(learned.get_blocks, block_check_fn=learned.is_layer),
        )  # fmt: skip


def ours(case: Case, rounding: str) -> Answers:
    """Our file in plain onnxruntime."""
    values = {
        "calibration_images": case.n, "clipping": "mse", "ends_8_bit": True, "weight_bits": case.bits[0], "activation_bits": case.bits[1],
        "rounding": rounding, "rounding_steps": case.given.steps,
    }  # fmt: skip
    stage = QuantizeStage()
    context = StageContext(case.calibration, Cache(), 0, accelerator="cpu")
    session = few_bits.session_of(stage.apply(case.start, stage.defaults() | values, context))
    return lambda x: np.asarray(session.run(None, {case.start.input.name: x})[0])


PEERS: Mapping[str, Callable[[Case], Answers]] = MappingProxyType({
    "aimet": aimet,
    "brevitas_gptq": lambda case: brevitas(case, "gptq"),
    "brevitas_qronos": lambda case: brevitas(case, "qronos"),
    "brevitas_round": lambda case: brevitas(case, "round"),
    "gptq": lambda case: ours(case, "gptq"),
    "adaround": lambda case: ours(case, "adaround"),
})  # fmt: skip


def rows(given: argparse.Namespace) -> Iterator[str]:
    """Yields a line for each width and peer."""
    start, calibration, test, n = few_bits.case_of(given)
    of_float, labels = few_bits.answers(start, test, given.test)
    yield f"float: {100 * (of_float == labels).mean():.2f} % of {len(labels)} images; {n} calibration images, {given.steps} steps"
    for widths in given.widths:
        weight_bits, activation_bits = map(int, widths.split("x"))
        for name in given.peers:
            began, busy = time.perf_counter(), time.process_time()
            answers = PEERS[name](Case(given, start, calibration, n, (weight_bits, activation_bits)))
            seconds, busy = time.perf_counter() - began, time.process_time() - busy
            got = np.concatenate([answers(x).argmax(1) for x, _ in test.batches(few_bits.BATCH, given.test)])
            row = few_bits.line(f"W{weight_bits}A{activation_bits} {name:15}", got, of_float, labels, seconds)
            yield f"{row}, {busy:.0f} s of CPU"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--widths", nargs="+", default=["4x8", "3x8"])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["aimet", "gptq", "adaround"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--peer-batch", type=int, default=32, help="examples a step of Brevitas' rounding")
    parser.add_argument("--peer-rate", type=float, default=0.01, help="learning rate of Brevitas' rounding")
    parser.add_argument("--test", type=int, default=10_000)
    parser.set_defaults(network="resnet20")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for row in rows(parser.parse_args()):
        print(row, flush=True)


if __name__ == "__main__":
    main()
