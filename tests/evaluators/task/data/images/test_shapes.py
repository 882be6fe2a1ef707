import numpy as np
import pytest

from evaluators.task.data.images.shapes import IGNORE, Shapes
from spaces.errors import ConfigError


def test_shapes_and_their_masks():
    examples = Shapes(50, 24).read(None)
    inputs, masks = next(examples.split.batches(50))
    assert inputs.shape == (50, 1, 24, 24)
    assert masks.shape == (50, 24, 24)
    assert set(np.unique(masks)) == {0, 1, 2, 3, IGNORE}
    assert 0.6 < (masks == 0).mean() < 0.95
    again = Shapes(50, 24).read(None)
    assert again.split.digest == examples.split.digest
    assert Shapes(50, 24, seed=1).read(None).split.digest != examples.split.digest


@pytest.mark.parametrize("values", [(0, 24), (10, 8)])
def test_wrong_settings(values):
    with pytest.raises(ConfigError, match="size must be at least 16 and n at least 1"):
        Shapes(*values)
