"""Losses with one layer quantized at a time, against a plain run of a changed graph."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy.special import softmax
from scipy.stats import entropy
from skimage.metrics import structural_similarity

from spaces.errors import ConfigError, StageError
from spaces.models.layers import layers
from spaces.quantization.plan.source import Sources
from spaces.quantization.sensitivity.layer_losses import OneByOne, layer_losses, measured_layers
from spaces.quantization.sensitivity.output_losses import OUTPUT_LOSSES, kl, mse, soft_kl, sqnr, ssim
from spaces.stages.artifact import Artifact
from spaces.stages.stage import StageContext

GRID = {"scheme": "symmetric", "granularity": "channel", "clipping": "max"}
WIDTHS = (2, 3, 4, 8)


def names(artifact):
    return [layer.name for layer in layers(artifact.proto())]


def with_weight(artifact, name, weight):
    proto = artifact.proto()
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(weight, name))
    onnx.checker.check_model(proto)
    return Artifact.onnx(proto, artifact.input)


def test_equals_a_run_with_the_weight_replaced(small, context, noise, run):
    source = Sources().source(small, False, context)
    rounding = OneByOne(source, GRID, context, 16)
    widths = dict.fromkeys(names(small), (2, 4))
    found = layer_losses(source, rounding.weight, widths, ["mse", "sqnr", "kl"], len(noise.inputs), context)
    reference = run(small, noise.inputs).astype(np.float64)
    for name in names(small):
        for width in (2, 4):
            output = run(
                with_weight(source.artifact, name, rounding.weight(name, width)), noise.inputs
            ).astype(np.float64)
            for loss in ("mse", "sqnr", "kl"):
                expected = OUTPUT_LOSSES[loss](reference, output).mean()
                assert found[loss][name][width] == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_fewer_bits_lose_more(small, context):
    losses = measured_layers(small, "sqnr", dict.fromkeys(names(small), WIDTHS), 16, GRID, context)
    for row in losses.values():
        assert list(row) == list(WIDTHS)
        assert row[2] > row[4] > row[8] > 0


@pytest.mark.parametrize("bits", WIDTHS)
def test_weights_have_at_most_the_integers_of_their_width(small, context, bits):
    source = Sources().source(small, False, context)
    for name, weight in source.weights.items():
        rounded = OneByOne(source, GRID, context, 16).weight(name, bits)
        assert rounded.shape == weight.shape
        assert max(len(np.unique(channel)) for channel in rounded.reshape(len(rounded), -1)) <= 2**bits


def test_what_is_wrong_is_named_before_any_run(small, context):
    widths = {names(small)[0]: (4,)}
    with pytest.raises(ConfigError, match="Unknown sensitivity 'magic'"):
        measured_layers(small, "magic", widths, 4, GRID, context)
    with pytest.raises(StageError, match="Unknown layer 'x'"):
        measured_layers(small, "kl", {"x": (4,)}, 4, GRID, context)
    with pytest.raises(StageError, match="Unknown clipping 'x'"):
        measured_layers(small, "kl", widths, 4, GRID | {"clipping": "x"}, context)
    with pytest.raises(StageError, match="calibration examples"):
        measured_layers(small, "kl", widths, 4, GRID, StageContext(None, context.cache))
    for sensitivity in ("fisher", "hessian"):
        with pytest.raises(StageError, match=f"sensitivity={sensitivity} needs gradients of a torch network"):
            measured_layers(small, sensitivity, widths, 4, GRID, context)


def test_losses_of_equal_outputs_are_zero():
    rng = np.random.default_rng(0)
    images, logits = rng.normal(size=(2, 3, 16, 16)), rng.normal(size=(5, 10))
    assert np.abs(ssim(images, images)).max() < 1e-12
    for loss in (kl, mse, soft_kl, sqnr):
        assert np.abs(loss(logits, logits)).max() < 1e-12
        assert (loss(logits, logits + rng.normal(size=logits.shape)) > 0).all()


def test_ssim_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 1, 24, 20))
    other = one + 0.3 * rng.normal(size=one.shape)
    expected = structural_similarity(
        one[0, 0], other[0, 0], win_size=7, data_range=np.ptp(one), full=True, use_sample_covariance=False
    )[1].mean()
    assert 1 - ssim(one, other)[0] == pytest.approx(expected, rel=1e-6)


def test_softened_divergence_counts_the_sure_examples_more():
    """It is the divergence of flatter distributions, as large as the plain one where all classes are equally likely."""
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.normal(size=(1, 10))
    unsure, sure = np.zeros((1, 10)), np.eye(10)[:1] * 8
    assert soft_kl(unsure, unsure + noise) == pytest.approx(kl(unsure, unsure + noise), rel=0.01)
    shares = [float((loss(sure, sure + noise) / loss(unsure, unsure + noise))[0]) for loss in (kl, soft_kl)]
    assert shares[1] > 10 * shares[0]
    flat = np.sqrt(softmax(sure, axis=1)) / np.sqrt(softmax(sure, axis=1)).sum()
    other = np.sqrt(softmax(sure + noise, axis=1)) / np.sqrt(softmax(sure + noise, axis=1)).sum()
    assert soft_kl(sure, sure + noise)[0] == pytest.approx(4 * entropy(flat[0], other[0]))


def test_divergence_and_similarity_say_what_outputs_they_need():
    with pytest.raises(
        ConfigError,
        match=r"sensitivity=kl and soft_kl compare class probabilities, but the output has the shape \(4, 1\)",
    ):
        kl(np.zeros((4, 1)), np.zeros((4, 1)))
    with pytest.raises(ConfigError, match=r"sensitivity=ssim compares images .* shape \(4, 10\)"):
        ssim(np.zeros((4, 10)), np.zeros((4, 10)))


def test_with_feedback_layers_lose_less(small, context):
    """In all; and weights have at most the integers of their width."""
    widths = dict.fromkeys(names(small), (2, 3))
    nearest = measured_layers(small, "mse", widths, 16, GRID, context)
    feedback = measured_layers(small, "mse", widths, 16, GRID | {"rounding": "gptq"}, context)
    for width in (2, 3):
        assert sum(row[width] for row in feedback.values()) < sum(row[width] for row in nearest.values())
    source = Sources().source(small, False, context)
    rounding = OneByOne(source, GRID | {"rounding": "gptq"}, context, 16)
    for name in names(small):
        weight = rounding.weight(name, 2)
        assert all(len(np.unique(channel)) <= 4 for channel in weight.reshape(len(weight), -1))


def test_feedback_says_what_torch_lacks(small, context, monkeypatch):
    def fail(*arguments, **options):
        raise NotImplementedError("Loop")

    monkeypatch.setattr("spaces.models.onnx.torch_graph.graph.TorchGraph.run", fail)
    with pytest.raises(StageError, match=r"allocator\.grid\.rounding=gptq.*Loop.*use rounding: nearest"):
        measured_layers(small, "mse", {names(small)[0]: (3,)}, 8, GRID | {"rounding": "gptq"}, context)
    with pytest.raises(StageError, match=r"rounding 'magic'"):
        measured_layers(small, "mse", {names(small)[0]: (3,)}, 8, GRID | {"rounding": "magic"}, context)
