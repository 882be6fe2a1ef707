import numpy as np
import pytest
from PIL import Image

from evaluators.task.data.images.masks import MaskFolders
from spaces.errors import ConfigError, InputError


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i, ending in enumerate(("png", "jpg", "bmp")):
        pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{i}.{ending}")
        Image.fromarray(rng.integers(0, 4, (9, 12), dtype=np.uint8)).save(tmp_path / f"masks/{i}.png")
    return tmp_path


def read(root, **settings):
    return MaskFolders(str(root / "cache"), **settings).read(root)


def test_pairs_by_name(root):
    examples = read(root)
    inputs, masks = next(examples.split.batches(3))
    assert inputs.shape == (3, 3, 9, 12)
    assert inputs.dtype == np.float32
    assert 0 <= inputs.min() < inputs.max() <= 1
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, np.asarray(Image.open(root / f"masks/{i}.png")))
    assert examples.place(1).endswith("masks/1.png")
    pixels = np.asarray(Image.open(root / "images/0.png"))
    np.testing.assert_allclose(np.moveaxis(inputs[0], 0, -1), pixels / 255, rtol=1e-5)
    assert read(root).split.digest == examples.split.digest


def test_a_changed_mask_is_decoded_again(root):
    before = read(root)
    Image.fromarray(np.full((9, 12), 2, np.uint8)).save(root / "masks/1.png")
    after = read(root)
    assert (after.split.labels[1] == 2).all()
    assert after.split.digest != before.split.digest


def test_palettes_and_bits_and_deep_masks(root):
    classes = np.asarray(Image.open(root / "masks/0.png"))
    palette = Image.fromarray(classes).convert("P")
    palette.putdata(classes.reshape(-1).tolist())
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 9, 9, 9])
    palette.save(root / "masks/0.png")
    np.testing.assert_array_equal(read(root).split.labels[0], classes)
    for i in range(3):
        (root / f"masks/{i}.png").unlink()
        Image.fromarray(classes > 1).save(root / f"masks/{i}.png")
    np.testing.assert_array_equal(read(root).split.labels[0], classes > 1)
    for i in range(3):
        Image.fromarray((classes.astype(int) * 300).astype(np.uint16)).save(root / f"masks/{i}.png")
    np.testing.assert_array_equal(read(root).split.labels[0], classes.astype(int) * 300)


def test_values_of_classes(root):
    for i in range(3):
        Image.fromarray(np.uint8([[0, 128] * 6, [255] * 12] * 4 + [[0] * 12])).save(root / f"masks/{i}.png")
    labels = read(root, mask_values=[0, 255], ignore=128).split.labels
    np.testing.assert_array_equal(labels[0][:2], [[0, 128] * 6, [1] * 12])
    with pytest.raises(
        InputError,
        match=r"0.png: the mask has 128 at row 0, column 1, but task.data.mask_values is \[0, 255\]",
    ):
        read(root, mask_values=[0, 255])


def test_images_and_masks_are_resized_and_cut_alike(root):
    yes = np.zeros((9, 12), np.uint8)
    yes[3:6, 6:9] = 1
    for i in range(3):
        Image.fromarray(yes * 200).convert("RGB").save(root / f"images/{i}.png")
        Image.fromarray(yes).save(root / f"masks/{i}.png")
    for ending in ("1.jpg", "2.bmp"):
        (root / "images" / ending).unlink()
    for settings, size in (
        ({"resize": 18}, (18, 24)),
        ({"resize": [18, 12]}, (18, 12)),
        ({"crop": 6}, (6, 6)),
        ({"resize": 18, "crop": [10, 16]}, (10, 16)),
    ):
        inputs, masks = next(read(root, **settings).split.batches(3))
        assert inputs.shape == (3, 3, *size)
        assert masks.shape == (3, *size)
        assert set(np.unique(masks)) == {0, 1}
        shares = inputs[0, 0] * 255 / 200
        assert ((shares > 0.5) == masks[0]).mean() > 0.95


def test_layout_and_normalisation(root):
    plain = next(read(root, channels="grey").split.batches(3))[0]
    inputs, _ = next(read(root, channels="grey", layout="NHWC", mean=[0.5], std=[0.25]).split.batches(3))
    np.testing.assert_allclose(inputs[..., 0], (plain[:, 0] - 0.5) / 0.25, atol=1e-5)


def break_size(root):
    Image.fromarray(np.zeros((9, 11), np.uint8)).save(root / "masks/1.png")


def break_sizes(root):
    break_size(root)
    Image.fromarray(np.zeros((9, 11, 3), np.uint8)).save(root / "images/1.jpg")


def break_colour(root):
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(root / "masks/1.png")


@pytest.mark.parametrize(
    ("broken", "settings", "text"),
    [
        (
            lambda root: (root / "masks/1.png").unlink(),
            {},
            r"images/1.jpg has no mask in .*masks \(1 of 3 have none",
        ),
        (lambda root: (root / "images/1.jpg").unlink(), {}, r"masks/1.png has no image in .*images"),
        (
            lambda root: (root / "masks/1.png").write_bytes(b"x"),
            {},
            "masks/1.png cannot be decoded as an image",
        ),
        (break_size, {}, "masks/1.png: the mask has 9 x 11 pixels, but 1.jpg has 9 x 12"),
        (
            break_sizes,
            {},
            r"images/1.jpg gives \(9, 11, 3\), but 0.png gives \(9, 12, 3\); one shape is needed",
        ),
        (break_colour, {}, "masks/1.png: a mask is a grey image or has a palette, but this one is RGB"),
        (lambda root: None, {"crop": 10}, "images/0.png: 9 x 12 pixels are too few to cut out 10 x 10"),
        (lambda root: None, {"masks": "labels"}, "labels: there is no such folder of images"),
        (lambda root: None, {"mask_suffix": "_mask"}, "has no mask in .* task.data.mask_suffix='_mask'"),
    ],
)
def test_wrong_folders_name_the_file(root, broken, settings, text):
    broken(root)
    with pytest.raises(InputError, match=text):
        read(root, **settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"resize": 0}, "task.data.resize must be a number of pixels"),
        ({"crop": [1, 2, 3]}, "task.data.crop must be a number of pixels"),
        ({"mean": [0.1, 0.2]}, r"task\.data\.mean has 2 values"),
    ],
)
def test_wrong_settings(root, settings, text):
    with pytest.raises(ConfigError, match=text):
        read(root, **settings)


def test_the_root_is_needed(root):
    with pytest.raises(ConfigError, match="must be given: the folder"):
        MaskFolders(str(root)).read(None)


def test_a_split_is_small_when_pickled_and_reads_only_its_rows(root):
    import pickle

    split = read(root).split
    part = split.subset(np.array([2, 0]))
    assert len(pickle.dumps(part)) < 2000
    np.testing.assert_array_equal(part.labels, split.labels[[2, 0]])
    assert [len(y) for _, y in part.batches(2, limit=1)] == [1]
    assert part.digest != split.digest
