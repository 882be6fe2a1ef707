import struct
from dataclasses import replace

import numpy as np
import pytest

from evaluators.base import EvaluationContext, Reference
from evaluators.metric import MeanMetric
from evaluators.runtime import open_session
from evaluators.task.data.text.llama_tokenizer import LlamaTokenizer
from evaluators.task.data.text.scored_text import ScoredTextSplit
from evaluators.task.data.text.stories import windows
from evaluators.task.domains import DomainsEvaluator
from evaluators.testing import EvaluatorConformance, tiny_context, tiny_model
from spaces.errors import ConfigError, EvaluationError, InputError
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.zoo.language.llama import LlamaModel
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.cache import Cache
from spaces.stages.output_spec import OutputSpec
from spaces.stages.stage import StageContext

LENGTH = 16
PIECES = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(bytes([i]) for i in range(256)), b"th", b"the", b" a"]
HOME = ["the cat sat", "a hat", "that is the thing", "and then", "there", "at the end"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    body = b"".join(struct.pack("<fi", 0.0, len(piece)) + piece for piece in PIECES)
    (path / "t.bin").write_bytes(struct.pack("<i", 6) + body)
    (path / "code").mkdir()
    for i in range(4):
        (path / f"code/{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n")
    (path / "code/readme.md").write_text("# the code\n")
    (path / "stories.txt").write_text("one story<|endoftext|>\nanother<|endoftext|>cut of")
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return LlamaTokenizer(folder / "t.bin")


@pytest.fixture(scope="module")
def split(tokenizer):
    return ScoredTextSplit(windows(HOME, tokenizer, LENGTH))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    source = LlamaModel(
        None, LENGTH, dim=32, ffn_dim=48, n_layers=1, n_heads=2, n_kv_heads=2, vocabulary_size=len(PIECES)
    )
    loaded = source.load(LoadContext(None, tmp_path_factory.mktemp("cache")))
    made = ExportStage().apply(loaded, {}, StageContext(None, Cache()))
    return replace(made, input=replace(made.input, output=OutputSpec(whole=True)))


@pytest.fixture(scope="module")
def quantized(exported, split):
    values = {"calibration_images": 4, "weight_bits": 2}
    return QuantizeStage().apply(exported, values, StageContext(split, Cache()))


class _Nothing(MeanMetric):
    name = "nothing"


@pytest.fixture
def context(exported, split):
    return EvaluationContext(split, _Nothing(), Reference(exported, np.zeros(0)))


def made(folder, **settings):
    domains = {"code": str(folder / "code/*.py"), "stories": str(folder / "stories.txt")}
    return DomainsEvaluator(str(folder / "t.bin"), **{"domains": domains, "length": LENGTH, **settings})


def values(evaluation):
    return {m.name: m.value for m in evaluation.measurements}


class TestConformance(EvaluatorConformance):
    @pytest.fixture(autouse=True)
    def _inputs(self, folder, exported, quantized, context):
        self.made, self.artifacts, self.context = made(folder), [exported, quantized], context

    def make_evaluator(self):
        return self.made

    def make_artifacts(self):
        return self.artifacts

    def make_context(self):
        return self.context


def bits_per_byte(artifact, texts, tokenizer):
    """By a loop over texts and tokens."""
    session, nats, n_bytes = open_session(artifact.onnx_bytes, 1), 0.0, 0
    for text in texts:
        tokens = [1, *tokenizer.ids(text)][: LENGTH + 1]
        padded = (tokens * LENGTH)[:LENGTH]
        (logits,) = session.run(None, {artifact.input.name: np.array([padded])})
        for i, following in enumerate(tokens[1:]):
            x = logits[0, i].astype(np.float64)
            nats -= x[following] - np.log(np.exp(x).sum())
            n_bytes += len(PIECES[following])
        n_bytes -= 1  # the space before a text
    return nats / np.log(2) / n_bytes


def test_figures_follow_from_the_bits_of_each_domain(folder, exported, quantized, context, tokenizer):
    found = values(made(folder).evaluate(quantized, context))
    texts = {
        "task": HOME,
        "code": [(folder / f"code/{i}.py").read_text().strip() for i in range(4)],
        "stories": ["one story", "another"],
    }
    kept = {}
    for name, domain in texts.items():
        dense, own = (bits_per_byte(a, domain, tokenizer) for a in (exported, quantized))
        assert found[f"bits_per_byte_{name}"] == pytest.approx(own, rel=1e-4)
        kept[name] = 2 ** (dense - own)
    away = (kept["code"] + kept["stories"]) / 2
    assert found["transfer_ratio"] == pytest.approx(away, rel=1e-4)
    assert found["generality_gap"] == pytest.approx(100 * (kept["task"] - away), abs=1e-2)
    assert found["domain_specialisation"] == pytest.approx(100 * (1 - away / kept["task"]), abs=1e-2)
    assert found["transfer_ratio_low"] <= found["transfer_ratio"] <= found["transfer_ratio_high"]


def test_the_uncompressed_network_is_no_specialist_and_transfers_all(folder, exported, context):
    found = values(made(folder).evaluate(exported, context))
    assert (found["domain_specialisation"], found["generality_gap"], found["transfer_ratio"]) == (0, 0, 1)
    assert "transfer_ratio_low" not in found  # nothing differs in any resample


def test_a_folder_is_all_of_its_files_and_texts_are_limited(folder, exported, context):
    evaluator = made(folder, domains={"code": str(folder / "code")}, texts=3)
    assert evaluator.evaluate(exported, context).details == {"domains": {"texts": {"task": 3, "code": 3}}}
    evaluator = made(folder, domains={"code": str(folder / "code")})
    assert evaluator.evaluate(exported, context).details["domains"]["texts"]["code"] == 5


def test_what_cannot_be_read_raises_at_once(folder, tmp_path):
    with pytest.raises(InputError, match=r"domains\.domains\.none: .* is no file"):
        made(folder, domains={"none": str(tmp_path / "absent/*.py")})
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"b\.txt is damaged, or not a text in UTF-8"):
        made(folder, domains={"binary": str(tmp_path / "b.txt")})
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"domains\.domains\.empty: .* has no text"):
        made(folder, domains={"empty": str(tmp_path / "empty.txt")})
    with pytest.raises(InputError, match=r"no tokenizer\.bin of llama2\.c"):
        DomainsEvaluator(str(folder / "stories.txt"), {"a": str(folder / "code")})


def test_what_does_not_fit_raises(folder, exported, context):
    with pytest.raises(EvaluationError, match=r"length=8 \(domain code\): the network takes inputs of shape"):
        made(folder, length=8).evaluate(exported, context)
    with pytest.raises(EvaluationError, match=r"the task must be task=text"):
        made(folder).evaluate(tiny_model(), tiny_context())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, r"domains\.length must be a whole number from 1 on"),
        ({"texts": 1.5}, r"domains\.texts must be a whole number"),
        ({"domains": {}}, r"must name at least one domain"),
        ({"domains": {"task": "x"}}, r"other than task"),
        ({"domains": {"a b": "x"}}, r"by an identifier"),
        ({"confidence": 0}, r"confidence must lie between 0 and 1"),
    ],
)
def test_impossible_settings_raise(folder, settings, message):
    with pytest.raises(ConfigError, match=message):
        made(folder, **settings)
