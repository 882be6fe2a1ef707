import numpy as np
import onnxruntime as ort
import pytest
import torch

from spaces.models.export import ExportStage
from spaces.models.torch.log_mel import LogMelFrontEnd
from spaces.sound_features import LogMel
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

SOUNDS = np.random.default_rng(0).normal(0, 0.1, (3, 2000)).astype(np.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "centre": True,
            "mel_scale": "slaney",
            "area_normalised": True,
            "mfcc": 10,
            "mean": -3.0,
            "std": 2.0,
        },
        {"layout": "NHWC", "window": 101, "fft": 151},
    ],
)
def test_the_module_and_its_exported_file_give_the_features(settings):
    features = LogMel(**{"rate": 8000, "window": 200, "hop": 80, "mels": 20, **settings})
    expected = np.stack([features(sound) for sound in SOUNDS])
    module = LogMelFrontEnd(features)
    np.testing.assert_allclose(module(torch.from_numpy(SOUNDS)).numpy(), expected, atol=1e-4)
    exported = ExportStage().apply(
        torch_artifact(module, InputSpec((2000,))), {}, StageContext(None, Cache())
    )
    session = ort.InferenceSession(exported.onnx_bytes, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: SOUNDS})
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_has_no_parameters_and_its_settings_are_part_of_its_digest():
    modules = [LogMelFrontEnd(LogMel(mean=mean)) for mean in (0.0, 0.0, 1.0)]
    assert not list(modules[0].parameters())
    digests = [torch_artifact(module, InputSpec((16000,))).digest for module in modules]
    assert digests[0] == digests[1] != digests[2]
