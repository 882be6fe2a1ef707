"""Which formats of weights and activations a device's runtime takes."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from evaluators.cost.cost import CostEvaluator
from evaluators.cost.graph import op_graph
from evaluators.cost.graph.formats import activation_format, unsupported, weight_format, why_unsupported
from evaluators.devices.config import device_from_config
from evaluators.devices.device import Device
from evaluators.testing import tiny_context, tiny_model
from spaces.errors import ConfigError
from spaces.quantization.formats.dynamic import to_dynamic_uint8
from spaces.quantization.formats.float16 import to_float16
from spaces.quantization.formats.onnx_weights import encode_layers, with_packed_weights
from spaces.quantization.formats.shift_add import ShiftAdd
from spaces.quantization.formats.stored import record_simulated
from spaces.quantization.formats.uniform import Uniform
from spaces.stages.artifact import Artifact

PROFILES = Path(__file__).parents[4] / "conf" / "device"


def profile(name: str) -> Device:
    text = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8")
    return device_from_config(name, yaml.safe_load(text)[name], name)


def weight_only(form) -> Artifact:
    model = tiny_model()
    packed = encode_layers(model.proto(), {"kernel": form})
    return Artifact.onnx(with_packed_weights(model.proto(), packed), model.input)


@pytest.mark.parametrize(
    ("model", "weights", "activations"),
    [
        (tiny_model(), "float32", "float32"),
        (tiny_model(8), "int8", "int8"),
        (tiny_model(4), "int4", "int8"),
        (weight_only(Uniform(3)), "int4", "float32"),
        (weight_only(Uniform(5)), "int8", "float32"),
    ],
)
def test_formats_of_a_convolution(model, weights, activations):
    kernel = next(k for k in op_graph(model).kernels if k.kind == "conv")
    assert (weight_format(kernel), activation_format(kernel)) == (weights, activations)


def test_a_profile_without_formats_restricts_nothing():
    assert unsupported(op_graph(tiny_model(4)), profile("host")) == {}


@pytest.mark.parametrize("name", ["stm32h743", "stm32l4r5", "stm32l4r5_cube_ai_8", "stm32l4r5_cube_ai_10"])
def test_x_cube_ai_takes_8_bits_and_floats_only(name):
    device = profile(name)
    assert unsupported(op_graph(tiny_model()), device) == {}
    assert unsupported(op_graph(tiny_model(8)), device) == {}
    found = unsupported(op_graph(tiny_model(4)), device)
    assert list(found.values()) == ["int4 weights"]
    (layer,) = found
    assert why_unsupported(found, device) == (
        f"{device.runtime} takes float32, int8 weights and float32, int8 activations, but {layer} has int4 weights"
    )


def costs(model: Artifact, device: Device):
    context = replace(tiny_context(), devices={device.name: device})
    evaluation = CostEvaluator().evaluate(model, context)
    return {m.name: m.value for m in evaluation.measurements}, evaluation.details["because"]


def test_a_file_that_the_runtime_does_not_take_has_no_latency_there():
    device = profile("stm32h743")
    values, _ = costs(tiny_model(8), device)
    assert values["unsupported_layers"] == 0
    assert values["latency_ms"] > 0
    values, because = costs(tiny_model(4), device)
    assert values["unsupported_layers"] == 1
    assert "latency_ms" not in values
    assert because["cost.stm32h743.latency_ms"] == because["cost.stm32h743.unsupported_layers"]
    assert because["cost.stm32h743.latency_ms"].startswith("X-CUBE-AI 7.3 takes float32, int8 weights")


def test_simulated_weights_have_no_latency_anywhere():
    model = weight_only(ShiftAdd(3))
    for name in ("stm32h743", "raspberry_pi_4"):
        values, because = costs(model, profile(name))
        assert "latency_ms" not in values
        assert (
            "computes kernel in standard operators, which simulates weight_format=shift_add"
            in because[f"cost.{name}.latency_ms"]
        )
    assert costs(model, profile("stm32h743"))[0]["unsupported_layers"] == 1


@pytest.mark.parametrize(
    ("convert", "found"),
    [
        (to_float16, {"float16 activations", "float16 weights"}),
        (to_dynamic_uint8, {"dynamic_int8 activations"}),
    ],
)
def test_x_cube_ai_takes_no_other_precision(convert, found):
    model, device = tiny_model(), profile("stm32h743")
    made = Artifact.onnx(convert(model.proto()), model.input)
    assert set(unsupported(op_graph(made), device).values()) <= found
    values, because = costs(made, device)
    assert values["unsupported_layers"] == 2
    assert "latency_ms" not in values
    assert any(text in because["cost.stm32h743.latency_ms"] for text in found)
    assert unsupported(op_graph(made), profile("raspberry_pi_4")) == {}


def test_narrow_activations_have_no_latency_anywhere():
    proto = tiny_model().proto()
    record_simulated(proto, {"kernel": "activation_bits=4"})
    for name in ("stm32h743", "raspberry_pi_4"):
        values, because = costs(Artifact.onnx(proto, tiny_model().input), profile(name))
        assert "latency_ms" not in values
        assert (
            "computes kernel in standard operators, which simulates activation_bits=4"
            in because[f"cost.{name}.latency_ms"]
        )


def test_refuses_unknown_formats():
    given = {"runtime": "r", "macs_per_s": {"int8": 1e9}, "weight_formats": ["int3"]}
    with pytest.raises(ConfigError, match=r"Unknown format 'int3' in d.weight_formats"):
        device_from_config("d", given, "d")
