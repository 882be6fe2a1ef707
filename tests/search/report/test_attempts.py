"""An error in one output after the search is told in a sentence, kept in a log, and costs nothing else."""

import pytest

from search.report.attempts import LOG, Attempts
from spaces.errors import StudyError


def raising(error):
    def step():
        raise error

    return step


def test_what_works_is_returned_and_nothing_is_written(tmp_path):
    outputs = Attempts(tmp_path)
    assert outputs.make("a page", lambda: 3) == 3
    assert outputs.message == ""
    assert not list(tmp_path.iterdir())


def test_each_failure_is_named_once_with_its_reason_and_kept_with_its_traceback(tmp_path):
    outputs = Attempts(tmp_path)
    for _ in range(2):
        assert outputs.make("a page", raising(KeyError("top1"))) is None
    assert outputs.make("a picture", raising(ValueError("no axis\nmore"))) is None
    assert outputs.message == (
        "Could not make a page (KeyError: 'top1'), a picture (ValueError: no axis). All other results are complete; "
        f"details are in {tmp_path / LOG}"
    )
    text = (tmp_path / LOG).read_text()
    assert text.count("Traceback") == 3
    assert "raise error" in text


def test_no_secret_is_told_or_kept(tmp_path):
    outputs = Attempts(tmp_path)
    outputs.make("a page", raising(RuntimeError("no answer from http://user:hunter2@host")))
    assert "hunter2" not in outputs.message + (tmp_path / LOG).read_text()


@pytest.mark.parametrize("error", [StudyError("the disk is full"), ConnectionError("no server")])
def test_errors_that_say_what_to_do_or_are_tried_again_are_raised(tmp_path, error):
    outputs = Attempts(tmp_path, (OSError,))
    with pytest.raises(type(error)):
        outputs.make("a page", raising(error))
    assert outputs.message == ""


def test_a_log_that_cannot_be_written_hides_nothing(tmp_path):
    outputs = Attempts(tmp_path / "gone")
    outputs.make("a page", raising(KeyError("top1")))
    assert "a page (KeyError: 'top1')" in outputs.message
