import numpy as np
import pytest
from PIL import Image

from evaluators.task.data.images.downscaled import DownscaledFolder, SamplePhotographs
from spaces.errors import ConfigError, InputError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (20, 24)), ("b.bmp", (31, 22)), ("more/c.png", (18, 18))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_the_centre_and_its_copy(root, tmp_path):
    examples = DownscaledFolder(str(tmp_path / "cache"), 3, 18).read(root)
    inputs, labels = next(examples.split.batches(3))
    assert inputs.shape == (3, 3, 6, 6)
    assert labels.shape == (3, 18, 18, 3)
    image = Image.open(root / "a.png")
    centre = image.crop((3, 1, 21, 19))
    np.testing.assert_array_equal(labels[0], np.asarray(centre))
    small = np.asarray(centre.resize((6, 6), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(np.moveaxis(inputs[0], 0, -1), small / 255, rtol=1e-5)
    assert examples.place(2).endswith("c.png")


def test_grey_and_channels_last(root, tmp_path):
    data = DownscaledFolder(str(tmp_path / "cache"), 2, 16, "grey", "NHWC")
    inputs, labels = next(data.read(root).split.batches(3))
    assert inputs.shape == (3, 8, 8, 1)
    assert labels.shape == (3, 16, 16, 1)


def test_an_image_that_is_too_small_is_named(root, tmp_path):
    with pytest.raises(InputError, match=r"c.png: 18 x 18 pixels are fewer than task.data.size=20"):
        DownscaledFolder(str(tmp_path / "cache"), 2, 20).read(root)


def test_a_folder_without_images(tmp_path):
    with pytest.raises(InputError, match="has no images"):
        DownscaledFolder(str(tmp_path / "cache")).read(tmp_path)


@pytest.mark.parametrize("loader", [SamplePhotographs, lambda *values: DownscaledFolder("cache", *values)])
@pytest.mark.parametrize("values", [(2, 15), (0, 16), (2, 0)])
def test_the_factor_divides_the_size(loader, values):
    with pytest.raises(ConfigError, match="must be a multiple of"):
        loader(*values)


def test_tiles_of_the_photographs():
    from sklearn.datasets import load_sample_images

    examples = SamplePhotographs(2, 48, least_deviation=0.0).read(None)
    assert len(examples.split) == 2 * 8 * 13
    first, second = load_sample_images().images
    np.testing.assert_array_equal(examples.labels[14], first[48:96, 48:96])
    np.testing.assert_array_equal(examples.labels[104], second[:48, :48])
    assert examples.place(105) == "flower.jpg, tile 1"
    textured = SamplePhotographs(2, 48).read(None)
    assert 100 < len(textured.split) < 208
    assert min(tile.std() for tile in textured.labels) >= 20
    with pytest.raises(ConfigError, match="no tile has a deviation"):
        SamplePhotographs(least_deviation=200.0).read(None)
