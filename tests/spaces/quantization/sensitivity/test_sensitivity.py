"""Noise estimated without a run, compared with measured noise."""

import numpy as np
import pytest

from spaces.errors import StageError
from spaces.quantization.calibration.clipping.base import Histogram
from spaces.quantization.calibration.statistics import Statistics
from spaces.quantization.quantize import QuantizeStage
from spaces.quantization.schemes.scheme import SCHEMES, make_grid
from spaces.quantization.sensitivity.noise_gains import noise_gains
from spaces.quantization.sensitivity.sensitivity import MAX_DB, rounding_noise
from spaces.stages.stage import StageContext

SPREAD = [
    {"weight_bits": bits, "scheme": scheme, "clipping": clipping, "granularity": granularity}
    for bits in (4, 8)
    for scheme in ("asymmetric", "symmetric_power2")
    for clipping in ("max", "percentile")
    for granularity in ("tensor", "channel")
]


def sqnr_db(wanted, got):
    return 10 * np.log10(np.sum(wanted**2.0) / np.sum((wanted - got) ** 2.0))


def computed(stage, artifact, context, changes):
    return stage.estimates(artifact, [stage.canonical(artifact, c, context) for c in changes], context)


def test_the_propagated_ratio_ranks_candidates_as_measured(small, context, noise, run):
    stage = QuantizeStage()
    wanted = run(small, noise.inputs)
    measured = [sqnr_db(wanted, run(stage.apply(small, c, context), noise.inputs)) for c in SPREAD]
    found = computed(stage, small, context, SPREAD)["propagated_sqnr_db"]
    ranks = [np.argsort(np.argsort(values)) for values in (found, measured)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    assert abs(np.median(found - measured)) < 4


def test_more_bits_and_fewer_rounded_layers_are_better(small, context):
    changes = [{"weight_bits": 4}, {"weight_bits": 8}, {"weight_bits": 8, "activation_bits": 16}]
    found = computed(QuantizeStage(), small, context, changes)["propagated_sqnr_db"]
    assert list(found) == sorted(found)
    assert np.diff(found).min() > 0.1


def test_bias_correction_removes_the_mean_error(small, context):
    changes = [{"weight_bits": 4, "bias_correction": on} for on in (False, True)]
    found = computed(QuantizeStage(), small, context, changes)
    assert np.diff(found["weights_sqnr_db"]) > 0
    assert np.diff(found["activations_sqnr_db"]) == 0


def test_the_float_model_has_no_noise(small, context):
    found = computed(QuantizeStage(), small, context, [{"keep_float": ("*",)}, {}])
    assert all(values[0] == MAX_DB for values in found.values())
    assert all(values[1] < MAX_DB for values in found.values())


def test_estimates_do_not_depend_on_other_candidates(small, context):
    together = computed(QuantizeStage(), small, context, SPREAD[:3])
    alone = computed(QuantizeStage(), small, context, SPREAD[2:3])
    assert {name: values[2] for name, values in together.items()} == {n: v[0] for n, v in alone.items()}


def test_estimates_without_data_raise(small, context):
    without = StageContext(None, context.cache)
    with pytest.raises(StageError, match="calibration"):
        computed(QuantizeStage(), small, without, [{}])


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_rounding_noise_is_the_measured_error(scheme):
    values = np.maximum(np.random.default_rng(0).standard_normal(200_000), 0).astype(np.float32)
    counts, edges = np.histogram(values[values > 0], 4096, (0.0, float(values.max())))
    histogram = Histogram(0.0, float(edges[-1]), counts, int(np.sum(values == 0)))
    for high in (float(values.max()), 1.5):  # without and with clipping
        grid = make_grid(SCHEMES[scheme].activations, 0.0, high, 8)
        direct = float(np.mean((grid.dequantized(values) - values) ** 2.0))
        assert rounding_noise(histogram, grid) == pytest.approx(direct, rel=0.05)


def test_noise_gains_are_relative_output_noise(small, context):
    stage = QuantizeStage()
    source = stage._sources.source(small, False, context)
    gains = noise_gains(source, lambda layer, error: float(np.mean(error**2)), context)
    assert gains["tensors"].shape == (len(source.network.tensors),)
    assert gains["layers"].shape == (len(source.network.layers),)
    assert (gains["tensors"] >= 0).all()
    assert (gains["layers"] > 0).all()
    output = source.artifact.proto().graph.output[0].name
    powers = Statistics(source.artifact, source.wanted, 8, context).second_moments()
    at_output = gains["tensors"][source.network.tensors.index(output)]
    # The gain of the output itself is the inverse of its power.
    assert at_output * powers[output] == pytest.approx(1, rel=0.6)
