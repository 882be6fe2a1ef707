"""Every sampler that a config names passes Optuna's conformance tests and ours."""

from functools import partial

import pytest
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

from search.samplers.brute_force import BruteForceSampler
from search.samplers.candidates.context import KnowledgeRow, SamplerContext
from search.samplers.cmaes import CmaEsSampler
from search.samplers.gp import GpSampler
from search.samplers.grid import GridSampler
from search.samplers.nsga3 import Nsga3Sampler
from search.samplers.qmc import QmcSampler
from search.samplers.quantune import QuantuneSampler
from search.samplers.testing import (
    RelativeSamplerTestCase,
    SamplerConformance,
    SeveralObjectivesConformance,
    SingleObjectiveConformance,
)


class TestBruteForce(SamplerConformance):
    @pytest.fixture
    def sampler(self):
        return BruteForceSampler


class TestGrid(SamplerConformance):
    @pytest.fixture
    def sampler(self):
        return GridSampler


class TestNsga3(SamplerConformance):
    @pytest.fixture
    def sampler(self):
        return partial(Nsga3Sampler, population_size=4)


class TestQmc(SamplerConformance, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return QmcSampler


class TestCmaEs(SingleObjectiveConformance, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return CmaEsSampler

    # CMA-ES leaves choices to independent sampling
    test_sample_relative_categorical = None
    test_sample_relative_mixed = None


class TestQuantune(SamplerConformance, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return partial(QuantuneSampler, pool_size=64, n_rounds=20)


def quantune_with_transfer(seed=None):
    sampler = QuantuneSampler(transfer=True, pool_size=64, n_rounds=20, seed=seed)
    rows = [
        KnowledgeRow("other", {"bits": bits, "x": 0.5}, -float(bits), {"layers": 3.0}) for bits in (2, 4, 8)
    ]
    sampler.bind(SamplerContext(knowledge=rows, descriptors={"layers": 5.0}))
    return sampler


@pytest.mark.slow  # the same code as without bind, but for the training rows
class TestQuantuneTransfer(SamplerConformance, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return quantune_with_transfer


def draw(rng):
    params = {"scheme": ["plain", "clipped", None][rng.integers(3)], "bits": int(rng.choice([2, 4, 6, 8]))}
    return {**params, "clip": float(rng.uniform(0.5, 1))} if params["scheme"] == "clipped" else params


def quantune_with_draws(seed=None):
    sampler = QuantuneSampler(pool_size=16, n_rounds=20, seed=seed)
    sampler.bind(SamplerContext(draw=draw))
    return sampler


class TestQuantuneWithDraws(SamplerConformance):
    @pytest.fixture
    def sampler(self):
        return quantune_with_draws


@pytest.mark.slow  # seconds of fitting; the rows without Optuna's tests are in TestGpByAskAndTell
class TestGp(SamplerConformance, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return partial(GpSampler, n_startup_trials=0)  # it is relative only after those


class TestGpByAskAndTell(SeveralObjectivesConformance):
    @pytest.fixture
    def sampler(self):
        return partial(GpSampler, n_startup_trials=6, n_qmc_samples=16)


# Optuna's own samplers pass Optuna's tests; here they are tested for what a study requires beyond these.


class TestRandom(SeveralObjectivesConformance):
    @pytest.fixture
    def sampler(self):
        return RandomSampler


class TestTpe(SeveralObjectivesConformance):
    @pytest.fixture
    def sampler(self):
        return partial(TPESampler, n_startup_trials=5)


class TestNsga2(SeveralObjectivesConformance):
    @pytest.fixture
    def sampler(self):
        return partial(NSGAIISampler, population_size=4)
