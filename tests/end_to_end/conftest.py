import contextlib
import io

import pytest

from search.cli.app import run_command


class Ran:
    """The exit status of a command, and what it printed."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """The cache folder of all tests, so that the digits network is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def paredown(cache_dir, tmp_path, monkeypatch):
    """Runs the command in an empty folder, in this process, without MLflow; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            flags = [a for a in arguments if a.startswith("--")]  # argparse requires them before overrides
            rest = [a for a in arguments if a not in flags]
            if not any(a.startswith("executor=") for a in rest):
                rest.insert(0, "executor=serial")  # a process of its own would load everything once more
            status = run_command([*flags, f"cache_dir={cache_dir}", "tracker=none", *rest])
        return Ran(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def digits_onnx(cache_dir, tmp_path_factory):
    """The digits network as an ONNX file, so that a test need not export it."""
    from evaluators.task.tasks.classification.digits import DigitsTask
    from spaces.models.base import LoadContext
    from spaces.models.export import ExportStage
    from spaces.models.zoo.digits_cnn import DigitsCNNModel
    from spaces.stages.cache import Cache
    from spaces.stages.stage import StageContext

    model = DigitsCNNModel().load(LoadContext(DigitsTask().splits().train, cache_dir))
    exported = ExportStage().apply(model, {}, StageContext(None, Cache()))
    path = tmp_path_factory.mktemp("onnx") / "digits.onnx"
    path.write_bytes(exported.onnx_bytes)
    return path


@pytest.fixture
def small_space():
    """Overrides by which the digits network's quantization has eight candidates, half of them with four bits."""
    return [
        "space.quantize.calibration_images=[16,64]",
        "space.quantize.scheme=[asymmetric,symmetric]",
        "space.quantize.clipping=[max]",
        "~space.quantize.percentile",
        "space.quantize.granularity=channel",
        "space.quantize.mixed_precision=false",
        "space.quantize.weight_bits=[4,8]",
        "space.quantize.bias_correction=false",
        "space.quantize.cross_layer_equalization=false",
        "space.quantize.activation_type=unsigned",
        "space.quantize.weight_type=signed",
    ]
