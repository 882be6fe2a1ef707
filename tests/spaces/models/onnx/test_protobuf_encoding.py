"""Fields of serialized models are parsed and encoded as by protobuf."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from spaces.models.onnx import protobuf_encoding as protobuf


@given(st.integers(0, 2**40), st.binary(max_size=300), st.text(max_size=20), st.lists(st.integers(0, 999)))
def test_fields_are_encoded_as_by_protobuf(number, raw, name, dims):
    assert protobuf.varint(number) in TensorProto(int64_data=[number]).SerializeToString()
    tensor = TensorProto(dims=dims, data_type=1, name=name, raw_data=raw, int64_data=[number])
    data = b"before" + tensor.SerializeToString()
    found = list(protobuf.fields(data, 6, len(data)))
    assert [n for n, *_ in found] == sorted([1] * len(dims) + [2, 7, 8, 9])
    assert found[0][1] == 6
    assert all(a[3] == b[1] for a, b in itertools.pairwise(found))
    assert found[-1][3] == len(data)
    assert protobuf.text(data, 6, len(data), protobuf.TENSOR_NAME) == name
    start, end = protobuf.span(data, 6, len(data), protobuf.RAW_DATA)
    assert data[start:end] == raw
    assert data[found[-1][1] :] == protobuf.head(protobuf.RAW_DATA, len(raw)) + raw


def test_invalid_messages_raise():
    with pytest.raises(ValueError, match="wire type 3"):
        list(protobuf.fields(b"\x0b", 0, 1))
    with pytest.raises(ValueError, match="no field 9"):
        protobuf.span(b"", 0, 0, protobuf.RAW_DATA)
