"""Real networks on real data: their float accuracy is the published one, through loading, export and onnxruntime."""

from pathlib import Path

import pytest

from evaluators.runtime import run_split
from evaluators.task.data_fit import check_fit
from evaluators.task.tasks.classification.cifar10 import Cifar10Task
from evaluators.task.tasks.classification.digits import DigitsTask
from evaluators.task.tasks.classification.image_folder import ImageFolderTask
from evaluators.task.tasks.classification.npz import NpzTask
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.onnx_file import OnnxModel
from spaces.models.zoo.cifar_resnet import CifarResNetModel
from spaces.models.zoo.digits_cnn import DigitsCNNModel
from spaces.models.zoo.mobilenet_v2 import MobileNetV2Model
from spaces.models.zoo.squeezenet import SqueezeNetModel
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext

DATA = Path(__file__).parents[3].parent / "shared/data"


def data(*parts):
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is absent")
    return str(path)


def accuracy(model, task, cache_dir, split="test"):
    splits = task.splits()
    artifact = model.load(LoadContext(splits.train, cache_dir))
    exported = ExportStage().apply(artifact, {}, StageContext(None, Cache()))
    check_fit(exported, task, splits)
    outputs, labels = run_split(exported, getattr(splits, split), batch_size=256, threads=2)
    return 100 * float(task.metric.per_example(outputs, labels).mean())


def test_digits_cnn(tmp_path):
    assert accuracy(DigitsCNNModel(), DigitsTask(), tmp_path) > 96


def test_keyword_spotting(tmp_path):
    file = data("keyword_spotting", "kws01_mfcc.npz")
    task = NpzTask(
        file, [49, 10, 1], 12, x="x_int8", example_shape=[49, 10, 1], layout="NHWC", mean=[83], std=[1 / 0.5847029], test=798,
        calibration=1, validation=200,
    )  # fmt: skip
    model = OnnxModel(data("mlperf_tiny", "kws_ref_model_float32.onnx"))
    on_test, on_validation = (accuracy(model, task, tmp_path, split) for split in ("test", "validation"))
    assert (798 * on_test + 200 * on_validation) / 998 == pytest.approx(90.1, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "file", "published"), [(20, "resnet20-12fca82f.th", 91.73), (32, "resnet32-d509ac18.th", 92.63)]
)
def test_cifar_resnets(tmp_path, depth, file, published):
    model = CifarResNetModel(depth, data("weights", file))
    task = Cifar10Task(data("cifar10"))
    assert accuracy(model, task, tmp_path) == pytest.approx(published, abs=0.005)


@pytest.mark.slow
def test_mlperf_tiny_resnet8(tmp_path):
    task = NpzTask(
        data("cifar10", "train_20k.npz"),
        [32, 32, 3],
        10,
        test_root=data("cifar10", "test.npz"),
        layout="NHWC",
    )
    model = OnnxModel(data("mlperf_tiny", "pretrainedResnet.onnx"))
    assert accuracy(model, task, tmp_path) == pytest.approx(87.19, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "file", "low", "high"),
    # Published on all 1,000 images of the sample: 84.1 and 62.0 %; three standard errors at 400 are 5.5 and 7.3.
    [
        (MobileNetV2Model, "mobilenet_v2-b0353104.pth", 78, 90),
        (SqueezeNetModel, "squeezenet_v1.1_fp16.pth", 54, 70),
    ],
)
def test_imagenet_networks(tmp_path, model, file, low, high):
    task = ImageFolderTask(data("imagenet_sample"), str(tmp_path), calibration=50, validation=50, test=400)
    assert low < accuracy(model(data("weights", file)), task, tmp_path) < high
