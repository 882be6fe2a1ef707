import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.language.llama import Llama, LlamaModel, LlamaSizes
from spaces.stages.array_split import ArraySplit

SMALL = {"dim": 16, "ffn_dim": 24, "n_layers": 2, "n_heads": 2, "vocabulary_size": 50, "max_length": 12}
STORIES = Path(__file__).parents[5].parent / "shared/data/language/stories15M.bin"


def write(path, seed=0, n_kv_heads=2, **changed):
    """Writes a legacy checkpoint of llama2.c with random weights; returns the values behind the header."""
    sizes = SMALL | {"n_kv_heads": n_kv_heads} | changed
    dim, ffn, n, heads = (sizes[k] for k in ("dim", "ffn_dim", "n_layers", "n_heads"))
    kv = dim // heads * n_kv_heads
    matrices = n * (2 * dim * dim + 2 * dim * kv + 3 * dim * ffn + 2 * dim)
    tables = sizes["max_length"] * (dim // heads)
    count = sizes["vocabulary_size"] * dim + matrices + dim + tables
    values = np.random.default_rng(seed).normal(0, 0.3, count).astype("<f4")
    keys = ("dim", "ffn_dim", "n_layers", "n_heads", "n_kv_heads", "vocabulary_size", "max_length")
    path.write_bytes(struct.pack("<7i", *(sizes[k] for k in keys)) + values.tobytes())
    return values


def independent(values, sizes, ids):
    """Logits of one text, `(length, vocabulary)`, by loops over positions as `run.c` of llama2.c has them."""
    dim, ffn, n, heads, kv_heads, vocabulary = (
        sizes[k] for k in ("dim", "ffn_dim", "n_layers", "n_heads", "n_kv_heads", "vocabulary_size")
    )
    head, position, values = dim // heads, 0, values.astype(np.float64)
    kv = head * kv_heads

    def take(*shape):
        nonlocal position
        position += int(np.prod(shape))
        return values[position - int(np.prod(shape)) : position].reshape(shape)

    table, rms_att = take(vocabulary, dim), take(n, dim)
    wq, wk, wv, wo = take(n, dim, dim), take(n, kv, dim), take(n, kv, dim), take(n, dim, dim)
    rms_ffn, w1, w2, w3, last = (
        take(n, dim),
        take(n, ffn, dim),
        take(n, dim, ffn),
        take(n, ffn, dim),
        take(dim),
    )

    def norm(x, weight):
        return weight * x / np.sqrt(np.mean(x * x) + 1e-5)

    def turn(x, pos):
        for i in range(0, len(x), 2):
            angle = pos * 10000.0 ** (-(i % head) / head)
            c, s = np.cos(angle), np.sin(angle)
            x[i], x[i + 1] = x[i] * c - x[i + 1] * s, x[i] * s + x[i + 1] * c
        return x

    keys = [[] for _ in range(n)]
    cached = [[] for _ in range(n)]
    logits = []
    for pos, token in enumerate(ids):
        x = table[token].copy()
        for layer in range(n):
            y = norm(x, rms_att[layer])
            q, k = turn(wq[layer] @ y, pos), turn(wk[layer] @ y, pos)
            keys[layer].append(k)
            cached[layer].append(wv[layer] @ y)
            mixed = np.zeros(dim)
            for h in range(heads):
                g = h // (heads // kv_heads)
                mine, theirs = slice(h * head, (h + 1) * head), slice(g * head, (g + 1) * head)
                scores = np.array([q[mine] @ past[theirs] for past in keys[layer]]) / np.sqrt(head)
                shares = np.exp(scores - scores.max())
                mixed[mine] = sum(
                    s * past[theirs] for s, past in zip(shares / shares.sum(), cached[layer], strict=True)
                )
            x = x + wo[layer] @ mixed
            y = norm(x, rms_ffn[layer])
            gate = w1[layer] @ y
            x = x + w2[layer] @ (gate / (1 + np.exp(-gate)) * (w3[layer] @ y))
        logits.append(table @ norm(x, last))
    return np.array(logits)


def load(path, tmp_path, **settings):
    return LlamaModel(str(path), **settings).load(LoadContext(None, tmp_path))


class TestLlama(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return LlamaModel(None, length=8, n_kv_heads=1, **SMALL)


@pytest.mark.parametrize("n_kv_heads", [1, 2])
def test_a_checkpoint_of_llama2c_gives_its_logits(tmp_path, n_kv_heads):
    values = write(tmp_path / "m.bin", n_kv_heads=n_kv_heads)
    module = load(tmp_path / "m.bin", tmp_path, length=12).model
    ids = np.random.default_rng(1).integers(0, 50, 12)
    expected = independent(values, SMALL | {"n_kv_heads": n_kv_heads}, ids)
    actual = module(torch.from_numpy(ids[None]))[0].detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_no_token_sees_what_follows(tmp_path):
    module = LlamaModel(None, length=12, n_kv_heads=2, **SMALL).load(LoadContext(None, tmp_path)).model
    ids = torch.arange(12)[None]
    other = ids.clone()
    other[0, 7] = 49
    before, after = module(ids)[0], module(other)[0]
    torch.testing.assert_close(before[:7], after[:7])
    assert not torch.allclose(before[7:], after[7:])


def test_parameters_of_stories15m():
    assert sum(p.numel() for p in Llama(LlamaSizes()).parameters()) == 15_191_712


def test_the_published_checkpoint_loads_unchanged(tmp_path):
    if not STORIES.is_file():
        pytest.skip("stories15M.bin is absent")
    state = load(STORIES, tmp_path).model.state_dict()
    values = np.fromfile(STORIES, "<f4", offset=28)
    assert sum(v.numel() for v in state.values()) == 15_191_712
    np.testing.assert_array_equal(state["embedding.weight"].flatten(), values[: 32_000 * 288])
    np.testing.assert_array_equal(state["norm.weight"], values[-256 * 48 - 288 : -256 * 48])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b[:-4], r"it is truncated"),
        (lambda b: b + b"\0", r"its header says"),
        (lambda b: b[:10], r"no \.bin checkpoint of llama2\.c"),
        (lambda _: b"PK\3\4" * 20, r"no \.bin checkpoint of llama2\.c"),
        (lambda b: b"24ka" + b[4:], r"a later version of llama2\.c"),
        (lambda b: b[:20] + struct.pack("<i", -50) + b[24:] + bytes(4 * 50 * 16), r"a matrix of its own"),
        (lambda b: b[:40] + struct.pack("<f", np.nan) + b[44:], r"not finite in embedding\.weight"),
    ],
)
def test_a_damaged_checkpoint_raises(tmp_path, spoil, message):
    write(tmp_path / "m.bin")
    (tmp_path / "m.bin").write_bytes(spoil((tmp_path / "m.bin").read_bytes()))
    with pytest.raises(InputError, match=message):
        load(tmp_path / "m.bin", tmp_path, length=12)


def test_what_does_not_fit_raises(tmp_path):
    with pytest.raises(InputError, match=r"there is no such file"):
        load(tmp_path / "none.bin", tmp_path)
    write(tmp_path / "m.bin")
    with pytest.raises(InputError, match=r"model\.length must be at most 12"):
        load(tmp_path / "m.bin", tmp_path, length=13)
    ids = np.full((3, 12), 50)
    with pytest.raises(InputError, match=r"token ids reach 50"):
        LlamaModel(str(tmp_path / "m.bin"), length=12).load(LoadContext(ArraySplit(ids, ids), tmp_path))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dim": 0}, r"model\.dim must be a whole number from 1 on"),
        ({"dim": 18}, r"multiple of twice model\.n_heads"),
        ({"n_kv_heads": 4}, r"model\.n_kv_heads must divide"),
    ],
)
def test_impossible_sizes_raise(sizes, message):
    with pytest.raises(ConfigError, match=message):
        LlamaModel(**SMALL | sizes)
