import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators.task.data.crops import Crop
from evaluators.task.tasks.image_folder import ImageFolderTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError

N = 20


def write(root, n=N, columns=("file", "class_index")):
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    with (root / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*columns, "name"])
        for i in range(n):
            pixels = rng.integers(0, 256, (20 + i % 3, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{i:02}.png")
            table.writerow([f"{i:02}.png", i % 5, "a, b"])


def make(tmp_path, **more):
    arguments = {
        "calibration": 4,
        "validation": 5,
        "test": 6,
        "resize": 16,
        "crop": 12,
        "n_classes": 5,
        **more,
    }
    return ImageFolderTask(str(tmp_path / "images"), str(tmp_path / "cache"), **arguments)


class TestImageFolder(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        write(tmp_path / "images")
        return make(tmp_path, train=None)


def test_images_in_no_split_are_not_decoded(tmp_path):
    write(tmp_path / "images")
    splits = make(tmp_path).splits()
    assert len(splits.train) == 0
    (stored,) = (tmp_path / "cache").glob("crops-*.npy")
    assert np.load(stored).shape == (15, 12, 12, 3)


def test_decoded_images_are_kept_until_an_image_changes(tmp_path):
    write(tmp_path / "images")
    before = make(tmp_path).splits().test.digest
    (stored,) = (tmp_path / "cache").glob("crops-*.npy")
    stamp = stored.stat().st_mtime_ns
    assert make(tmp_path).splits().test.digest == before
    assert stored.stat().st_mtime_ns == stamp
    for path in (tmp_path / "images").glob("*.png"):
        Image.fromarray(np.full((30, 30, 3), int(path.stem), np.uint8)).save(path)
    assert make(tmp_path).splits().test.digest != before


def test_a_damaged_cache_is_rebuilt(tmp_path):
    write(tmp_path / "images")
    before = make(tmp_path).splits().test.digest
    (stored,) = (tmp_path / "cache").glob("crops-*.npy")
    stored.write_bytes(stored.read_bytes()[:200])
    splits = make(tmp_path).splits()
    assert splits.test.digest == before
    assert len(next(splits.test.batches(6))[0]) == 6


def test_a_pickled_split_has_the_path_and_not_the_pixels(tmp_path):
    import pickle

    write(tmp_path / "images")
    split = make(tmp_path).splits().test
    pixels = len(split) * 12 * 12 * 3
    assert len(pickle.dumps(split)) < pixels


def test_crop_takes_the_centre_after_resizing_the_shorter_side(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 200  # the central square
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (Crop(8, 8)(tmp_path / "wide.png") == 200).all()
    assert Crop(16, 4)(tmp_path / "wide.png").shape == (4, 4, 3)
    assert (Crop(16, 4)(tmp_path / "wide.png") == 200).all()


def test_grey_and_palette_images_become_rgb(tmp_path):
    Image.new("L", (8, 8), 7).save(tmp_path / "grey.png")
    assert (Crop(8, 8)(tmp_path / "grey.png") == 7).all()
    Image.new("P", (8, 8)).save(tmp_path / "palette.gif")
    assert Crop(8, 8)(tmp_path / "palette.gif").shape == (8, 8, 3)


def test_a_crop_larger_than_the_image_raises():
    with pytest.raises(ConfigError, match=r"crop=224, resize=200"):
        Crop(200, 224)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "03.png").unlink(), "03.png: there is no such image"),
        (lambda root: (root / "03.png").write_text("text"), "03.png cannot be decoded"),
        (
            lambda root: (root / "03.png").write_bytes((root / "03.png").read_bytes()[:200]),
            "03.png cannot be decoded",
        ),
        (lambda root: (root / "labels.csv").unlink(), "labels.csv: there is no such file"),
        (lambda root: (root / "labels.csv").write_bytes(b"\xff\xfe\x00\x01"), "labels.csv is damaged"),
        (
            lambda root: (root / "labels.csv").write_text("a,b\n1,2\n"),
            "has no column 'file' (task.file_column); it has a, b",
        ),
        (
            lambda root: (root / "labels.csv").write_text("file,class_index\n00.png,5\n"),
            "line 2: class index 5 of 00.png",
        ),
        (
            lambda root: (root / "labels.csv").write_text("file,class_index\n00.png,cat\n"),
            "'cat' is not a whole number",
        ),
        (
            lambda root: (root / "labels.csv").write_text("file,class_index\n00.png\n"),
            "None is not a whole number",
        ),
        (
            lambda root: (root / "labels.csv").write_text("file,class_index\n../x.png,1\n"),
            "is not a file name within",
        ),
        (
            lambda root: (root / "labels.csv").write_text("file,class_index\n1.png,1\n1.png,1\n"),
            "lists 1.png twice",
        ),
    ],
)
def test_invalid_files_raise(tmp_path, damage, message):
    write(tmp_path / "images")
    damage(tmp_path / "images")
    with pytest.raises(InputError) as caught:
        make(tmp_path, train=None).splits()
    assert message in str(caught.value)
    assert not list((tmp_path / "cache").glob(".crops*"))


def test_postscript_is_refused_and_not_passed_to_an_interpreter(tmp_path):
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    with pytest.raises(InputError, match="cannot be decoded"):
        Crop(8, 8)(tmp_path / "page.png")


def test_more_images_than_there_are_raise(tmp_path):
    write(tmp_path / "images")
    with pytest.raises(ConfigError, match="asks for 109 examples, but there are only 20"):
        make(tmp_path, test=100).splits()


def test_a_cache_that_cannot_be_written_raises(tmp_path):
    write(tmp_path / "images")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ConfigError, match=r"task\.cache_dir=.* cannot be written"):
        make(tmp_path).splits()


def test_columns_can_be_named(tmp_path):
    write(tmp_path / "images", columns=("image", "target"))
    assert len(make(tmp_path, file_column="image", class_column="target").splits().test) == 6


def test_sample_of_imagenet_is_read_in_place(tmp_path):
    root = Path(__file__).parents[4].parent / "shared/data/imagenet_sample"
    if not root.is_dir():
        pytest.skip("the ImageNet sample is absent")
    task = ImageFolderTask(str(root), str(tmp_path), calibration=2, validation=3, test=4)
    inputs, labels = next(task.splits().test.batches(4))
    assert inputs.shape == (4, 3, 224, 224)
    assert (labels % 2 == 0).all()  # the sample has the even classes
