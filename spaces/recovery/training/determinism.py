"""What would otherwise make a training depend on its surroundings: the number of threads, and global random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spaces.digest import digest_of


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Computes with this many threads inside: another number adds up sums in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(*parts: object) -> Iterator[torch.Generator]:
    """Yields a generator; torch's global one, which dropout draws from, is seeded inside, and put back after.

    Args:
        *parts: What the seed is made of.
    """
    seed = seed_of(*parts)
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def seed_of(*parts: object) -> int:
    """Returns a seed in [0, 2**63) made of `parts`."""
    return int(digest_of(*parts), 16) >> 1
