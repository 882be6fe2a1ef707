import numpy as np
import pytest
from PIL import Image

from evaluators.task.data.images.masks import MaskFolders
from evaluators.task.data.images.shapes import Shapes
from evaluators.task.data.npz import NpzData
from evaluators.task.tasks.segmentation import SegmentationTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError


def one_hot(masks, n_classes):
    return np.moveaxis(np.eye(n_classes, dtype=np.float32)[np.maximum(masks, 0)], -1, 1)


class TestSegmentation(TaskConformance):
    @pytest.fixture
    def task(self):
        return SegmentationTask(Shapes(60, 16), 4)

    def outputs(self, task, splits):
        return one_hot(splits.validation.labels, 4)


class TestStoredMasks(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        write_folders(tmp_path, 20)
        return SegmentationTask(MaskFolders(str(tmp_path / "cache")), 3, root=str(tmp_path))

    def outputs(self, task, splits):
        return one_hot(splits.validation.labels, 3)


def write_folders(root, n=4, size=(8, 10)):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(exist_ok=True)
    for i in range(n):
        mask = rng.integers(0, 3, size, dtype=np.uint8)
        mask[0, 0] = 255
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"images/{i:02}.png")
        Image.fromarray(mask).save(root / f"masks/{i:02}.png")


def npz_task(tmp_path, masks, **settings):
    n = len(masks)
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).random((n, 6, 6, 1), np.float32), y=masks)
    return SegmentationTask(NpzData(), root=str(path), **{"n_classes": 3} | settings)


def masks_of(n=20, size=6):
    return np.random.default_rng(1).integers(0, 3, (n, size, size))


@pytest.mark.parametrize("axis", [None, 1, 3])
def test_ignored_positions_become_minus_one(tmp_path, axis):
    masks = masks_of()
    masks[:, 2] = 255
    stored = masks if axis is None else np.expand_dims(masks, axis)
    labels = npz_task(tmp_path, stored).splits().validation.labels
    assert labels.dtype == np.int16
    assert labels.shape == (4, 6, 6)
    assert (labels[:, 2] == -1).all()
    assert (np.delete(labels, 2, 1) >= 0).all()


def test_stored_masks_are_not_read_when_they_are_divided(tmp_path, monkeypatch):
    from evaluators.task.data.images.stored_pairs import StoredPairs

    write_folders(tmp_path, 12)
    monkeypatch.setattr(StoredPairs, "labels", property(lambda _: pytest.fail("all labels were read")))
    task = SegmentationTask(MaskFolders(str(tmp_path / "cache")), 3, root=str(tmp_path))
    splits = task.splits()
    assert task.input_shape == (3, 8, 10)
    assert task.misfit(np.zeros((2, 3, 8, 10)), 2) is None
    inputs, labels = next(splits.train.batches(2))
    assert inputs.shape == (2, 3, 8, 10)
    assert labels[0, 0, 0] == -1


@pytest.mark.parametrize(
    ("masks", "settings", "text"),
    [
        (
            np.where(np.arange(20)[:, None, None] == 7, 9, masks_of()),
            {},
            r"example 7: the mask has 9 at row 0, column 0",
        ),
        (masks_of() - 1, {}, "the mask has -1 at row"),
        (masks_of() + 253, {"ignore": None}, "the mask has 25.* classes are 0..2 .task.n_classes.$"),
        (masks_of().astype(np.float32), {}, "masks must be whole numbers .* not float32"),
        (masks_of()[:, 0], {}, r"masks must be whole numbers \(n, H, W\)"),
    ],
)
def test_wrong_masks_name_file_and_position(tmp_path, masks, settings, text):
    with pytest.raises(InputError, match=text):
        npz_task(tmp_path, masks, **settings).splits()


def test_a_wrong_mask_in_a_folder_names_its_file(tmp_path):
    write_folders(tmp_path, 6)
    Image.fromarray(np.full((8, 10), 7, np.uint8)).save(tmp_path / "masks/03.png")
    task = SegmentationTask(MaskFolders(str(tmp_path / "cache")), 3, root=str(tmp_path))
    with pytest.raises(
        InputError, match=r"masks/03.png: the mask has 7 at row 0, column 0, but classes are 0..2"
    ):
        task.splits()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"n_classes": 1}, "task.n_classes must be at least 2"),
        ({"n_classes": 3, "threshold": 0.0}, "task.n_classes must be 2, since task.threshold is given"),
        ({"ignore": 2}, "task.ignore=2 is one of the 3 classes"),
    ],
)
def test_wrong_settings(tmp_path, settings, text):
    with pytest.raises(ConfigError, match=text):
        npz_task(tmp_path, masks_of(), **settings)


def test_outputs_of_another_resolution_need_a_setting(tmp_path):
    half = np.zeros((2, 3, 3, 3), np.float32)
    assert "task.upsample=bilinear or nearest" in npz_task(tmp_path, masks_of()).misfit(half, 2)
    assert npz_task(tmp_path, masks_of(), upsample="bilinear").misfit(half, 2) is None


@pytest.mark.parametrize(
    ("settings", "loss"),
    [
        ({}, "cross_entropy"),
        ({"output_layout": "NHWC"}, "cross_entropy_last"),
        ({"n_classes": 2, "threshold": 0.0}, "binary"),
        ({"n_classes": 2, "threshold": 0.5}, "probability"),
    ],
)
def test_the_loss_follows_the_outputs(tmp_path, settings, loss):
    assert npz_task(tmp_path, masks_of(), **settings).loss == loss
