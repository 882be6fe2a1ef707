import numpy as np
import pytest
import torch

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.onnx_file import OnnxModel
from spaces.models.sound_front_end import SoundFrontEndModel
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.sequences.sound_cnn import SoundCNNModel
from spaces.sound_features import LogMel
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

FEATURES = LogMel(rate=2000, window=100, hop=50, mels=8)
WAVES = np.random.default_rng(0).normal(0, 0.1, (20, 1000)).astype(np.float32)
LABELS = np.arange(20) % 2


def network(shape=(1, 18, 8), epochs=1):
    return SoundCNNModel(n_classes=2, input_shape=shape, width=4, blocks=1, epochs=epochs)


def context(tmp_path, inputs=WAVES):
    return LoadContext(ArraySplit(inputs, LABELS), tmp_path)


class TestSoundFrontEnd(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return SoundFrontEndModel(network(), FEATURES, 0.5)

    @pytest.fixture
    def context(self, tmp_path):
        return context(tmp_path)


def test_waveforms_give_what_the_network_gives_for_their_features(tmp_path):
    both = SoundFrontEndModel(network(), FEATURES, 0.5).load(context(tmp_path))
    features = np.stack([FEATURES(wave) for wave in WAVES])
    alone = network().load(context(tmp_path, features))
    assert both.input.shape == (1000,)
    with torch.no_grad():
        of_waves, of_features = both.model(torch.from_numpy(WAVES)), alone.model(torch.from_numpy(features))
    np.testing.assert_allclose(of_waves, of_features, atol=1e-4)


def test_a_network_for_other_features_is_refused(tmp_path):
    features = np.zeros((20, 1, 20, 8), np.float32)
    path = tmp_path / "network.pt"
    torch.save(network((1, 20, 8)).load(context(tmp_path, features)).model.state_dict(), path)
    other = SoundCNNModel(str(path), n_classes=2, input_shape=(1, 20, 8), width=4, blocks=1)
    with pytest.raises(InputError, match=r"shape \[1, 18, 8\], but model\.network takes \[1, 20, 8\]"):
        SoundFrontEndModel(other, FEATURES, 0.5).load(context(tmp_path))


def test_an_onnx_file_is_refused(tmp_path):
    features = np.stack([FEATURES(wave) for wave in WAVES])
    exported = ExportStage().apply(
        network().load(context(tmp_path, features)), {}, StageContext(None, Cache())
    )
    (tmp_path / "network.onnx").write_bytes(exported.onnx_bytes)
    source = SoundFrontEndModel(OnnxModel(str(tmp_path / "network.onnx")), FEATURES, 0.5)
    with pytest.raises(InputError, match=r"needs a torch network, but model\.network is an ONNX file"):
        source.load(context(tmp_path))


def test_features_in_place_of_waveforms_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"takes waveforms \(n, samples\): set task\.data\.features=null"):
        SoundFrontEndModel(network(), FEATURES, 0.5).load(context(tmp_path, WAVES.reshape(20, 1, 20, 50)))


def test_wrong_settings_raise():
    with pytest.raises(ConfigError, match=r"model\.network and model\.features"):
        SoundFrontEndModel(None, FEATURES)
