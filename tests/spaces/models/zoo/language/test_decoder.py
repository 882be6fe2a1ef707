from pathlib import Path

import numpy as np
import pytest
import torch

from spaces.models.base import LoadContext
from spaces.models.layers import layer_names
from spaces.models.onnx.ort_session import ort_session
from spaces.models.zoo.language.decoder import decoder_of, export_decoder
from spaces.models.zoo.language.llama import LlamaModel

SMALL = {"dim": 16, "ffn_dim": 24, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "vocabulary_size": 50}
STORIES = Path(__file__).parents[5].parent / "shared/data/language/stories15M.bin"


def torch_greedy(module, n):
    """Greedy text, each token from one pass over all before it."""
    ids = [1]
    with torch.no_grad():
        for _ in range(n):
            ids.append(int(module(torch.tensor([ids]))[0, -1].argmax()))
    return ids


def cached_greedy(decoder, proto, n):
    """Greedy text by the ONNX file in onnxruntime alone."""
    session = ort_session(proto.SerializeToString(), 1)
    keys, values = (t.numpy() for t in decoder.empty_cache())
    ids, position = [1], 0
    while len(ids) <= n:
        feeds = {"ids": np.array([ids[position:]]), "positions": np.arange(position, len(ids))}
        logits, keys, values = session.run(None, {**feeds, "past_keys": keys, "past_values": values})
        position = len(ids)
        ids.append(int(logits[0, -1].argmax()))
    return ids


def loaded(tmp_path, checkpoint=None, **sizes):
    return LlamaModel(checkpoint, **sizes).load(LoadContext(None, tmp_path)).model


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    module = loaded(tmp_path_factory.mktemp("small"), max_length=64, length=8, **SMALL)
    decoder = decoder_of(module)
    return module, decoder, export_decoder(decoder)


def test_greedy_text_is_that_of_the_network(small):
    module, decoder, proto = small
    assert cached_greedy(decoder, proto, 60) == torch_greedy(module, 60)


@pytest.mark.parametrize("first", [1, 4, 9])
def test_new_tokens_may_come_one_by_one_or_together(small, first):
    module, decoder, proto = small
    ids = np.random.default_rng(0).integers(0, 50, (1, 10))
    session = ort_session(proto.SerializeToString(), 1)
    keys, values = (t.numpy() for t in decoder.empty_cache())
    found = []
    for part in (slice(0, first), slice(first, 10)):
        feeds = {
            "ids": ids[:, part],
            "positions": np.arange(10)[part],
            "past_keys": keys,
            "past_values": values,
        }
        logits, keys, values = session.run(None, feeds)
        found.append(logits)
    assert keys.shape == values.shape == (2, 1, 10, 8)
    expected = module(torch.from_numpy(ids)).detach().numpy()
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, rtol=1e-3, atol=1e-5)


def test_weights_keep_their_names(small):
    module, _, proto = small
    assert set(layer_names(proto)) < set(module.state_dict())
    assert len(layer_names(proto)) == 14


@pytest.mark.slow
def test_greedy_text_of_stories15m_for_200_tokens(tmp_path):
    if not STORIES.is_file():
        pytest.skip("stories15M.bin is absent")
    module = loaded(tmp_path, str(STORIES))
    decoder = decoder_of(module)
    assert cached_greedy(decoder, export_decoder(decoder), 200) == torch_greedy(module, 200)
