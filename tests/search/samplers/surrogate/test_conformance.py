"""The surrogate sampler passes Optuna's conformance tests and ours, on its own and bound."""

from functools import partial

import pytest

from search.samplers.candidates.context import KnowledgeRow, SamplerContext
from search.samplers.surrogate.sampler import SurrogateSampler
from search.samplers.testing import RelativeSamplerTestCase, SamplerConformance


class TestSurrogate(SamplerConformance, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return partial(SurrogateSampler, pool_size=64)


def draw(rng):
    params = {"scheme": ["plain", "clipped", None][rng.integers(3)], "bits": int(rng.choice([2, 4, 6, 8]))}
    return {**params, "clip": float(rng.uniform(0.5, 1))} if params["scheme"] == "clipped" else params


def with_draws(seed=None):
    sampler = SurrogateSampler(pool_size=16, seed=seed)
    sampler.bind(SamplerContext(draw=draw))
    return sampler


class TestSurrogateWithDraws(SamplerConformance):
    @pytest.fixture
    def sampler(self):
        return with_draws


def with_knowledge(seed=None):
    rows = [
        KnowledgeRow("other", {"bits": bits, "scheme": scheme}, -float(bits))
        for bits in (2, 4, 8)
        for scheme in ("plain", None)
    ]
    sampler = SurrogateSampler(pool_size=16, seed=seed)
    sampler.bind(SamplerContext(draw=draw, knowledge=rows))
    return sampler


class TestSurrogateWithKnowledge(SamplerConformance):
    @pytest.fixture
    def sampler(self):
        return with_knowledge
