import pytest
import torch
from torch import nn

from spaces.recovery.invariance import suitable_augmentation
from spaces.stages.output_spec import OutputSpec


class Answers(nn.Module):
    """The class is the argmax of `values(x)`."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, x):
        return self.values(x)


def inputs(*shape):
    return torch.randn(64, *shape, generator=torch.Generator().manual_seed(0))


def by_brightness(x):
    """Classes by the mean of the centre, which neither flips nor small shifts change much."""
    mean = 5 + x.flatten(1).mean(1)
    return torch.stack([mean, -mean], 1)


def by_side(x):
    """Classes by the brighter half, which a flip exchanges."""
    half = x.shape[-1] // 2
    return torch.stack([x[..., :half].flatten(1).sum(1), x[..., half:].flatten(1).sum(1)], 1)


def by_corner(x):
    """Classes by single pixels."""
    return x.flatten(1)


@pytest.mark.parametrize(
    ("values", "shape", "name"),
    [
        (by_brightness, (3, 16, 16), "flip_crop"),
        (by_corner, (3, 16, 16), "none"),
        (by_brightness, (2, 32), "signal"),
        (by_corner, (2, 32), "none"),
        (by_brightness, (5,), "none"),
    ],
)
def test_the_richest_change_that_the_answers_survive(values, shape, name):
    found = suitable_augmentation(Answers(values).eval(), inputs(*shape), 0)
    assert found == name


def test_what_a_flip_changes_is_not_flipped():
    lit = inputs(1, 16, 16)
    lit[:32, :, :, :8] += 9.0
    lit[32:, :, :, 8:] += 9.0
    assert suitable_augmentation(Answers(by_side).eval(), lit, 0) == "crop"


def test_one_logit_has_two_answers():
    lit = inputs(1, 16, 16)
    lit[:32, :, :, :8] += 9.0
    lit[32:, :, :, 8:] += 9.0
    side = Answers(lambda x: by_side(x)[:, 1:] - by_side(x)[:, :1]).eval()
    assert suitable_augmentation(side, lit, 0, OutputSpec(binary="logit")) == "crop"


def test_networks_with_several_outputs():
    class Two(nn.Module):
        def forward(self, x):
            return by_brightness(x), x

    assert suitable_augmentation(Two().eval(), inputs(3, 16, 16), 0) == "flip_crop"


def test_labels_of_positions_would_have_to_move():
    assert suitable_augmentation(nn.Conv2d(3, 2, 1).eval(), inputs(3, 16, 16), 0) == "none"
