"""Protocol buffers as bytes: enough to take a serialized ONNX model apart and put it together again.

Fields are tagged by number and kind; those of a message's or a string's kind carry their length
(https://protobuf.dev/programming-guides/encoding). Parsing and serializing a whole model takes longer than
everything else that a candidate needs.
"""

from collections.abc import Iterator

GRAPH = 7  # of ModelProto
INITIALIZER = 5  # of GraphProto
TENSOR_NAME, RAW_DATA = 8, 9  # of TensorProto
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """Encodes a number that is not negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def head(number: int, length: int) -> bytes:
    """Returns what stands before the content of a field that carries its length."""
    return varint(number << 3 | _DELIMITED) + varint(length)


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields each field of the message in `data[start:end]`: its number, and where it, its content and both end.

    Raises:
        ValueError: The bytes are no message.
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
            raise ValueError(f"there is no field of the kind {kind}")
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
    """Returns where the content of the first field of that number begins and ends.

    Raises:
        ValueError: The message has no such field.
    """
    for found, _, content, stop in fields(data, start, end):
        if found == number:
            return content, stop
    raise ValueError(f"the message has no field {number}")


def text(data: bytes, start: int, end: int, number: int) -> str:
    """Returns the first field of that number as text. Raises ValueError if there is none."""
    first, last = span(data, start, end, number)
    return data[first:last].decode()
