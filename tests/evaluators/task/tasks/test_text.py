import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.task.data.data import Data
from evaluators.task.data.text.scored_text import BEST, LOG_LIKELIHOOD, ScoredTextSplit
from evaluators.task.data.text.stories import Stories
from evaluators.task.data.text.text_windows import TextWindows
from evaluators.task.metrics.tokens.perplexity import Perplexity
from evaluators.task.tasks.task import Task
from evaluators.task.tasks.testing import TaskConformance
from evaluators.task.tasks.text import TextTask
from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.zoo.language.llama import LlamaModel
from spaces.stages.array_split import ArraySplit

LANGUAGE = Path(__file__).parents[4].parent / "shared/data/language"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_tokenizer(path, pieces=(" ", *LETTERS, "the")):
    entries = [
        b"<unk>",
        b"\n<s>\n",
        b"\n</s>\n",
        *(bytes([i]) for i in range(256)),
        *(p.encode() for p in pieces),
    ]
    path.write_bytes(struct.pack("<i", 6) + b"".join(struct.pack("<fi", 0.0, len(e)) + e for e in entries))
    return str(path)


def write_texts(path, n=60, seed=0):
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice([*LETTERS, " "], rng.integers(5, 20))).strip() or "a" for _ in range(n)]
    path.write_text("\n<|endoftext|>\n".join(texts) + "\n<|endoftext|>\nthis one is cut of")
    return texts


def made(tmp_path, metric="perplexity", **settings) -> TextTask:
    tokenizer = write_tokenizer(tmp_path / "t.bin")
    write_texts(tmp_path / "texts.txt")
    data = Stories(tokenizer, length=12, **settings)
    return TextTask(data, root=str(tmp_path), metric=metric, calibration=10, validation=15, test=10)


class TestText(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path) -> Task:
        return made(tmp_path, metric="next_token")

    def outputs(self, task, splits):
        labels = splits.validation.labels
        return {LOG_LIKELIHOOD: np.where(labels >= 0, -1.0, 0.0).astype(np.float32), BEST: labels.copy()}


def test_tokens_and_labels(tmp_path):
    task = made(tmp_path)
    inputs, labels = next(iter(task.splits().validation.batches(99)))
    assert (inputs[:, 0] == 1).all()
    counted = labels[:, :-1] >= 0
    np.testing.assert_array_equal(inputs[:, 1:][counted], labels[:, :-1][counted])
    ended = labels[:, :-1] < 0
    short = ended.any(axis=1)
    assert short.any()
    first = ended.argmax(axis=1)[short]
    assert (inputs[short, first + 1] == 1).all()  # the text begins anew


