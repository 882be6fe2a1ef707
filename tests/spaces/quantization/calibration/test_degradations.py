import numpy as np
import pytest

from spaces.quantization.calibration.degradations import DEGRADATIONS, LARGEST_KERNEL, gaussian

SEVEN = (
    "low_noise",
    "medium_noise",
    "small_blur",
    "large_blur",
    "low_contrast",
    "moderate_jpeg",
    "heavy_jpeg",
)


def picture(side=32, channels=3, seed=0):
    """An image of smooth shapes with an edge, like a photograph."""
    y, x = np.mgrid[:side, :side] / side
    waves = [120 + 80 * np.sin(6 * x + k) * np.cos(5 * y - k) + 40 * (x > y) for k in range(channels)]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.float32)


def error(kind, image, n=16):
    found = [DEGRADATIONS[kind](image, np.random.default_rng(seed)) for seed in range(n)]
    return float(np.mean([np.mean((f.astype(float) - image) ** 2) for f in found]))


def test_there_are_seven_degradations():
    assert tuple(DEGRADATIONS) == SEVEN
    assert all(name == row.name for name, row in DEGRADATIONS.items())


@pytest.mark.parametrize("kind", SEVEN)
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3), (64, 1), (2, 3), (1, 1)])
def test_results_are_uint8_of_the_same_shape_and_reproducible(kind, side, channels):
    image = picture(side, channels)
    before = image.copy()
    one, same, other = (DEGRADATIONS[kind](image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == image.shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert np.array_equal(image, before)
    if side > 8:
        assert not np.array_equal(one, np.rint(image))
        assert "blur" in kind or not np.array_equal(one, other)  # few kernel sizes, so draws may be equal


@pytest.mark.parametrize(
    ("mild", "strong"),
    [("low_noise", "medium_noise"), ("small_blur", "large_blur"), ("moderate_jpeg", "heavy_jpeg")],
)
@pytest.mark.parametrize("side", [8, 32])
def test_the_second_severity_is_stronger(mild, strong, side):
    assert 0 < error(mild, picture(side)) < error(strong, picture(side))


def test_noise_has_the_published_variance():
    grey = np.full((64, 64, 1), 128, np.float32)
    for kind, low, high in (("low_noise", 10, 50), ("medium_noise", 50, 150)):
        variances = [DEGRADATIONS[kind](grey, np.random.default_rng(s)).var() for s in range(100)]
        assert low * 0.9 < min(variances) < low * 1.5  # 4,096 pixels: 2 % off, and rounding adds 1/12
        assert high * 0.8 < max(variances) < high * 1.1


def test_contrast_is_a_factor():
    image = picture()
    found = DEGRADATIONS["low_contrast"](image, np.random.default_rng(0)).astype(float)
    factor = found.sum() / image.sum()
    assert 0.4 <= factor <= 0.7
    assert np.abs(found - factor * image).max() < 1


@pytest.mark.parametrize("kind", SEVEN)
def test_a_grey_area_stays_in_range(kind):
    for level in (0, 255):
        image = np.full((16, 16, 3), level, np.float32)
        found = DEGRADATIONS[kind](image, np.random.default_rng(0)).astype(float)
        assert abs(found.mean() - level) < (160 if kind == "low_contrast" else 8)


def test_kernels_equal_opencvs_on_large_images_and_are_smaller_on_small_ones():
    for kernel, deviation in ((3, 0.8), (5, 1.1), (11, 2.0)):
        weights = gaussian(kernel, 2 * LARGEST_KERNEL)
        assert len(weights) == kernel
        assert weights.sum() == pytest.approx(1)
        assert weights[kernel // 2 + 1] / weights[kernel // 2] == pytest.approx(
            np.exp(-1 / (2 * deviation**2))
        )
    sizes = {side: [len(gaussian(k, side)) for k in (3, 5, 7, 9, 11)] for side in (8, 16, 22, 224)}
    assert sizes[8] == [3, 3, 3, 3, 5]
    assert sizes[22] == sizes[224] == [3, 5, 7, 9, 11]
    assert all(max(found) <= max(3, side / 2 + 1) for side, found in sizes.items())
    blurs = [gaussian(k, 8).max() for k in (3, 5, 7, 9, 11)]
    assert blurs == sorted(blurs, reverse=True)  # the wider the kernel, the smaller its central weight


def test_a_blur_keeps_the_mean_of_a_mirrored_image_and_reduces_detail():
    image = np.indices((32, 32)).sum(axis=0)[..., None] % 2 * np.float32(200)
    found = DEGRADATIONS["large_blur"](image, np.random.default_rng(0))
    assert found.std() < 5 < image.std()
    assert found.mean() == pytest.approx(image.mean(), abs=1)
