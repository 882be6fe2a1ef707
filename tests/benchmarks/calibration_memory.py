"""Peak memory of calibrating MobileNetV2 at 224x224: ours, and onnxruntime's own histogram calibrators.

Run from the root of the repository::

    python tests/benchmarks/calibration_memory.py --checkpoint DATA/weights/mobilenet_v2-b0353104.pth

Every row is a fresh process, and its peak is the resident set at its highest, imports included, as the kernel
reports it. The images are noise: memory does not depend on what they show. onnxruntime's calibrators keep
every tensor of every image until the end, so they get few images, and the growth per image extrapolates to
more.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SHAPE = (3, 224, 224)
METHODS = ("paredown", "entropy", "percentile")


def images(n: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(n):
        yield rng.standard_normal((1, *SHAPE)).astype(np.float32)


class NoiseSplit:
    """Examples that are drawn when they are asked for, as images are decoded."""

    def __init__(self, n: int) -> None:
        self.digest, self._n = f"noise-{n}", n

    def __len__(self) -> int:
        return self._n

    def batches(self, batch_size: int, limit: int | None = None):
        n, source = min(self._n, limit or self._n), images(self._n)
        for start in range(0, n, batch_size):
            rows = [next(source) for _ in range(min(batch_size, n - start))]
            yield np.concatenate(rows), np.zeros(len(rows), np.int64)


def ours(model: Path, n: int) -> None:
    from spaces.quantization.quantize import QuantizeStage
    from spaces.stages.artifact import Artifact, InputSpec
    from spaces.stages.cache import Cache
    from spaces.stages.stage import StageContext

    artifact, stage = Artifact.onnx(model.read_bytes(), InputSpec(SHAPE)), QuantizeStage()
    with tempfile.TemporaryDirectory() as folder:
        context = StageContext(NoiseSplit(n), Cache(Path(folder)))
        for clipping in ("max", "kl", "percentile", "mse"):
            values = {"clipping": clipping, "calibration_images": n, "bias_correction": True}
            stage.apply(artifact, stage.defaults() | values, context)


def onnxruntimes(model: Path, n: int, method: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = images(n)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"input": image}

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            model,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=getattr(CalibrationMethod, method.capitalize()),
        )
        calibrator.collect_data(Reader())
        calibrator.compute_data()


def export(checkpoint: str, path: Path) -> None:
    from spaces.models.base import LoadContext
    from spaces.models.export import ExportStage
    from spaces.models.zoo.mobilenet_v2 import MobileNetV2Model
    from spaces.stages.cache import Cache
    from spaces.stages.stage import StageContext

    loaded = MobileNetV2Model(checkpoint, input_shape=SHAPE).load(LoadContext(None, path.parent))
    stage = ExportStage()
    path.write_bytes(stage.apply(loaded, stage.defaults(), StageContext(None, Cache())).onnx_bytes)


def child(model: Path, method: str, n: int, checkpoint: str) -> None:
    began = time.perf_counter()
    if method == "export":
        export(checkpoint, model)
    elif method == "paredown":
        ours(model, n)
    else:
        onnxruntimes(model, n, method)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_mib": peak_mib, "seconds": time.perf_counter() - began}))


def measured(model: Path, method: str, n: int, checkpoint: str = "") -> dict[str, float]:
    """Runs a child process, whose peak starts at this process's memory, and returns its figures."""
    command = [sys.executable, __file__, "--model", str(model), "--method", method, "--images", str(n)]
    command += ["--checkpoint", checkpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        text = "killed, most likely for its memory" if done.returncode < 0 else done.stderr[-300:]
        raise SystemExit(f"{method} with {n} images: {text}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default="", help="torchvision's MobileNetV2 checkpoint")
    parser.add_argument("--ours", type=int, nargs="+", default=[25, 50, 500], help="numbers of images")
    parser.add_argument("--theirs", type=int, nargs="+", default=[10, 20], help="numbers of images")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--method", choices=("export", *METHODS), help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        child(options.model, options.method, options.images, options.checkpoint)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "mobilenet_v2.onnx"
        measured(model, "export", 0, options.checkpoint)
        print(f"{'calibrator':<12}{'images':>8}{'peak MiB':>10}{'MiB/image':>11}{'seconds':>9}")
        for method in METHODS:
            before: tuple[int, float] | None = None
            for n in options.ours if method == "paredown" else options.theirs:
                found = measured(model, method, n)
                growth = "" if before is None else f"{(found['peak_mib'] - before[1]) / (n - before[0]):.2f}"
                print(
                    f"{method:<12}{n:>8}{found['peak_mib']:>10.0f}{growth:>11}{found['seconds']:>9.1f}",
                    flush=True,
                )
                before = (n, found["peak_mib"])


if __name__ == "__main__":
    main()