def test_scores_are_those_of_the_logits(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 9, (4, 6))
    logits = rng.normal(size=(4, 6, 9)).astype(np.float32)
    split = ScoredTextSplit(ArraySplit(np.arange(24).reshape(4, 6), labels))
    found = split.rollout(lambda ids: logits[ids[:, 0] // 6], split.examples.inputs, labels)
    of_logits = Perplexity().statistics(logits, labels)
    np.testing.assert_allclose(-found[LOG_LIKELIHOOD].sum(axis=1), of_logits[:, 0], rtol=1e-5)
    assert (found[BEST][labels >= 0] == logits.argmax(axis=2)[labels >= 0]).all()
    assert (found[BEST][labels < 0] == -1).all()


def test_bits_per_byte_is_per_byte_of_the_text(tmp_path):
    (tmp_path / "one.txt").write_text("the thé<|endoftext|>" * 40)
    data = Stories(write_tokenizer(tmp_path / "t.bin"), length=12)
    task = TextTask(
        data, root=str(tmp_path / "one.txt"), calibration=5, validation=5, test=5, metric="bits_per_byte"
    )
    labels = task.splits().validation.labels
    bits = {LOG_LIKELIHOOD: np.where(labels >= 0, -np.log(2), 0.0).astype(np.float32), BEST: labels}
    sums = task.metric.statistics(bits, labels)
    tokens = (labels[0] >= 0).sum()
    assert task.metric.pooled(sums, np.ones(5)) == pytest.approx(tokens / len("the thé".encode()))


def test_the_test_split_can_be_fixed(tmp_path):
    texts = write_texts(tmp_path / "texts.txt")
    digest = sha256("\0".join(texts[:7]).encode()).hexdigest()
    task = made(tmp_path, test={"texts.txt": 7}, test_digest=digest[:16])
    assert len(task.splits().test) == 7
    for settings, message in (
        (
            {"test": {"texts.txt": 7}, "test_digest": "0" * 16},
            r"others than those that task\.data\.test_digest=0{16}",
        ),
        ({"test": {"texts.txt": 99}}, r"has 60 of the 99 texts of the test split"),
        ({"test": {"other.txt": 1}}, r"has 0 of the 1 texts of the test split"),
    ):
        with pytest.raises(InputError, match=message):
            made(tmp_path, **settings).splits()


def test_so_many_texts_are_read(tmp_path):
    task = made(tmp_path, most=45)
    assert sum(len(split) for split in vars(task.splits()).values()) == 45


def test_a_text_that_is_cut_off_is_left_out(tmp_path):
    (tmp_path / "texts.txt").write_text("no separator")
    data = Stories(write_tokenizer(tmp_path / "t.bin"))
    with pytest.raises(InputError, match=r"has no text that ends with <\|endoftext\|>"):
        TextTask(data, root=str(tmp_path)).splits()


def test_a_model_of_another_vocabulary_does_not_fit(tmp_path):
    task = made(tmp_path)
    assert task.misfit(np.zeros((3, 12, 287)), 3) is None
    assert "the tokenizer has 287 tokens" in task.misfit(np.zeros((3, 12, 300)), 3)


def test_impossible_settings_raise(tmp_path):
    for settings, message in (
        ({"length": 0}, r"task\.data\.length must be a whole number from 1 on"),
        ({"most": 0}, r"task\.data\.most must be a whole number from 1 on"),
        ({"separator": ""}, r"task\.data\.separator must not be empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            Stories("t.bin", **settings)
    other: Data = TextWindows()
    with pytest.raises(ConfigError, match=r"task=text reads task/data=stories"):
        TextTask(other)


def log_likelihoods(values, ids, labels):
    """Those of one text by stories15M in numpy alone, `(n,)`: values as the file has them, all positions at once."""
    position = 0

    def take(*shape):
        nonlocal position
        position += int(np.prod(shape))
        return values[position - int(np.prod(shape)) : position].reshape(shape)

    dim, ffn, n, heads = 288, 768, 6, 6
    table, rms_att = take(32_000, dim), take(n, dim)
    wq, wk, wv, wo = (take(n, dim, dim) for _ in range(4))
    rms_ffn, w1, w2, w3, last = (
        take(n, dim),
        take(n, ffn, dim),
        take(n, dim, ffn),
        take(n, ffn, dim),
        take(dim),
    )
    cos, sin = take(256, 24)[: len(ids), None], take(256, 24)[: len(ids), None]  # the file's own tables

    def norm(x, weight):
        return weight * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)

    def turned(x):
        pairs = x.reshape(len(ids), heads, 24, 2)
        a, b = pairs[..., 0], pairs[..., 1]
        return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(len(ids), heads, 48)

    x = table[ids]
    for i in range(n):
        y = norm(x, rms_att[i])
        q, k, v = turned(y @ wq[i].T), turned(y @ wk[i].T), (y @ wv[i].T).reshape(-1, heads, 48)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(48)
        scores[:, np.triu(np.ones((len(ids), len(ids)), bool), 1)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        x = (
            x
            + np.einsum("hqk,khd->qhd", shares / shares.sum(-1, keepdims=True), v).reshape(-1, dim) @ wo[i].T
        )
        y = norm(x, rms_ffn[i])
        gate = y @ w1[i].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w3[i].T)) @ w2[i].T
    logits = norm(x, last) @ table.T
    logits -= logits.max(axis=1, keepdims=True)
    return logits[np.arange(len(ids)), labels] - np.log(np.exp(logits).sum(axis=1))


@pytest.mark.slow
def test_perplexity_of_stories15m_is_that_of_an_independent_loop(tmp_path):
    if not LANGUAGE.is_dir():
        pytest.skip("stories15M is absent")
    data = Stories(
        str(LANGUAGE / "tokenizer.bin"),
        most=150,
        test={"tinystories_train_first2MiB.txt": 60, "tinystories_valid_sample_3.8kB.txt": 5},
        test_digest="7404c05bc8ed2a59",
    )
    task = TextTask(data, root=str(LANGUAGE), calibration=5, validation=5)
    split = task.splits().test
    module = LlamaModel(str(LANGUAGE / "stories15M.bin")).load(LoadContext(None, tmp_path)).model
    values = np.fromfile(LANGUAGE / "stories15M.bin", "<f4", offset=28)
    nats, statistics = [], []
    for inputs, labels in split.batches(1):
        with torch.no_grad():
            outputs = split.rollout(lambda ids: module(torch.from_numpy(ids)).numpy(), inputs, labels)
        statistics.append(task.metric.statistics(outputs, labels))
        n = int((labels >= 0).sum())
        nats.append(-log_likelihoods(values, inputs[0, :n], labels[0, :n]))
    perplexity = task.metric.pooled(np.concatenate(statistics), np.ones(65))
    independent = np.exp(np.concatenate(nats).mean())
    assert len(np.concatenate(nats)) == 12_038
    assert perplexity == pytest.approx(independent, rel=1e-3)
    assert perplexity == pytest.approx(2.832, rel=1e-3)
