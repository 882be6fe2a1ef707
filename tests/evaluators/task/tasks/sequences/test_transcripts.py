import numpy as np
import pytest

from evaluators.task.data.data import Data, Examples
from evaluators.task.data.npz import NpzData
from evaluators.task.data.sequences.digit_rows import DigitRowsData
from evaluators.task.tasks.sequences.transcripts import TranscriptsTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit, ragged


def paths(labels, n_classes, blank=0):
    """Outputs that decode to padded labels: each symbol, then a blank."""
    path = np.full((len(labels), 2 * labels.shape[1]), blank)
    path[:, ::2] = np.where(labels < 0, blank, labels)
    return np.eye(n_classes, dtype=np.float32)[path]


class TestTranscripts(TaskConformance):
    @pytest.fixture
    def task(self):
        return TranscriptsTask(DigitRowsData(rows=4), "0123456789")

    def outputs(self, task, splits):
        return paths(splits.validation.labels, 11)


class Given(Data):
    def __init__(self, labels):
        self.labels = labels

    def read(self, root):
        return Examples(ArraySplit(np.zeros((len(self.labels), 3), np.float32), self.labels), folder="given")


def labels_of(labels, alphabet="abc", **settings):
    task = TranscriptsTask(Given(labels), alphabet, calibration=1, validation=1, test=1, **settings)
    return task._examples.labels.tolist()


EXPECTED = [[1, 3, 3], [2, -1, -1], [-1, -1, -1]]


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["acc", "b", ""]),
        np.array([[0, 2, 2], [1, -1, -1], [-1, -1, -1]]),
        ragged([[0, 2, 2], [1], []]),
    ],
)
def test_texts_and_numbers_become_classes_and_may_be_empty(labels):
    assert labels_of(labels) == EXPECTED
    last = np.array(EXPECTED)
    assert labels_of(labels, blank="last") == np.where(last > 0, last - 1, -1).tolist()


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (
            np.array(["ab", "axb"]),
            r"given, example 1: 'x' in 'axb' is not in task\.alphabet \('a', 'b', 'c'\)",
        ),
        (np.array([[0, 1], [2, 3]]), "example 1: the symbol 3 is not one of the 3"),
        (np.array([[0, 1], [-2, 1]]), "example 1: the symbol -2 is not one of the 3"),
        (np.array([[0, 1], [-1, 1]]), "example 1: the symbol 1 .* stands behind a -1"),
        (ragged([[0], [0.5]]), r"example 1: a transcript must be a text or numbers \(length,\), not float64"),
        (ragged([[0], [[0, 1]]]), r"example 1: a transcript .* of shape \(1, 2\)"),
        (np.array([0, 1]), r"transcripts must be texts \(n,\)"),
        (np.array([[0.0, 1.0]]), "not float64"),
        (np.array(["", ""]), "no transcript has a symbol"),
    ],
)
def test_wrong_transcripts_raise(labels, match):
    with pytest.raises(InputError, match=match):
        labels_of(labels)


def test_texts_are_read_from_npz(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((6, 2)), y=np.array(["ab", "c", "", "a", "b", "c"]))
    task = TranscriptsTask(
        NpzData(), "abc", root=str(tmp_path / "a.npz"), calibration=1, validation=2, test=1
    )
    assert len(task.splits().train) == 2


def test_outputs_that_are_too_short_are_refused_with_the_transcript():
    task = TranscriptsTask(Given(np.array(["ab", "acc", "a"])), "abc")
    assert task.misfit(np.zeros((3, 4, 4)), 3) is None
    assert task.misfit(np.zeros((3, 3, 4)), 3) == (
        "the model yields 3 steps, but given, example 1 has a transcript that needs 4"
    )
    for shape in ((3, 4, 3), (4, 3, 4), (3, 4)):
        assert "(3, steps, 4) are needed" in task.misfit(np.zeros(shape), 3)


def test_the_word_error_rate_needs_a_space():
    both = TranscriptsTask(Given(np.array(["a b"])), "ab ")
    assert [m.name for m in (both.metric, *both.others)] == ["symbol_error_rate", "word_error_rate"]
    words = TranscriptsTask(Given(np.array(["a b"])), "ab ", metric="word_error_rate")
    assert [m.name for m in (words.metric, *words.others)] == ["word_error_rate", "symbol_error_rate"]
    assert words.metric.separator == 3
    assert TranscriptsTask(Given(np.array(["ab"])), "ab").others == ()
    with pytest.raises(ConfigError, match=r"needs a space in task\.alphabet"):
        TranscriptsTask(Given(np.array(["ab"])), "ab", metric="word_error_rate")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"alphabet": "aba"}, "has 'a' twice"),
        ({"alphabet": ""}, "is empty"),
        ({"alphabet": "a", "blank": "none"}, "task.blank"),
    ],
)
def test_wrong_settings_raise(settings, match):
    with pytest.raises(ConfigError, match=match):
        TranscriptsTask(Given(np.array(["a"])), **settings)


def test_pools_of_digits_are_not_divided():
    with pytest.raises(ConfigError, match="do not fit into width=40"):
        DigitRowsData(width=40)
    examples = DigitRowsData(rows=3).read(None)
    assert np.bincount(examples.groups).tolist() == [3] * 20
    assert {len(text) for text in examples.labels.tolist()} == {1, 2, 3, 4, 5}
