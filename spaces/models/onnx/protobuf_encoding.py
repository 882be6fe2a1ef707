"""Reads and writes parts of serialized ONNX models in the protobuf encoding, without parsing the whole model.

Every field starts with a tag of field number and wire type; length-delimited fields (messages, strings,
bytes) carry their length (https://protobuf.dev/programming-guides/encoding). Parsing and serializing a whole
model would take longer than all other steps of quantizing a candidate.
"""

from collections.abc import Iterator

GRAPH = 7  # of ModelProto
INITIALIZER = 5  # of GraphProto
TENSOR_NAME, RAW_DATA = 8, 9  # of TensorProto
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """Returns the varint encoding of a non-negative integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def head(number: int, length: int) -> bytes:
    """Returns tag and length of a length-delimited field: the bytes before its content."""
    return varint(number << 3 | _DELIMITED) + varint(length)


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields `(number, start, content start, end)` of each field of the message in `data[start:end]`.

    Raises:
        ValueError: The bytes are not a protobuf message.
    """
    while start < end:
        tag, content = _read_varint(data, start)
        kind = tag & 7
        if kind == _VARINT:
            _, stop = _read_varint(data, content)
        elif kind == _DELIMITED:
            length, content = _read_varint(data, content)
            stop = content + length
        elif kind in (_FIXED64, _FIXED32):
            stop = content + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"unknown protobuf wire type {kind}")
        yield tag >> 3, start, content, stop
        start = stop


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def span(data: bytes, start: int, end: int, number: int) -> tuple[int, int]:
    """Returns start and end of the content of the first field with this number.

    Raises:
        ValueError: The message has no such field.
    """
    for found, _, content, stop in fields(data, start, end):
        if found == number:
            return content, stop
    raise ValueError(f"the message has no field {number}")


def text(data: bytes, start: int, end: int, number: int) -> str:
    """Returns the first field with this number, decoded as UTF-8. Raises ValueError if there is none."""
    first, last = span(data, start, end, number)
    return data[first:last].decode()
