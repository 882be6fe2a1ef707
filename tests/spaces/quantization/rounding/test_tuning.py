"""Tuning of the whole network, and scales by weighted errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.quantization.quantize import QuantizeStage
from spaces.quantization.rounding import tuning
from spaces.quantization.rounding.grids import weighted_scale
from spaces.quantization.rounding.methods import METHODS
from spaces.quantization.rounding.testing import RoundingConformance
from spaces.quantization.rounding.tuning import Tuning
from spaces.stages.cache import Cache
from tests.spaces.quantization.rounding.test_rounding import grid_of


class TestOnTheWalk:
    walk = RoundingConformance.walk

    @pytest.mark.parametrize("method", [None, METHODS["gptq"]], ids=["nearest", "gptq"])
    def test_weights_are_on_their_grids(self, walk, method):
        """Grids keep width, axis and zeros."""
        tuned = replace(walk, network_steps=20).rounded(method)
        for name, weight in tuned.weights.items():
            grid, before = tuned.plan.weights[name], walk.plan.weights[name]
            assert (grid.bits, grid.axis) == (before.bits, before.axis)
            np.testing.assert_array_equal(grid.zero_point, before.zero_point)
            np.testing.assert_allclose(grid.dequantized(weight), weight, rtol=1e-5, atol=1e-7)

    def test_is_left_out_if_it_does_not_help(self, walk, monkeypatch):
        """Examples that are held out decide, since the others can be learned by heart."""
        monkeypatch.setattr(tuning, "WEIGHT_RATE", 10.0)
        tuned = replace(walk, network_steps=3, context=replace(walk.context, cache=Cache())).rounded(None)
        plain = replace(walk, network_steps=0).rounded(None)
        assert all(np.array_equal(tuned.weights[name], weight) for name, weight in plain.weights.items())

    def test_same_seed_same_result_and_cached(self, walk, monkeypatch):
        first = replace(walk, network_steps=5).rounded(None)
        again = replace(walk, network_steps=5, context=replace(walk.context, cache=Cache())).rounded(None)
        assert all(np.array_equal(again.weights[name], weight) for name, weight in first.weights.items())
        monkeypatch.setattr(Tuning, "solve", lambda *_: pytest.fail("tuned again"))
        replace(walk, network_steps=5).rounded(None)


class TestInTheStage:
    def test_outputs_come_closer_to_the_float_network(self, small, context, noise, run):
        """With activations of 4 bits, whose step sizes are learned, too."""
        chosen = QuantizeStage().defaults() | {
            "weight_bits": 3, "activation_bits": 4, "clipping": "mse", "calibration_images": 64
        }  # fmt: skip
        files = [
            QuantizeStage().apply(small, chosen | {"network_steps": steps}, context) for steps in (0, 100)
        ]
        inputs = next(iter(noise.batches(64)))[0]
        wanted = torch.from_numpy(run(small, inputs)).log_softmax(1)
        nats = [
            float(
                torch.nn.functional.kl_div(
                    torch.from_numpy(run(file, inputs)).log_softmax(1), wanted, log_target=True, reduction="batchmean"
                )
            )
            for file in files
        ]  # fmt: skip
        assert nats[1] < 0.8 * nats[0]

    def test_formats_of_their_own_refuse_it(self, small, context):
        values = QuantizeStage().defaults() | {"weight_format": "gwq", "network_steps": 5}
        with pytest.raises(StageError, match=r"network_steps=5 .* set network_steps=0"):
            QuantizeStage().canonical(small, values, context)

    def test_learned_biases_are_not_corrected(self, small, context):
        values = QuantizeStage().defaults() | {"network_steps": 5, "bias_correction": True}
        assert QuantizeStage().canonical(small, values, context)["bias_correction"] is False


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**16), bits=st.integers(2, 8), n_in=st.integers(1, 20), n_out=st.integers(1, 6))
def test_weighted_error_is_at_most_that_of_the_given_scale(seed, bits, n_in, n_out):
    random = np.random.default_rng(seed)
    rows = random.standard_normal((n_out, n_in)).astype(np.float32)
    importance = torch.from_numpy(random.exponential(size=(1, n_in)).astype(np.float32))
    weight = torch.from_numpy(rows)[None]
    grid = grid_of(rows, bits)
    grid = grid.with_scale(grid.scale[None])
    found = grid.with_scale(weighted_scale(weight, importance, grid))

    def error(quantized):
        return ((quantized - weight) ** 2 * importance[:, None]).sum(2)

    assert bool((error(found.quantized(weight)) <= error(grid.quantized(weight)) * (1 + 1e-6) + 1e-12).all())
