"""The tokenizer of llama2.c: byte-pair encoding whose merges go by the pieces' scores."""

import heapq
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from evaluators.task.data.archives import reading
from evaluators.task.data.text.tokenizers import Tokenizer
from spaces.errors import InputError

BEGIN = 1  # id before a text
_FIRST_BYTE = 3  # id of byte 0; the other bytes follow
_WHAT = "a tokenizer.bin of llama2.c"


class LlamaTokenizer(Tokenizer):
    """A `tokenizer.bin` of llama2.c (github.com/karpathy/llama2.c, `run.c`, `encode`): the greatest length of a piece, int32, then
    of each piece its score, float32, the number of its bytes, int32, and these bytes.

    A text starts as a space and its characters, characters without a piece as bytes; then the adjacent pair whose union is the piece
    of the highest score is merged, the leftmost of equal ones, until no pair is a piece.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, damaged, or of another kind.
    """

    def __init__(self, path: Path) -> None:
        with reading(path, _WHAT):
            self._pieces, self._scores = _read(path.read_bytes(), path)
        self._ids = {
            piece: i for i, piece in enumerate(self._pieces)
        }  # the later of equal ones: no byte has a character's id

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def byte_counts(self) -> tuple[int, ...]:
        """Number of bytes of each piece."""
        return tuple(map(len, self._pieces))

    def ids(self, text: str) -> Sequence[int]:
        """Returns the ids of a text, without one before or after it."""
        return self._merged([*self._of_characters(" " + text if text else "")])

    def text(self, ids: Iterable[int]) -> str:
        """Returns the text of ids, without the space that encoding puts before it."""
        joined = b"".join(self._pieces[i] for i in ids if i >= _FIRST_BYTE)
        return joined.decode("utf-8", "replace").removeprefix(" ")

    def _of_characters(self, text: str) -> Iterable[int]:
        for character in text:
            encoded = character.encode("utf-8", "replace")
            known = self._ids.get(encoded)
            yield from (byte + _FIRST_BYTE for byte in encoded) if known is None else (known,)

    def _merged(self, ids: list[int]) -> list[int]:
        """Returns ids after all merges, the best first; merged tokens stay in a list whose links skip them."""
        following, before = [*range(1, len(ids) + 1)], [*range(-1, len(ids) - 1)]
        alive = [True] * len(ids)
        queue: list[tuple[float, int, int, int]] = []

        def consider(left: int) -> None:
            right = following[left] if left >= 0 else len(ids)
            if right < len(ids):
                union = self._ids.get(self._pieces[ids[left]] + self._pieces[ids[right]])
                if union is not None:
                    heapq.heappush(queue, (-self._scores[union], left, union, right))

        for left in range(len(ids) - 1):
            consider(left)
        while queue:
            _, left, union, right = heapq.heappop(queue)
            if not (alive[left] and following[left] == right and right < len(ids) and alive[right]):
                continue
            if self._ids.get(self._pieces[ids[left]] + self._pieces[ids[right]]) != union:
                continue  # one of the two has grown since
            ids[left], alive[right] = union, False
            following[left] = following[right]
            if following[left] < len(ids):
                before[following[left]] = left
            consider(before[left])
            consider(left)
        return [token for token, is_alive in zip(ids, alive, strict=True) if is_alive]


def _read(content: bytes, path: Path) -> tuple[list[bytes], list[float]]:
    pieces: list[bytes] = []
    scores: list[float] = []
    position = 4
    while position + 8 <= len(content):
        score, length = struct.unpack_from("<fi", content, position)
        position += 8
        if not 0 <= length <= len(content) - position:
            break
        pieces.append(content[position : position + length])
        scores.append(score)
        position += length
    longest = struct.unpack_from("<i", content)[0] if len(content) >= 4 else -1
    is_one = len(pieces) > _FIRST_BYTE + 256 and longest == max(map(len, pieces))
    if position != len(content) or not is_one:
        raise InputError(f"{path} is damaged, or no tokenizer.bin of llama2.c")
    return pieces, scores
