import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators.task.data.crops import Crop
from evaluators.task.tasks.classification.image_folder import ImageFolderTask
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


def write_classes(root, names="cab", n=4, start=0):
    """Images of one grey each, so that they can be told apart."""
    for k, name in enumerate(names):
        (root / name / "more").mkdir(parents=True)
        for i in range(n):
            grey = Image.new("L", (20, 20), start + 10 * k + i)
            grey.save(root / name / ("more" if i % 2 else "") / f"{i}.{'png' if i else 'PNG'}")
        (root / name / "notes.txt").write_text("no image")


def make_by_class(tmp_path, **more):
    sizes = {"calibration": 1, "validation": 3, "test": 3, "train": None}
    return make(tmp_path, **{"labels": None, "n_classes": 3, **sizes, **more})


def greys(task):
    """Returns the class of each image by its grey."""
    splits = task.splits()
    parts = [
        s.subset(np.arange(len(s)))
        for s in (splits.train, splits.calibration, splits.validation, splits.test)
    ]
    return {
        int(raw[0, 0, 0]): int(y) for part in parts for raw, y in zip(part.raw[:], part.labels, strict=True)
    }


class TestClassFolders(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        write_classes(tmp_path / "images", n=8)
        return make_by_class(tmp_path)


class TestUnlabelledCalibration(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        write(tmp_path / "images")
        write_classes(tmp_path / "others")
        return make(tmp_path, train=None, calibration=7, calibration_root=str(tmp_path / "others"))


def test_classes_are_folders_sorted_by_name_or_in_the_order_of_a_file(tmp_path):
    write_classes(tmp_path / "images")
    of_letter = {"c": 0, "a": 1, "b": 2}  # the greys' tens
    assert greys(make_by_class(tmp_path)) == {
        10 * of_letter[name] + i: label for label, name in enumerate("abc") for i in range(4)
    }
    (tmp_path / "images/order.txt").write_text("b\nnone of them\n\nc\na\n")
    assert greys(make_by_class(tmp_path, n_classes=4, classes="order.txt")) == {
        10 * of_letter[name] + i: label for label, name in ((0, "b"), (2, "c"), (3, "a")) for i in range(4)
    }


def test_calibration_images_of_another_folder_have_no_labels(tmp_path):
    write(tmp_path / "images")
    write_classes(tmp_path / "others")
    task = make(tmp_path, train=None, calibration=7, calibration_root=str(tmp_path / "others"))
    splits = task.splits()
    assert splits.calibration.labels.tolist() == [-1] * 7
    greys = {int(raw[0, 0, 0]) for raw in splits.calibration.raw[:]}
    assert len(greys) == 7
    assert greys <= {10 * k + i for k in range(3) for i in range(4)}
    assert len(splits.train) + len(splits.validation) + len(splits.test) == N


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        (None, {"n_classes": 2}, "images has 3 class folders, but task.n_classes is 2: set task.n_classes=3, or name"),
        (lambda root: (root / "d").mkdir(), {"n_classes": 4}, "images/d has no images (.jpg"),
        (lambda root: Image.new("L", (9, 9)).save(root / "x.png"), {}, "x.png lies in no class folder"),
        (lambda root: (root / "order.txt").write_text("a\nb\nd"), {"classes": "order.txt"}, "images/c: "),
        (lambda root: (root / "order.txt").write_text("a\nb\na"), {"classes": "order.txt"}, "names the class a twice"),
        (lambda root: (root / "order.txt").write_text("a\nb"), {"classes": "order.txt"}, "order.txt names 2 classes, but"),
        (None, {"classes": "order.txt"}, "order.txt: there is no such file"),
        (None, {"calibration_root": "nowhere"}, "nowhere: there is no such folder"),
        (lambda root: (root / "a/2.png").write_text("text"), {}, "2.png cannot be decoded"),
    ],
)  # fmt: skip
def test_invalid_class_folders_raise(tmp_path, damage, settings, message):
    write_classes(tmp_path / "images")
    if damage is not None:
        damage(tmp_path / "images")
    with pytest.raises(InputError) as caught:
        make_by_class(tmp_path, **settings).splits()
    assert message in str(caught.value)


def test_root_without_class_folders_raises(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="has no class folders"):
        make_by_class(tmp_path).splits()


def test_more_calibration_images_than_the_folder_has_raise(tmp_path):
    write(tmp_path / "images")
    write_classes(tmp_path / "others")
    with pytest.raises(
        ConfigError, match=r"task\.calibration_root=.*others.*13 examples, but there are only 12"
    ):
        make(tmp_path, calibration=13, calibration_root=str(tmp_path / "others")).splits()


def test_an_order_of_classes_with_a_label_file_raises(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.classes=order\.txt .* task\.labels is labels\.csv"):
        make(tmp_path, classes="order.txt")


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest", "area", "lanczos"])
def test_interpolation_is_pillows(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    found = Crop(16, 16, name)(tmp_path / "noise.png").astype(float)
    if name == "area":  # the mean of 4 x 4 pixels, rounded twice
        np.testing.assert_allclose(found, pixels.reshape(16, 4, 16, 4, 3).mean((1, 3)), atol=1)
    elif name == "nearest":
        np.testing.assert_array_equal(found, pixels[2::4, 2::4])
    else:
        filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
        np.testing.assert_array_equal(found, Image.fromarray(pixels).resize((16, 16), filters[name]))


def test_an_unknown_interpolation_raises(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"task\.interpolation must be one of bilinear, bicubic, nearest, area, lanczos, not 'cubic'",
    ):
        make(tmp_path, interpolation="cubic")


def test_stored_crops_of_the_default_interpolation_keep_their_name(tmp_path):
    assert (
        repr(Crop(256, 224)) == "Crop(resize=256, size=224)"
    )  # a part of the file's name since the first version
    write(tmp_path / "images")
    before = make(tmp_path).splits().test.digest
    assert make(tmp_path, interpolation="lanczos").splits().test.digest != before
    assert len(list((tmp_path / "cache").glob("crops-*.npy"))) == 2


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
