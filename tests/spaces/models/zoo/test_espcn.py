import numpy as np
import pytest
import torch
from torch.nn import functional

from spaces.errors import ConfigError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.espcn import ESPCN, ESPCNModel
from spaces.stages.array_split import ArraySplit


def pictures(n=24):
    """Pictures of random lines, and every second pixel of each."""
    rng = np.random.default_rng(0)
    large = np.clip(rng.normal(0, 0.2, (n, 1, 12, 12)).cumsum(2) + 0.5, 0, 1).astype(np.float32)
    return ArraySplit(np.ascontiguousarray(large[:, :, ::2, ::2]), large)


def small(**more):
    return ESPCNModel(**{"input_shape": [1, 6, 6], "widths": [6, 4], "epochs": 15} | more)


class TestESPCN(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return small(epochs=1)

    @pytest.fixture
    def context(self, tmp_path):
        return LoadContext(pictures(), tmp_path, loss="squared")


def test_size():
    assert sum(p.numel() for p in ESPCN().parameters()) == 4_264


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_outputs_are_larger_by_the_factor(factor):
    assert ESPCN(2, factor).eval()(torch.zeros(2, 2, 5, 4)).shape == (2, 2, 5 * factor, 4 * factor)


def test_the_network_learns_more_than_interpolation(tmp_path):
    split = pictures()
    artifact = small().load(LoadContext(split, tmp_path, loss="squared"))
    x = torch.from_numpy(split.inputs)
    with torch.no_grad():
        found = artifact.model(x).numpy()
    plain = functional.interpolate(x, scale_factor=2.0, mode="bicubic").numpy()
    error, of_plain = (((array - split.labels) ** 2).mean() for array in (found, plain))
    assert error < 0.8 * of_plain


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"widths": [4]}, "model.widths must list two positive whole numbers"),
        ({"factor": 0}, "model.factor must be a whole number from 1 on, not 0"),
    ],
)
def test_invalid_values_name_the_key(values, text):
    with pytest.raises(ConfigError, match=text):
        small(**values)
