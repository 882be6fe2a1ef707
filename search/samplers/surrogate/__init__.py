"""The default sampler."""

from search.samplers.surrogate.sampler import SurrogateSampler

__all__ = ["SurrogateSampler"]
