"""Packs unsigned integers of any width without gaps, and reads a blob section by section."""

import numpy as np
from numpy.typing import NDArray

from spaces.errors import InputError

Integers = NDArray[np.uint32]


def n_packed_bytes(n: int, bits: int) -> int:
    """Returns the bytes of `n` packed integers: whole bytes, so that the next section starts at one."""
    return -(-n * bits // 8)


def pack_bits(integers: NDArray[np.integer], bits: int) -> bytes:
    """Packs integers in `[0, 2^bits)`, of any shape, in C order, the lowest bit first.

    Args:
        integers: Any integer dtype.
        bits: 1 to 32.
    """
    flat = integers.ravel()
    if bits in (8, 16, 32):
        return flat.astype(f"<u{bits // 8}").tobytes()
    narrow: NDArray[np.unsignedinteger] = flat.astype(np.uint8 if bits < 8 else np.uint32)
    planes = np.empty((flat.size, bits), np.uint8)
    for i in range(bits):
        planes[:, i] = (narrow >> i) & 1
    return np.packbits(planes, bitorder="little").tobytes()


def unpack_bits(packed: bytes, n: int, bits: int) -> Integers:
    """Returns the `n` integers of `pack_bits`, `(n,)` uint32."""
    if bits in (8, 16, 32):
        return np.frombuffer(packed, f"<u{bits // 8}", n).astype(np.uint32)
    planes = np.unpackbits(np.frombuffer(packed, np.uint8), count=n * bits, bitorder="little")
    integers = np.zeros(n, np.uint32)
    for i, plane in enumerate(planes.reshape(n, bits).T):
        integers |= plane.astype(np.uint32) << i
    return integers


class BlobReader:
    """Reads the sections of a blob in the order in which they were written.

    Args:
        blob: The sections, joined.

    Raises:
        InputError: A section is incomplete, or bytes are left at the end.
    """

    def __init__(self, blob: bytes) -> None:
        self._blob, self._at = blob, 0

    def integers(self, n: int, bits: int) -> Integers:
        """Returns the next `n` packed integers, `(n,)`."""
        return unpack_bits(self.take(n_packed_bytes(n, bits)), n, bits)

    def numbers(self, n: int, dtype: str) -> NDArray[np.float32]:
        """Returns the next `n` numbers of a little-endian numpy dtype as float32, `(n,)`."""
        stored = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(self.take(n * stored.itemsize), stored).astype(np.float32)

    def take(self, n: int) -> bytes:
        """Returns the next `n` bytes."""
        end = self._at + n
        if end > len(self._blob):
            raise InputError(f"the packed weight has {len(self._blob)} bytes, but at least {end} are needed")
        section, self._at = self._blob[self._at : end], end
        return section

    def end(self) -> None:
        """Checks that everything was read."""
        if self._at != len(self._blob):
            raise InputError(
                f"the packed weight has {len(self._blob)} bytes, but only {self._at} belong to it"
            )
