"""Runs decoders with a key-value cache: greedy text, plain and by speculative decoding.

A decoder is an ONNX file with the inputs and outputs of `spaces.models.zoo.language.decoder`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.runtime import open_session, run_session
from spaces.models.zoo.language.decoder_interface import OUTPUTS


@dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens that were read, each `(n_layers, n_kv_heads, n_tokens, head_dim)` float32."""

    keys: NDArray[np.float32]
    values: NDArray[np.float32]

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return int(self.keys.shape[2])

    def cut(self, n_tokens: int) -> "Cache":
        """Returns the cache of the first tokens."""
        return Cache(self.keys[:, :, :n_tokens], self.values[:, :, :n_tokens])


class TextDecoder:
    """A decoder in onnxruntime.

    Args:
        model: The ONNX file.
        threads: onnxruntime's threads within an operator.

    Raises:
        EvaluationError: onnxruntime cannot load the file.
    """

    def __init__(self, model: bytes, threads: int = 1) -> None:
        self._session = open_session(model, threads)
        shapes = {tensor.name: tensor.shape for tensor in self._session.get_inputs()}
        layers, heads, _, size = shapes["past_keys"]
        self._empty = np.zeros((layers, heads, 0, size), np.float32)
        self.head_dim: int = size
        self.cache_elements = 2 * layers * heads * size  # of one token
        self.vocabulary_size: int = self._session.get_outputs()[0].shape[-1]

    def empty(self) -> Cache:
        """Returns a cache without tokens."""
        return Cache(self._empty, self._empty)

    def read(self, ids: Sequence[int], cache: Cache) -> tuple[NDArray[np.int64], Cache]:
        """Reads the tokens that the cache lacks.

        Args:
            ids: The whole text, longer than the cache.
            cache: Of its beginning.

        Returns:
            The most probable token after each of the new ones, `(n_new,)`, and the cache with them.
        """
        positions = np.arange(cache.n_tokens, len(ids))
        feeds = {"ids": np.array([ids[cache.n_tokens :]]), "positions": positions}
        logits, keys, values = run_session(
            self._session, {**feeds, "past_keys": cache.keys, "past_values": cache.values}, [*OUTPUTS]
        )
        return logits[0].argmax(axis=1), Cache(keys, values)  # type: ignore[arg-type]


def greedy(decoder: TextDecoder, prompt: Sequence[int], n_tokens: int) -> list[int]:
    """Returns the tokens that greedy decoding writes after a prompt, `n_tokens` of them."""
    ids, cache = [*prompt], decoder.empty()
    for _ in range(n_tokens):
        best, cache = decoder.read(ids, cache)
        ids.append(int(best[-1]))
    return ids[len(prompt) :]


@dataclass(frozen=True)
class Speculated:
    """A text by speculative decoding.

    Attributes:
        tokens: The text.
        n_judged: Drafted tokens before which all of the same draft were right.
        n_kept: Those of them that the target kept.
    """

    tokens: list[int]
    n_judged: int
    n_kept: int


def speculative(
    target: TextDecoder, draft: TextDecoder, prompt: Sequence[int], n_tokens: int, draft_length: int
) -> Speculated:
    """Returns the target's greedy text, which a draft speeds up: Leviathan et al. 2023, algorithm 1, at temperature 0.

    The draft proposes `draft_length` tokens, the target reads them in one pass, and keeps those before the first that is not its own
    choice, which it replaces.
    """
    ids, n_judged, n_kept = [*prompt], 0, 0
    of_target, of_draft = target.empty(), draft.empty()
    end = len(prompt) + n_tokens
    while len(ids) < end:
        proposed = [*ids]
        for _ in range(min(draft_length, end - len(ids) - 1)):
            best, of_draft = draft.read(proposed, of_draft)
            proposed.append(int(best[-1]))
        best, of_target = target.read(proposed, of_target)
        n_new = len(proposed) - len(ids)
        choices = best[-n_new - 1 :].tolist()
        kept = next((i for i in range(n_new) if proposed[len(ids) + i] != choices[i]), n_new)
        ids += choices[: kept + 1]
        n_judged, n_kept = n_judged + min(kept + 1, n_new), n_kept + kept
        of_target, of_draft = of_target.cut(len(ids) - 1), of_draft.cut(len(ids) - 1)
    return Speculated(ids[len(prompt) :], n_judged, n_kept)
