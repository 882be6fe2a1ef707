from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.graph import Kernel, OpGraph, op_graph
from evaluators.cost.memory import peak_activation_bytes
from evaluators.testing import model_from_text
from spaces.artifact import Artifact, InputSpec

MLPERF_TINY = Path(__file__).parents[3].parent / "shared/data/mlperf_tiny"


@pytest.mark.parametrize(
    ("file", "shape", "peak_of_int8_kib"),
    [
        # Published arenas of the int8 networks: 0.8, 48.0, 15.6 KiB; 54 KiB live of the last one's 63.
        ("ad01_fp32.onnx", (640,), 0.75),
        ("pretrainedResnet.onnx", (32, 32, 3), 48),
        ("kws_ref_model_float32.onnx", (49, 10, 1), 15.625),
        ("vww_96_float.onnx", (96, 96, 3), 54),
    ],
)
def test_peaks_of_published_networks(file, shape, peak_of_int8_kib):
    path = MLPERF_TINY / file
    if not path.exists():
        pytest.skip(f"{path} is absent")
    graph = op_graph(Artifact.onnx(path.read_bytes(), InputSpec(shape, "input_1")))
    assert peak_activation_bytes(graph) == 4 * 1024 * peak_of_int8_kib  # float32 takes four times int8


def test_elementwise_writes_over_an_input_that_dies():
    text = """g (float[n,16] input) => (float[n,{width}] output) {{
        a = MatMul(input, weight)
        b = Sigmoid(a)
        {last}
    }}"""
    weight = {"weight": np.zeros((16, 16), np.float32)}
    dies = model_from_text(text.format(width=16, last="output = Tanh(b)"), weight)
    assert (
        peak_activation_bytes(op_graph(dies)) == 2 * 64
    )  # the product needs both its sides, nothing else more
    lives = model_from_text(text.format(width=32, last="output = Concat<axis = 1>(a, b)"), weight)
    assert peak_activation_bytes(op_graph(lives)) == 64 + 64 + 128


def test_input_that_is_also_output_stays():
    model = model_from_text(
        """g (float[n,16] input) => (float[n,16] hidden, float[n,16] output) {
            hidden = Sigmoid(input)
            output = Tanh(hidden)
        }""",
        {},
    )
    assert peak_activation_bytes(op_graph(model)) == 2 * 64


@st.composite
def graphs(draw):
    """Chains of kernels that each read some earlier tensors; none works in place."""
    sizes = draw(st.lists(st.integers(1, 100), min_size=2, max_size=8))
    names = [f"t{i}" for i in range(len(sizes))]
    kernels = []
    for i in range(1, len(names)):
        read = draw(st.sets(st.sampled_from(names[:i]), min_size=1))
        kernels.append(
            Kernel(f"k{i}", "Op", "other", "float32", 0, 0, tuple(sorted(read)), (names[i],), 0, 0)
        )
    return OpGraph(tuple(kernels), ("t0",), (names[-1],), dict(zip(names, sizes, strict=True)), 0, {})


@given(graphs())
def test_peak_is_the_largest_sum_of_live_tensors(graph):
    made_at = {"t0": -1} | {k.outputs[0]: i for i, k in enumerate(graph.kernels)}
    used_at = {name: [i for i, k in enumerate(graph.kernels) if name in k.inputs] for name in made_at}
    end = len(graph.kernels)

    def is_live(name, at):
        last = max([made_at[name], *used_at[name]]) if name not in graph.outputs else end
        return made_at[name] <= at <= last

    sums = [sum(graph.tensor_bytes[n] for n in made_at if is_live(n, at)) for at in range(-1, end)]
    assert peak_activation_bytes(graph) == max(sums)
