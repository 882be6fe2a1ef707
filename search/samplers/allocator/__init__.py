"""The sampler that proposes an allocator's solutions."""

from search.samplers.allocator.sampler import AllocatorSampler

__all__ = ["AllocatorSampler"]
