"""Mosaics of digits: boxes hold the ink, splits share no digit."""

from typing import Any

import numpy as np
import pytest

from evaluators.task.data.boxes.digit_mosaics import DigitMosaics
from spaces.errors import ConfigError


def _mosaics(**settings: Any) -> DigitMosaics:
    return DigitMosaics(**{"train": 20, "calibration": 5, "validation": 10, "test": 10, **settings})


def test_boxes_hold_all_ink() -> None:
    split = _mosaics(noise=0.0).read(None).split
    ((inputs, labels),) = split.batches(100)
    assert isinstance(inputs, np.ndarray)
    assert inputs.shape == (45, 1, 32, 32)
    assert {len(label) for label in labels} == {1, 2, 3}
    for image, label in zip(inputs[:, 0], labels, strict=True):
        covered = np.zeros_like(image, bool)
        for x1, y1, x2, y2 in label[:, :4].astype(int):
            ink = image[y1:y2, x1:x2] >= 64 / 255
            assert all(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
            covered[y1:y2, x1:x2] = True
        assert (image[~covered] < 64 / 255).all()


def test_splits_are_fixed_and_equal_each_time() -> None:
    one, other = _mosaics().read(None), _mosaics().read(None)
    assert one.split.digest == other.split.digest != _mosaics(draw_seed=1).read(None).split.digest
    assert one.parts is not None
    assert {name: len(rows) for name, rows in one.parts.items()} == {
        "train": 20, "calibration": 5, "validation": 10, "test": 10
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"digits": [3, 1]}, "task.data.digits must be two whole numbers"),
        ({"sides": [9]}, "task.data.sides must be two"),
        ({"sides": [9, 40]}, "do not fit"),
        ({"validation": 0}, "task.data.validation must be a number of images"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _mosaics(**settings)
