"""Makes a training reproducible: fixes the number of threads, and seeds global random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spaces.digest import digest_of


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Sets torch's number of threads until the block ends; it determines the order of summation."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(*parts: object) -> Iterator[torch.Generator]:
    """Yields a seeded generator; until the block ends, torch's global one (for dropout) is seeded, too.

    Args:
        *parts: The values that the seed is computed from.
    """
    seed = seed_of(*parts)
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def seed_of(*parts: object) -> int:
    """Returns a seed in [0, 2**63), computed from a digest of `parts`."""
    return int(digest_of(*parts), 16) >> 1
