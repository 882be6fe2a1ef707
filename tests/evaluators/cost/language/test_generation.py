import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.language.generation import Cache, TextDecoder, greedy, speculative

N_TOKENS = 7


class Table(TextDecoder):
    """A decoder whose next token depends on the last two by a table; its cache holds the tokens themselves."""

    def __init__(self, table):
        self.table, self.n_passes = table, 0

    def empty(self):
        return Cache(np.zeros((1, 1, 0, 1)), np.zeros((1, 1, 0, 1)))

    def read(self, ids, cache):
        self.n_passes += 1
        assert cache.n_tokens < len(ids)
        assert cache.keys[0, 0, :, 0].tolist() == [*ids[: cache.n_tokens]], (
            "the cache holds tokens that were taken back"
        )
        whole = np.asarray(ids, float)[None, None, :, None]
        best = [self.table[ids[i - 1] if i else 0][ids[i]] for i in range(cache.n_tokens, len(ids))]
        return np.array(best), Cache(whole, whole)


tables = st.lists(
    st.lists(st.integers(0, N_TOKENS - 1), min_size=N_TOKENS, max_size=N_TOKENS),
    min_size=N_TOKENS,
    max_size=N_TOKENS,
)


@given(tables, tables, st.integers(1, 6), st.integers(1, 20))
def test_a_draft_changes_no_token(of_target, of_draft, draft_length, n_tokens):
    target = Table(of_target)
    found = speculative(target, Table(of_draft), [1, 2], n_tokens, draft_length)
    assert found.tokens == greedy(Table(of_target), [1, 2], n_tokens)
    assert 0 <= found.n_kept <= found.n_judged
    assert target.n_passes <= n_tokens


def test_the_target_itself_as_draft_is_always_kept():
    table = np.random.default_rng(0).integers(0, N_TOKENS, (N_TOKENS, N_TOKENS)).tolist()
    target = Table(table)
    found = speculative(target, Table(table), [1], 20, 4)
    assert found.n_kept == found.n_judged == 16
    assert target.n_passes == 4


@pytest.mark.parametrize("n_tokens", [1, 2, 5])
def test_so_many_tokens_are_written(n_tokens):
    constant = [[3] * N_TOKENS] * N_TOKENS
    assert speculative(Table(constant), Table(constant), [1], n_tokens, 9).tokens == [3] * n_tokens
