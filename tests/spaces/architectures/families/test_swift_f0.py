"""The test against the published file: `pip install --no-deps swift-f0==0.1.2`, then `pytest -m slow` on this file."""

import importlib.util
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from spaces.architectures.families.swift_f0 import SwiftF0, pitch_of
from spaces.architectures.model import FamilyModel
from spaces.architectures.testing import FamilyConformance
from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact


class TestSwiftF0(FamilyConformance):
    @pytest.fixture
    def family(self):
        return SwiftF0()

    @pytest.fixture
    def input_shape(self):
        return (2048,)

    @pytest.fixture
    def value_sets(self):
        return [{"axis": "log", "dilation": "harmonic"}]


def test_it_has_the_published_number_of_parameters():
    family = SwiftF0()
    assert family.counts(family.defaults(), (16000,), 200).parameters == 95_842


def test_exported_it_has_the_published_number_of_fused_parameters():
    family = SwiftF0()
    with torch.random.fork_rng(devices=[]):
        network = family.build(family.defaults(), (2048,), 200)
    for norm in (part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)):
        torch.nn.init.ones_(norm.bias)  # biases of 0 would be left out
    exported = ExportStage().apply(
        torch_artifact(network, InputSpec((2048,))), {}, StageContext(None, Cache())
    )
    floats = [i for i in exported.proto().graph.initializer if i.data_type == onnx.TensorProto.FLOAT]
    trained = [i for i in floats if "front_end" not in i.name and len(i.dims) > 0]
    assert sum(int(np.prod(i.dims)) for i in trained) == 95_721


def test_the_pitch_is_the_mean_around_the_likeliest_bin():
    logits = torch.full((1, 1, 200), -30.0)
    logits[0, 0, 100:102] = 10.0
    logits[0, 0, 20] = 9.0  # too far away to count
    hertz, confidence = pitch_of(logits, torch.arange(200.0))[0, 0].tolist()
    assert hertz == pytest.approx(100.5, rel=1e-5)
    assert confidence == pytest.approx(2 / (2 + np.exp(-1)), rel=1e-5)


def test_equal_distances_in_log_frequency_put_a_tones_harmonics_at_the_dilations():
    family = SwiftF0()
    values = family.defaults() | {"axis": "log", "dilation": "harmonic"}
    octave, *_ = family._dilations(values)
    network = family.build(values, (4096,), 20)
    bins = []
    for hertz in (300, 600):
        tone = torch.sin(2 * np.pi * hertz * torch.arange(4096) / 16000)[None]
        bins.append(int((network.warp @ network.front_end(tone))[0].mean(1).argmax()))
    assert abs(bins[1] - bins[0] - octave) <= 1


def test_harmonics_need_a_logarithmic_axis():
    values = SwiftF0().defaults() | {"dilation": "harmonic"}
    assert "needs axis=log" in SwiftF0().broken(values, (16000,))


@pytest.mark.parametrize("arguments", [{"f_min": 0.0}, {"f_max": 9000.0}, {"output": "hertz"}])
def test_settings_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"model\.family"):
        SwiftF0(**arguments)


def test_another_onnx_file_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    model = FamilyModel(SwiftF0(), tmp_path / "model.onnx", n_classes=200, input_shape=[2048])
    with pytest.raises(InputError, match=r"model\.onnx"):
        model.load(LoadContext(None, tmp_path))


def _published():
    """Returns the published file; skips the test where it is not installed."""
    spec = importlib.util.find_spec("swift_f0")
    if spec is None or metadata.version("swift-f0") != "0.1.2":
        pytest.skip("needs pip install --no-deps swift-f0==0.1.2")
    return Path(spec.origin).parent / "model.onnx"


@pytest.mark.slow
def test_with_the_published_weights_outputs_are_the_published_ones(tmp_path):
    file = _published()
    rng, time = np.random.default_rng(0), np.arange(16000) / 16000
    tones = np.stack(
        [sum(np.sin(2 * np.pi * f0 * h * time) / h for h in (1, 2, 3)) for f0 in (82.4, 220, 440, 1200)]
    )
    sounds = (0.2 * tones + rng.normal(0, 0.02, tones.shape)).astype(np.float32)
    model = FamilyModel(SwiftF0(output="pitch"), file, n_classes=200, input_shape=[16000])
    with torch.no_grad():
        found = model.load(LoadContext(None, tmp_path)).model(torch.from_numpy(sounds)).numpy()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    wanted = np.stack([np.stack(session.run(None, {"input_audio": sound[None]}), -1)[0] for sound in sounds])
    assert np.abs(wanted[:, 10:-10, 0] / np.array([[82.4], [220], [440], [1200]]) - 1).max() < 0.03
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
