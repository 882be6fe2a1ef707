"""One writer at a time; the others are told who it is."""

import json
import os

import pytest

from search.record.storage.journal import lock_folder
from search.record.storage.writer_lock import WriterLock
from spaces.errors import StudyError


def test_the_second_is_refused_with_host_pid_and_time(tmp_path):
    lock = lock_folder(tmp_path)
    with pytest.raises(StudyError) as error:
        lock_folder(tmp_path)
    text = str(error.value)
    assert text.startswith(f"another process (host {os.uname().nodename}, pid {os.getpid()}, since 20")
    assert text.endswith(f" UTC) is writing the study in {tmp_path}; wait for it, or use another study.name")
    lock.release()
    lock.release()
    lock_folder(tmp_path).release()
    assert not list(tmp_path.glob("*.holder"))


def test_the_neighbour_of_a_killed_process_holds_nothing(tmp_path):
    """Not even if its number belongs to a living process by now."""
    holder = {"host": os.uname().nodename, "pid": os.getpid(), "since": "2020-01-01 00:00:00 UTC"}
    (tmp_path / ".lock.holder").write_text(json.dumps(holder))
    lock_folder(tmp_path).release()


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"host": 1}', '{"host": "a", "pid": "x", "since": 2}', "\0\xff"]
)
def test_a_damaged_neighbour_does_no_harm(tmp_path, text):
    lock = WriterLock(tmp_path / "x.lock", "the study")
    (tmp_path / "x.lock.holder").write_text(text)
    with pytest.raises(StudyError, match=r"^another process is writing the study"):
        WriterLock(tmp_path / "x.lock", "the study")
    lock.release()


def test_a_folder_that_cannot_be_locked_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"cannot lock the study: "):
        WriterLock(tmp_path / "file" / "x.lock", "the study")
