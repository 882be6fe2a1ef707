import numpy as np
import pytest

from evaluators.task.data.text.stripped_text import StrippedText
from spaces.errors import ConfigError, InputError

TEXT = "He said:\n\n  What A\tday, Ünder DST — it's  "


def read(tmp_path, content=TEXT, **settings):
    (tmp_path / "t.txt").write_text(content, encoding="utf-8")
    return StrippedText(**settings).read(tmp_path / "t.txt")


def restored(ids, classes):
    """The text that ids and classes stand for, byte by byte."""
    found = b""
    for byte, of_it in zip((ids - 1).tolist(), classes.tolist(), strict=True):
        found += b" " * (of_it >= 2) + (bytes([byte]).upper() if of_it % 2 else bytes([byte]))
    return found.decode()


def test_the_text_can_be_restored(tmp_path):
    n = len("".join(TEXT.split()).encode())
    examples = read(tmp_path, length=n - 1)
    ids, classes = next(examples.split.batches(1))
    assert ids.dtype == classes.dtype == np.int64
    assert restored(ids[0], classes[0]) == " ".join(TEXT.split())[:-1]
    assert not np.isin(ids - 1, [ord(c) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ \n\t"]).any()
    assert examples.place(0).endswith("t.txt, token 1")


def test_a_folder_or_the_standard_library_is_read(tmp_path):
    read(tmp_path, length=8)
    assert len(StrippedText(length=8).read(tmp_path).labels) > 1
    found = StrippedText(length=20, characters=3000).read(None)
    assert len(found.labels) > 50
    assert set(np.unique(found.labels)) == {0, 1, 2, 3}


def test_bad_texts_and_settings_raise(tmp_path):
    with pytest.raises(
        InputError, match=r"t\.txt: a window and the token after it take 65 tokens, but there are 2"
    ):
        read(tmp_path, " a  b ")
    with pytest.raises(InputError, match=r"take 65 tokens, but there are 0"):
        read(tmp_path, " \n")
    with pytest.raises(InputError, match=r"has no Python files in nothing"):
        StrippedText(["nothing"]).read(None)
    with pytest.raises(ConfigError, match=r"task\.data\.length must be at least 1"):
        StrippedText(length=0)
