"""Packed integers of any width, and blobs read section by section."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.errors import InputError
from spaces.quantization.formats.packing.bit_packing import BlobReader, n_packed_bytes, pack_bits, unpack_bits


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 32), st.data())
def test_integers_are_read_back_and_take_no_bit_more(bits, data):
    values = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40)), np.uint32)
    packed = pack_bits(values, bits)
    assert len(packed) == n_packed_bytes(len(values), bits) == -(-len(values) * bits // 8)
    assert np.array_equal(unpack_bits(packed, len(values), bits), values)


def test_the_lowest_bit_comes_first():
    assert pack_bits(np.array([1, 0, 5]), 3) == bytes([0b01_000_001, 0b1])
    assert pack_bits(np.array([1, 2]), 4) == bytes([0x21])  # as ONNX packs INT4


def test_sections_are_read_in_order():
    reader = BlobReader(pack_bits(np.array([1, 2, 3]), 2) + np.float16([0.5, 2]).tobytes() + b"x")
    assert reader.integers(3, 2).tolist() == [1, 2, 3]
    assert reader.numbers(2, "float16").tolist() == [0.5, 2]
    with pytest.raises(InputError, match="has 6 bytes, but only 5 belong to it"):
        reader.end()
    with pytest.raises(InputError, match="has 6 bytes, but at least 9 are needed"):
        reader.take(4)
