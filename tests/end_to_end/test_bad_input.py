"""Invalid input ends with exit status 2 and one message that names the mistake, its place and the valid values."""

import pickle
import zipfile

import numpy as np
import onnx
import pytest


def assert_reported(ran, *texts):
    assert ran.status == 2, ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
    for text in texts:
        assert text in " ".join(ran.err.split()), ran.err
    assert len(ran.err.strip().splitlines()) <= 16


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["+space.quantize.nonsense=[1]"], ["Unknown knob 'nonsense' in space.quantize", "Known: activation_bits"]),
        (["space.quantize.nonsense=[1]"], ["nonsense"]),
        (["space.quantize.scheme=[magic]"], ["space.quantize.scheme", "'magic'", "asymmetric"]),
        (["space.quantize.weight_bits=[9]"], ["space.quantize.weight_bits", "9", "[2, 3, 4, 5, 6, 7, 8]"]),
        (["+space.quantize.keep_float=[[],[fc9*]]"], ["space.quantize", "fc9*"]),
        (["+space.prune.ratio=[0.5]"], ["stage 'prune', which this study does not run", "takes a torch network"]),
        (["sampler=magic"], ["Unknown sampler 'magic'", "tpe"]),
        (["device=[magic]"], ["Unknown device 'magic'", "host"]),
        (["study.n_trials=many"], ["n_trials", "many"]),
        (["cache_bytes=much"], ["cache_bytes", "'much'"]),
        (["seed=-1"], ["seed must not be negative"]),
        (["tracker=mlflow", "tracker.uri=ftp://x"], ["tracker.uri", "ftp"]),
        (["model=digits_cnn", "cache_dir=/dev/null/x"], ["/dev/null/x"]),
        (["study.storage=nonsense://x"], ["study.storage", "nonsense"]),
        (["executor=processes", "executor.workers=0"], ["executor.workers must be at least 1"]),
        (["study.n_trials=0"], ["study.n_trials must be at least 1"]),
        (["study.time_limit=soon"], ["study.time_limit", "soon"]),
        (["task.calibration=abc"], ["task.calibration must be", "'abc'"]),
        (["task.calibration=0"], ["calibration"]),
        (["task.validation=100000"], ["100000"]),
        (["+task.nonsense=1"], ["Unknown key 'nonsense' in task"]),
        (["space.quantize.scheme=[]"], ["space.quantize.scheme", "at least one"]),
        (["+space.constraints.c='quantize.weight_bits > 9'"], ["contradictory", "quantize.weight_bits > 9"]),
        (["sampler._target_=os.system"], ["sampler._target_", "os.system", "trusted_modules"]),
        (["executor._target_=subprocess.run"], ["executor._target_", "trusted_modules"]),
        (["sampler=tpe", "sampler.n_startup_trials=few"], ["sampler.n_startup_trials must be a whole number"]),
        (["space.quantize.percentile=[3]"], ["space.quantize.percentile", "between 90.0 and 100.0, not 3"]),
        (["objective.maximize=[speed]"], ["Unknown measurement 'speed' in objective.maximize"]),
        (["objective.constraints.drop.max=low"], ["objective.constraints.drop", "low"]),
        (["study.dir=/dev/null/x"], ["study.dir", "/dev/null/x"]),
        (["model=onnx", "model.checkpoint=nope.onnx"], ["nope.onnx"]),
        (["model=resnet20", "model.checkpoint=nope.th"], ["nope.th"]),
        (["model=onnx"], ["model.checkpoint"]),
        (["model=torch", "model.cls=os.system", "model.checkpoint=x", "model.input_shape=[1]"], ["model.cls", "os.system"]),
        (["task=cifar10", "task.root=nope"], ["nope"]),
        (["task=image_folder", "task.root=nope"], ["nope"]),
        (["task=idx", "task.root=nope"], ["nope"]),
        (["task=npz", "task.root=nope.npz", "task.input_shape=[1]", "task.n_classes=2"], ["nope.npz"]),
        (["experiment=tabular", "tabular.path=nope.csv"], ["nope.csv"]),
        (["experiment=tabular"], ["tabular.path"]),
        (["experiment=tabular", "tabular.path=nope.csv", "+tabular.tsk=a"], ["tsk"]),
        (["experiment=magic"], ["Unknown experiment 'magic'", "tabular"]),
        (["device.stm32h743.macs_per_s.int8=-1"], ["stm32h743"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and "=" in value[0] else "",
)  # fmt: skip
def test_invalid_overrides_are_reported(paredown, digits_onnx, arguments, texts):
    model = (
        []
        if any(a.startswith("model") for a in arguments)
        else ["model=onnx", f"model.checkpoint={digits_onnx}"]
    )
    own_sections = arguments[:1] == ["experiment=tabular"]
    assert_reported(paredown(*([] if own_sections else model), *arguments), *texts)


def file_with(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("content", ["empty", "truncated", "foreign"])
def test_damaged_onnx_files_are_reported(paredown, digits_onnx, tmp_path, content):
    data = {"empty": b"", "truncated": digits_onnx.read_bytes()[:2000], "foreign": b"\x89PNG\r\n" * 50}[
        content
    ]
    path = file_with(tmp_path / "bad.onnx", data)
    assert_reported(paredown("model=onnx", f"model.checkpoint={path}"), "bad.onnx")


class Code:
    """A pickle that would write a file where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_checkpoint_that_holds_code_is_refused_and_does_not_run(paredown, tmp_path):
    victim = tmp_path / "victim"
    path = tmp_path / "evil.th"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Code(victim)}, protocol=2))
        archive.writestr("archive/version", "3")
    assert_reported(paredown("model=resnet20", "task=digits", f"model.checkpoint={path}"), "evil.th")
    path.write_bytes(pickle.dumps({"state_dict": Code(victim)}, protocol=2))
    assert_reported(paredown("model=resnet20", "task=digits", f"model.checkpoint={path}"), "evil.th")
    assert not victim.exists()


def test_a_checkpoint_of_another_network_is_reported(paredown, tmp_path):
    import torch

    path = tmp_path / "other.th"
    torch.save({"state_dict": {"some.weight": torch.zeros(3)}}, path)
    assert_reported(paredown("model=resnet20", f"model.checkpoint={path}"), "other.th", "some.weight")


def npz(path, n=400, shape=(8, 8, 1), labels=10, seed=0):
    rng = np.random.default_rng(seed)
    np.savez(path, x=rng.integers(0, 16, (n, *shape)).astype(np.float32), y=np.arange(n) % labels)
    return path


def test_data_that_does_not_fit_the_network_is_reported(paredown, digits_onnx, tmp_path):
    model = ["model=onnx", f"model.checkpoint={digits_onnx}"]
    sizes = ["task.calibration=50", "task.validation=100", "task.test=100"]
    path = npz(tmp_path / "wide.npz", shape=(16, 16, 1))
    task = ["task=npz", f"task.root={path}", "task.input_shape=[1,16,16]", "task.n_classes=10", *sizes]
    assert_reported(paredown(*model, *task), "16", "8")
    path = npz(tmp_path / "many.npz", labels=12)
    task = ["task=npz", f"task.root={path}", "task.input_shape=[1,8,8]", "task.n_classes=12", *sizes]
    assert_reported(paredown(*model, *task), "12", "10")
    task = ["task=npz", f"task.root={path}", "task.input_shape=[1,8,8]", "task.n_classes=10", *sizes]
    assert_reported(paredown(*model, *task), "label")


@pytest.mark.parametrize("content", ["empty", "truncated", "foreign", "pickled"])
def test_damaged_npz_files_are_reported(paredown, digits_onnx, tmp_path, content):
    good = npz(tmp_path / "good.npz").read_bytes()
    path = tmp_path / "bad.npz"
    path.write_bytes(
        {"empty": b"", "truncated": good[:3000], "foreign": b"nothing\n" * 9, "pickled": b""}[content]
    )
    if content == "pickled":
        np.savez(path, x=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    task = ["task=npz", f"task.root={path}", "task.input_shape=[1,8,8]", "task.n_classes=10"]
    assert_reported(paredown("model=onnx", f"model.checkpoint={digits_onnx}", *task), "bad.npz")


def test_a_network_with_nan_outputs_is_reported(paredown, digits_onnx, tmp_path):
    proto = onnx.load(digits_onnx)
    first = next(i for i in proto.graph.initializer if len(i.dims) == 4)
    array = np.full(tuple(first.dims), np.nan, dtype=np.float32)
    first.CopyFrom(onnx.numpy_helper.from_array(array, first.name))
    path = tmp_path / "nan.onnx"
    onnx.save(proto, path)
    assert_reported(paredown("model=onnx", f"model.checkpoint={path}"), "finite")


def test_resuming_with_other_settings_is_reported(paredown, digits_onnx):
    model = ["model=onnx", f"model.checkpoint={digits_onnx}", "study.n_trials=1", "objective=accuracy_size"]
    assert paredown(*model).status == 0
    ran = paredown(*model, "space.quantize.weight_bits=8")
    assert_reported(ran, "space.quantize.weight_bits", "study.name")
    ran = paredown(*model, "task.validation=250")
    assert_reported(ran, "task.validation")
    ran = paredown(*model, "evaluator.latency.rounds=3", "seed=1")
    assert_reported(ran, "evaluator.latency.rounds: was 8, is 3", "seed: was 0, is 1", "study.name")
    again = paredown(*model, "study.n_trials=2", "study.patience=9", "sampler=random", "study.report=false")
    assert again.status == 0, again.err


def test_nothing_feasible_is_exit_status_3(paredown, digits_onnx):
    ran = paredown(
        "model=onnx", f"model.checkpoint={digits_onnx}", "study.n_trials=2", "objective=accuracy_size",
        "+objective.constraints.tiny={measure: file_bytes, max: 1 KiB}",
    )  # fmt: skip
    assert ran.status == 3, ran.err
    assert "tiny" in ran.out
