import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.task.data.text.llama_tokenizer import LlamaTokenizer
from spaces.errors import InputError

PUBLISHED = Path(__file__).parents[5].parent / "shared/data/language/tokenizer.bin"
PIECES = ["a", "b", "c", " ", "ab", "bc", " a", "abc", "ca", "cab", " ab", "aa", "aaaa"]


def content(pieces=PIECES):
    """A tokenizer.bin: three marks, the bytes, and pieces, of which longer and later ones are better by a rule without order."""
    entries = [
        (b"<unk>", 0.0),
        (b"\n<s>\n", 0.0),
        (b"\n</s>\n", 0.0),
        *((bytes([i]), 0.0) for i in range(256)),
    ]
    entries += [(piece.encode(), -float((i * 7) % 5)) for i, piece in enumerate(pieces)]
    body = b"".join(struct.pack("<fi", score, len(piece)) + piece for piece, score in entries)
    return struct.pack("<i", max(len(piece) for piece, _ in entries)) + body


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "t.bin"
    path.write_bytes(content())
    return LlamaTokenizer(path)


def merged_by_scanning(tokenizer, text):
    """What `run.c` does: looks at all pairs before every merge."""
    ids = [*tokenizer._of_characters(" " + text)]
    while True:
        unions = [tokenizer._ids.get(tokenizer._pieces[a] + tokenizer._pieces[b]) for a, b in pairwise(ids)]
        known = [(tokenizer._scores[union], -i) for i, union in enumerate(unions) if union is not None]
        if not known:
            return ids
        i = -max(known)[1]
        ids[i : i + 2] = [unions[i]]


@given(st.text("abc ", min_size=1, max_size=40))
def test_merges_are_those_of_scanning_all_pairs(tokenizer, text):
    assert tokenizer.ids(text) == merged_by_scanning(tokenizer, text)


@given(st.text(max_size=30))
def test_a_text_comes_back(tokenizer, text):
    assert tokenizer.text(tokenizer.ids(text)) == text.encode("utf-8", "replace").decode()


def test_a_character_without_a_piece_becomes_its_bytes(tokenizer):
    assert [*tokenizer.ids("é")] == [3 + 256 + PIECES.index(" "), 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.byte_counts[:5] == (5, 5, 6, 1, 1)


@pytest.mark.parametrize(
    "damaged", [content()[:-1], content()[:900], b"", b"\x0a\x0b" * 50, content() + b"\0"]
)
def test_a_damaged_file_raises(tmp_path, damaged):
    (tmp_path / "t.bin").write_bytes(damaged)
    with pytest.raises(InputError, match=r"t\.bin is damaged, or no tokenizer\.bin"):
        LlamaTokenizer(tmp_path / "t.bin")


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        LlamaTokenizer(tmp_path / "t.bin")


def test_the_published_file():
    if not PUBLISHED.is_file():
        pytest.skip("tokenizer.bin is absent")
    published = LlamaTokenizer(PUBLISHED)
    assert len(published) == 32_000
    # As sentencepiece reads tokenizer.model.
    assert [*published.ids("One day, a little girl named Lily")] == [
        3118,
        2462,
        29892,
        263,
        2217,
        7826,
        4257,
        365,
        2354,
    ]
