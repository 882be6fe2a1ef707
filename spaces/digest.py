"""Short digests, used as cache keys and to compare contents."""

from hashlib import sha256


def digest_of(*parts: object) -> str:
    """Returns 16 hex digits of SHA-256 over the parts (bytes as they are, all else as `repr`)."""
    hasher = sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()[:16]
