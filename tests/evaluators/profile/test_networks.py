import numpy as np
import onnx
import pytest

from evaluators.cost.graph.runtime_graph import runtime_graph
from evaluators.profile.app import networks
from evaluators.profile.blocks import MOST_MACS
from evaluators.profile.forms import FORMS, quantized
from evaluators.profile.networks import random_network
from spaces.errors import StageError


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_are_valid_and_run(seed):
    artifact = random_network(np.random.default_rng(seed))
    onnx.checker.check_model(artifact.proto(), full_check=True)
    graph = runtime_graph(artifact)
    assert graph.kernels
    assert graph.macs < 20 * MOST_MACS


def test_the_network_depends_on_the_seed():
    first, second = (random_network(np.random.default_rng(5)).digest for _ in range(2))
    assert first == second
    assert random_network(np.random.default_rng(6)).digest != first


@pytest.mark.parametrize("form", [form for form, _ in FORMS])
def test_every_form_can_be_built_and_run(form):
    random = np.random.default_rng(3)
    built = []
    while len(built) < 3:
        try:
            built.append(quantized(random_network(random), form, random))
        except StageError:
            continue
    for artifact in built:
        assert any(k.dtype == "int8" for k in runtime_graph(artifact).kernels)


def test_the_forms_are_those_of_the_quantize_stage():
    """The optimized graph is that of the stage's file, which has calibrated ranges."""
    from evaluators.profile.forms import Form
    from evaluators.testing import RandomSplit, tiny_model
    from spaces.quantization.quantize import QuantizeStage
    from spaces.stages.cache import Cache
    from spaces.stages.stage import StageContext

    artifact, stage = tiny_model(), QuantizeStage()
    values = {**stage.defaults(), "calibration_images": 8}
    staged = stage.apply(artifact, values, StageContext(RandomSplit(8), Cache()))
    ours = quantized(artifact, Form(), np.random.default_rng(0))
    assert [k.op for k in runtime_graph(ours).kernels] == [k.op for k in runtime_graph(staged).kernels]


def test_networks_have_the_requested_dtypes():
    random = np.random.default_rng(0)
    floats = list(networks(random, ("float32",), 4))
    integers = list(networks(random, ("int8",), 4))
    has_quantize = [
        any(n.op_type == "QuantizeLinear" for n in a.proto().graph.node) for a in floats + integers
    ]
    assert has_quantize == [False] * 4 + [True] * 4
