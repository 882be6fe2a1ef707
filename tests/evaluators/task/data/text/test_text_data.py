import json
import sys

import numpy as np
import pytest

from evaluators.task.data.text.python_text import PythonText
from evaluators.task.data.text.text_folder import TextFolder
from evaluators.task.data.text.text_table import TextTable
from evaluators.task.data.text.tokenizers import Words, words_of
from evaluators.task.tasks.classes import ClassesTask
from evaluators.task.tasks.task import Task
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError


def table(tmp_path, n=60, name="texts.csv"):
    rows = [
        f"the {'good' if i % 3 else 'bad'} film number {' '.join(str(i))},{'pos' if i % 3 else 'neg'},w{i % 7}"
        for i in range(n)
    ]
    (tmp_path / name).write_text("\n".join(["text,label,author", *rows]))
    return str(tmp_path / name)


class TestTextTable(TaskConformance):
    @pytest.fixture(params=["bytes", "words"])
    def task(self, tmp_path, request) -> Task:
        return ClassesTask(TextTable(length=24, tokenizer=request.param), root=table(tmp_path))


class TestTextWithMask(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path) -> Task:
        names = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}
        return ClassesTask(TextTable(length=40, group="author", **names), root=table(tmp_path))


class TestPythonText(TaskConformance):
    @pytest.fixture
    def task(self) -> Task:
        return ClassesTask(PythonText(["email", "http", "xml"], passages=30, length=200))


def test_bytes_are_shifted_padded_and_cut(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\nab,x\nabcdef,y\né,x\nz,y\n")
    task = ClassesTask(TextTable(length=4), root=str(tmp_path / "t.csv"), calibration=1, validation=1, test=1)
    found = {tuple(x[0].tolist()) for s in vars(task.splits()).values() for x, _ in s.batches(1)}
    assert found == {(98, 99, 0, 0), (98, 99, 100, 101), (0xC3 + 1, 0xA9 + 1, 0, 0), (ord("z") + 1, 0, 0, 0)}
    assert next(iter(task.splits().test.batches(1)))[0].dtype == np.int64


def test_the_mask_tells_where_there_are_ids(tmp_path):
    task = ClassesTask(TextTable(length=40, mask="mask"), root=table(tmp_path))
    assert task.input_shape == {"ids": (40,), "mask": (40,)}
    inputs, _ = next(iter(task.splits().train.batches(50)))
    np.testing.assert_array_equal(inputs["mask"], (inputs["ids"] > 0).astype(np.int64))


def test_words_and_punctuation_are_looked_up_in_lower_case():
    assert words_of("Don't stop, me!") == ["don", "'", "t", "stop", ",", "me", "!"]
    assert Words(["stop", "me"]).ids("Stop it me") == [2, 1, 3]


def test_the_vocabulary_is_of_the_training_split_and_kept(tmp_path):
    rows = [f"common word{i},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]))
    task = ClassesTask(
        TextTable(length=3, tokenizer="words", cache_dir=str(tmp_path / "cache")),
        root=str(tmp_path / "t.csv"),
    )
    splits = task.splits()
    (kept,) = (tmp_path / "cache").glob("vocabulary-*.txt")
    words = kept.read_text().splitlines()
    assert len(words) == 1 + len(splits.train)
    assert words[0] == "common"
    for name, unknown in (("train", False), ("test", True), ("validation", True), ("calibration", True)):
        for ids, _ in getattr(splits, name).batches(1):
            assert ids[0, 0] == 2
            assert (ids[0, 1] == 1) == unknown
    as_file = ClassesTask(
        TextTable(length=3, tokenizer="words", vocabulary=str(kept)), root=str(tmp_path / "t.csv")
    )
    assert as_file.splits().test.digest == splits.test.digest


def test_the_size_of_a_vocabulary_counts_all_ids(tmp_path):
    task = ClassesTask(TextTable(length=24, tokenizer="words", vocabulary_size=5), root=table(tmp_path))
    ids = np.concatenate([x for x, _ in task.splits().train.batches(100)])
    assert ids.max() == 4


def test_folders_are_classes(tmp_path):
    for label, texts in {
        "ham": ["hello you", "see you", "bye now"],
        "spam": ["buy it", "win it", "get it"],
    }.items():
        (tmp_path / "mail" / label).mkdir(parents=True)
        for i, text in enumerate(texts):
            (tmp_path / "mail" / label / f"{i}.txt").write_text(text)
    task = ClassesTask(TextFolder(length=9), root=str(tmp_path / "mail"), calibration=1, validation=2, test=1)
    assert task.n_classes == 2
    examples = task._examples
    assert examples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert examples.place(4).endswith("spam/1.txt")
    (tmp_path / "mail" / "spam" / "3.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"spam/3\.txt is empty"):
        ClassesTask(TextFolder(), root=str(tmp_path / "mail")).splits()
    with pytest.raises(InputError, match=r"ham has no files CLASS/\*\.txt"):
        ClassesTask(TextFolder(), root=str(tmp_path / "mail" / "ham")).splits()
    with pytest.raises(InputError, match="there is no such folder"):
        ClassesTask(TextFolder(), root=str(tmp_path / "none")).splits()


def test_a_second_file_is_the_test_split(tmp_path):
    data = TextTable(length=30, test_root=table(tmp_path, 21, "test.csv"))
    splits = ClassesTask(data, root=table(tmp_path, 60)).splits()
    assert len(splits.test) == 21
    assert len(splits.train) + len(splits.calibration) + len(splits.validation) == 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": "letters"}, r"task\.data\.tokenizer must be bytes, words or the path"),
        ({"vocabulary": "v.txt"}, r"task\.data\.vocabulary is for words"),
        ({"length": 0}, r"task\.data\.length must be at least 1"),
        ({"tokenizer": "words", "vocabulary_size": 2}, r"task\.data\.vocabulary_size must be at least 3"),
    ],
)
def test_impossible_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        TextTable(**settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no such file"), ("", "is empty"), ("a\nb\na\n", "line 3: the word 'a' is that of line 1"),
     ("a\n\nb\n", "line 2: there is no word")],
)  # fmt: skip
def test_a_bad_vocabulary_raises(tmp_path, content, message):
    if content is not None:
        (tmp_path / "v.txt").write_text(content)
    data = TextTable(tokenizer="words", vocabulary=str(tmp_path / "v.txt"))
    with pytest.raises(InputError, match=message):
        ClassesTask(data, root=table(tmp_path)).splits()


def test_a_tokenizer_json_cuts_with_its_special_tokens(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "the": 4, "good": 5, "bad": 6, "film": 7}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_padding(length=50)
    made.save(str(tmp_path / "tokenizer.json"))
    for length, wanted in ((4, [2, 4, 6, 3]), (9, [2, 4, 6, 7, 1, 1, 3, 0, 0])):
        data = TextTable(length=length, tokenizer=str(tmp_path / "tokenizer.json"))
        split = ClassesTask(data, root=table(tmp_path))._ready[0].split
        assert split.inputs[0].tolist() == wanted
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(InputError, match=r"is damaged, or not a tokenizer\.json"):
        ClassesTask(data, root=table(tmp_path)).splits()
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="there is no such file"):
        ClassesTask(data, root=table(tmp_path)).splits()


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"needs the package `tokenizers`: pip install 'paredown\[text\]'"):
        ClassesTask(TextTable(tokenizer="t.json"), root=table(tmp_path)).splits()


def test_a_missing_package_of_python_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing has no Python files"):
        ClassesTask(PythonText(["nothing"])).splits()
