"""The tiny detector: what it is trained on, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.digit_detector import DigitDetectorModel, GridTargets
from spaces.stages.array_split import ArraySplit, ragged


def _split(n: int = 24, size: int = 8) -> ArraySplit:
    """White squares of 4 pixels; class 1 has a black middle."""
    random = np.random.default_rng(0)
    images, labels = np.zeros((n, 1, size, size), np.float32), []
    for image in images:
        (x, y), number = random.integers(0, size - 3, 2), int(random.integers(2))
        image[0, y : y + 4, x : x + 4] = 1
        image[0, y + 1 : y + 3, x + 1 : x + 3] -= number
        labels.append([[x, y, x + 4, y + 4, number, 0]])
    return ArraySplit(images, ragged(np.asarray(label, float) for label in labels))


def _model(**settings: Any) -> DigitDetectorModel:
    return DigitDetectorModel(
        **{"n_classes": 2, "input_shape": (1, 8, 8), "widths": (8, 8, 16), "epochs": 2, **settings}
    )


def _context(tmp_path: Path, split: ArraySplit | None = None, **settings: Any) -> LoadContext:
    return LoadContext(_split() if split is None else split, tmp_path, loss=None, **settings)


class TestDigitDetector(ModelSourceConformance):
    @pytest.fixture
    def source(self) -> DigitDetectorModel:
        return _model(epochs=1)

    @pytest.fixture
    def context(self, tmp_path: Path) -> LoadContext:
        return _context(tmp_path)


def test_grids_hold_each_box_in_the_cell_of_its_centre() -> None:
    label = np.array([[4, 0, 8, 4, 1, 0], [0, 5, 2, 7, 0, 0], [4, 4, 8, 8, 1, 2]], float)
    grids = GridTargets(ArraySplit(np.zeros((1, 1, 8, 8), np.float32), ragged([label])), 2, 2, 2)
    ((_, (grid,)),) = grids.batches(4)
    assert grid[0].tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(grid[:, 0, 1], [1, 0.5, 0.5, 0, 0, 1])
    np.testing.assert_allclose(grid[:, 1, 0], [1, 0.25, 0.5, np.log(0.5), np.log(0.5), 0], rtol=1e-6)
    assert (grid[:, 1, 1] == 0).all()


def test_training_finds_the_boxes(tmp_path: Path) -> None:
    split = _split(256)
    module = _model(epochs=20).load(_context(tmp_path, split)).model
    assert isinstance(module, torch.nn.Module)
    ((inputs, grids),) = GridTargets(split, 2, 2, 2).batches(256)
    with torch.no_grad():
        outputs = module(torch.from_numpy(np.asarray(inputs))).numpy()
    present = grids[:, 0] > 0
    assert ((outputs[:, 0] > 0) == present).mean() > 0.95
    assert (outputs[:, 5:].argmax(1)[present] == grids[:, 5][present]).mean() > 0.95
    assert np.abs(outputs[:, 3:5] - grids[:, 3:5]).transpose(0, 2, 3, 1)[present].mean() < 0.2


def test_the_checkpoint_is_kept_and_read_again(tmp_path: Path) -> None:
    first = _model().load(_context(tmp_path))
    (path,) = tmp_path.glob("digit_detector-*.pt")
    time = path.stat().st_mtime_ns
    assert _model().load(_context(tmp_path)).digest == first.digest
    assert path.stat().st_mtime_ns == time
    assert _model().load(_context(tmp_path, seed=1)).digest != first.digest


def test_without_training_weights_are_random(tmp_path: Path) -> None:
    _model().load(_context(tmp_path, trains=False))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (np.zeros(24, np.int64), {}, "digit_detector is trained on boxes"),
        (None, {"n_classes": 1}, "the network has 1 classes, but a label has class 1"),
        (
            None,
            {"input_shape": (1, 12, 8)},
            r"model.input_shape is \[1, 12, 8\], but the task's examples are \(1, 8, 8\)",
        ),
    ],
)
def test_labels_and_inputs_that_do_not_fit_are_refused(
    labels: Any, settings: Any, message: str, tmp_path: Path
) -> None:
    split = _split() if labels is None else ArraySplit(_split().raw, labels)
    with pytest.raises(InputError, match=message):
        _model(**settings).load(_context(tmp_path, split))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (1, 9, 8)}, "sides multiples of 4"),
        ({"widths": (8, 8)}, "model.widths must list 3 or more"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _model(**settings)
