import numpy as np
import pytest
import torch

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.sequences.gru_language import GRULanguage, GRULanguageModel
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext


def counting(n=64, length=8):
    """Windows that count up modulo 10, and the numbers that follow."""
    ids = (np.arange(length + 1) + np.arange(n)[:, None]) % 10
    return ArraySplit(ids[:, :-1], ids[:, 1:])


def small(**more):
    return GRULanguageModel(
        **{"input_shape": [8], "vocabulary_size": 10, "embedding": 6, "hidden": 12} | more
    )


def context(tmp_path):
    return LoadContext(counting(), tmp_path, loss="tokens")


class TestGRULanguage(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return small(epochs=1)

    @pytest.fixture
    def context(self, tmp_path):
        return context(tmp_path)


def test_size():
    assert sum(p.numel() for p in GRULanguage().parameters()) == 113_841


def test_the_network_learns(tmp_path):
    artifact = small(epochs=40).load(context(tmp_path))
    with torch.no_grad():
        outputs = artifact.model(torch.from_numpy(counting().inputs))
    assert (outputs.argmax(2).numpy() == counting().labels)[:, 1:].all()


def test_the_onnx_file_has_equal_outputs_for_any_batch(tmp_path):
    import onnxruntime

    artifact = small(epochs=1).load(context(tmp_path))
    exported = ExportStage().apply(artifact, {}, StageContext(None, Cache()))
    session = onnxruntime.InferenceSession(exported.onnx_bytes)
    for n in (1, 5):
        ids = counting(n).inputs
        found = session.run(None, {session.get_inputs()[0].name: ids})[0]
        with torch.no_grad():
            np.testing.assert_allclose(found, artifact.model(torch.from_numpy(ids)).numpy(), atol=1e-4)


def test_impossible_settings_and_ids_raise(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.hidden must be a whole number from 1 on"):
        small(hidden=0)
    with pytest.raises(InputError, match=r"token ids reach 9, but model\.vocabulary_size is 9"):
        small(vocabulary_size=9).load(context(tmp_path))
