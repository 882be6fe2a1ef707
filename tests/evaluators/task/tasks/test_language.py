from itertools import pairwise

import numpy as np
import pytest

from evaluators.task.data.npz import NpzData
from evaluators.task.data.text.text_windows import PythonWindows, TextWindows
from evaluators.task.tasks.language import LanguageTask
from evaluators.task.tasks.task import Task
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError


class TestLanguage(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path) -> Task:
        letters = np.random.default_rng(0).integers(97, 123, 4000)
        file = text(tmp_path, bytes(letters.tolist()).decode())
        return LanguageTask(TextWindows(length=20), root=file, calibration=15, validation=40, test=40)

    def outputs(self, task, splits):
        return 9 * np.eye(257, dtype=np.float32)[splits.validation.labels]


def text(tmp_path, content="abcdefghijklmnopqrstuvwxyz" * 20, name="t.txt"):
    (tmp_path / name).write_text(content)
    return str(tmp_path / name)


def test_labels_are_the_tokens_that_follow(tmp_path):
    splits = LanguageTask(TextWindows(length=5), root=text(tmp_path)).splits()
    inputs, labels = next(iter(splits.train.batches(100)))
    assert inputs.dtype == labels.dtype == np.int64
    np.testing.assert_array_equal(inputs[:, 1:], labels[:, :-1])
    np.testing.assert_array_equal((inputs[:, -1] - 98 + 1) % 26, labels[:, -1] - 98)


@pytest.mark.parametrize("stride", [None, 2, 9])
def test_no_token_is_in_two_splits(tmp_path, stride):
    content = "".join(chr(0x100 + i) for i in range(400))  # every character once
    file = text(tmp_path, content)
    (tmp_path / "v.txt").write_text("\n".join("word" + str(i) for i in range(400)))
    (tmp_path / "t.txt").write_text(" ".join("word" + str(i) for i in range(400)))
    data = TextWindows(length=6, stride=stride, tokenizer="words", vocabulary=str(tmp_path / "v.txt"))
    splits = LanguageTask(data, root=file).splits()
    seen = [
        {*np.concatenate([np.concatenate([x, y], 1) for x, y in s.batches(999)]).reshape(-1).tolist()}
        for s in (splits.train, splits.calibration, splits.validation, splits.test)
    ]
    for earlier, later in pairwise(seen):
        assert max(earlier) < min(later)


def test_windows_do_not_cross_files(tmp_path):
    for name, letter in (("a.txt", "a"), ("b.txt", "b")):
        text(tmp_path, letter * 50, name)
    labels = LanguageTask(TextWindows(length=8), root=str(tmp_path))._examples.labels
    assert labels.shape == (12, 8)
    assert (labels == labels[:, :1]).all()


def test_the_source_of_python_is_a_text():
    examples = LanguageTask(PythonWindows(["xml"], length=20, characters=3000))._examples
    assert len(examples.labels) > 100
    with pytest.raises(InputError, match="has no Python files in nothing"):
        LanguageTask(PythonWindows(["nothing"])).splits()


def test_so_many_characters_are_read(tmp_path):
    examples = LanguageTask(TextWindows(length=8, characters=100), root=text(tmp_path))._examples
    assert len(examples.labels) == 12
    assert examples.place(1).endswith("t.txt, token 9")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, r"task\.data\.length must be at least 1"),
        ({"stride": 0}, r"task\.data\.stride must be at least 1"),
        ({"tokenizer": "words"}, r"task\.data\.vocabulary must name a file"),
        ({"tokenizer": "letters"}, r"task\.data\.tokenizer must be"),
    ],
)
def test_impossible_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        TextWindows(**settings)


def test_bad_texts_raise(tmp_path):
    with pytest.raises(
        InputError, match=r"t\.txt: a window and the token after it take 65 tokens, but there are 5"
    ):
        LanguageTask(TextWindows(), root=text(tmp_path, "short")).splits()
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"t\.txt is damaged, or not a text in UTF-8"):
        LanguageTask(TextWindows(), root=str(tmp_path / "t.txt")).splits()
    (tmp_path / "t.txt").unlink()
    with pytest.raises(InputError, match=r"has no \.txt files"):
        LanguageTask(TextWindows(), root=str(tmp_path)).splits()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(4, int), r"ids of the tokens that follow, \(n, steps\)"),
        (np.zeros((4, 2)), r"ids of the tokens that follow, \(n, steps\)"),
        (np.array([[0, 1], [0, -2], [0, 1], [0, 0]]), r"example 1: token ids are below -1"),
        (np.array([[0, 1], [0, 2], [-1, -1], [0, 0]]), r"example 2: token ids are all -1"),
    ],
)
def test_bad_labels_raise(tmp_path, labels, message):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 2), int), y=labels)
    with pytest.raises(InputError, match=message):
        LanguageTask(NpzData(), root=str(tmp_path / "data.npz")).splits()


def test_outputs_must_be_logits_of_every_step(tmp_path):
    task = LanguageTask(TextWindows(length=8), root=text(tmp_path))
    assert task.misfit(np.zeros((3, 8, 257)), 3) is None
    for shape in ((3, 257), (3, 7, 257), (3, 8, 100)):
        assert "logits of shape (3, 8, 124 or more) are needed" in task.misfit(np.zeros(shape), 3)
