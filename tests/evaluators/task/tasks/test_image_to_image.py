import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from evaluators.task.data.images.downscaled import DownscaledFolder, SamplePhotographs
from evaluators.task.data.npz import NpzData
from evaluators.task.statistics.scores import statistics_of, value_of
from evaluators.task.tasks.image_to_image import ImageToImageTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError


class TestImageToImage(TaskConformance):
    @pytest.fixture
    def task(self):
        return ImageToImageTask(SamplePhotographs(size=48), border=2)

    def outputs(self, task, splits):
        return splits.validation.labels


class TestStoredImages(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        write_images(tmp_path, 15)
        return ImageToImageTask(
            DownscaledFolder(str(tmp_path / "cache"), 2, 24), root=str(tmp_path / "images")
        )

    def outputs(self, task, splits):
        return splits.validation.labels


def write_images(root, n):
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        coarse.resize((32, 28), Image.Resampling.BICUBIC).save(root / f"images/{i:02}.png")


def npz_task(tmp_path, y, **settings):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 256, (len(y), 8, 8, 1), dtype=np.uint8), y=y)
    return ImageToImageTask(NpzData(scale=1 / 255), root=str(path), **settings)


def pictures(n=20, side=16, channels=1):
    return np.random.default_rng(1).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (1, 16, 16)), ("NHWC", (16, 16, 1))])
def test_labels_are_as_outputs_are(tmp_path, layout, shape):
    y = pictures()
    for stored in (y, y[..., 0]):
        task = npz_task(tmp_path, stored, output_layout=layout, white=255.0)
        labels = task.splits().validation.labels
        assert labels.dtype == np.float32
        assert labels.shape == (4, *shape)
        assert 250 < labels.max() <= 255
        assert task.misfit(np.zeros((2, *shape)), 2) is None
        assert f"task.output_layout={layout}" in task.misfit(np.zeros((2, 2, *shape)), 2)


def test_the_control_is_pillows_bicubic_filter(tmp_path):
    write_images(tmp_path, 15)
    task = ImageToImageTask(
        DownscaledFolder(str(tmp_path / "cache"), 2, 24, "grey"), root=str(tmp_path / "images"), border=2
    )
    splits = task.splits()
    ratios, similarities = [], []
    for inputs, labels in splits.validation.batches(1):
        small = np.round(inputs[0, 0] * 255).astype(np.float32)
        large = (
            np.asarray(Image.fromarray(small).resize((24, 24), Image.Resampling.BICUBIC)).clip(0, 255) / 255
        )
        one, other = (array[2:-2, 2:-2].astype(np.float64) for array in (labels[0, 0], large))
        ratios.append(peak_signal_noise_ratio(one, other, data_range=1.0))
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        similarities.append(structural_similarity(one, other, **settings))
    (note,) = task.notes()
    ratio, similarity = np.mean(ratios), np.mean(similarities)
    assert (
        f"psnr {ratio:.4g} dB, psnr_y {ratio:.4g} dB, ssim {similarity:.4g} on the validation split" in note
    )


def test_inputs_of_unknown_black_and_white_have_no_control(tmp_path):
    path = tmp_path / "data.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.normal(size=(20, 8, 8, 1)), y=rng.random((20, 16, 16, 1)))
    task = ImageToImageTask(NpzData(), root=str(path), label_white=1.0)
    assert task.notes() == ()


def test_agreement_is_r2_over_all_values(tmp_path):
    task = npz_task(tmp_path, pictures())
    labels = task.splits().validation.labels
    outputs = labels + np.random.default_rng(0).normal(0, 0.1, labels.shape).astype(np.float32)
    value = value_of(task.agreement, statistics_of(task.agreement, outputs, labels))
    wanted = 1 - ((outputs - labels) ** 2).sum() / ((labels - labels.mean()) ** 2).sum()
    assert value == pytest.approx(100 * wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("y", "settings", "text"),
    [
        (
            np.where(np.arange(20)[:, None, None, None] == 7, 300, pictures().astype(int)),
            {},
            "example 7: the label has values in 300..300",
        ),
        (np.full((20, 16, 16, 1), np.nan), {}, "example 0: the label has values in nan..nan"),
        (pictures(side=8), {}, "labels of 8 x 8 pixels are too small; 11 x 11"),
        (pictures(side=12), {"border": 1}, "13 x 13 are needed .task.border=1"),
        (np.zeros(20), {}, "labels must be images"),
        (pictures().astype(str), {}, "labels must be images"),
    ],
)
def test_wrong_labels_name_file_and_row(tmp_path, y, settings, text):
    with pytest.raises(InputError, match=text):
        npz_task(tmp_path, y, **settings).splits()


@pytest.mark.parametrize("settings", [{"white": 0.0}, {"label_white": -1.0}, {"border": -1}])
def test_wrong_settings(tmp_path, settings):
    with pytest.raises(ConfigError, match="must be above 0"):
        npz_task(tmp_path, pictures(), **settings)
