import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import search
from search.api import compose, run
from search.planning.config.command import BASE
from spaces.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(p.relative_to(CONF) for p in CONF.rglob("*.yaml") if p.name != "config.yaml")

# keys without which a config cannot be resolved: the user gives them
GIVEN = {
    "task/cifar10.yaml": ["task.root=x"],
    "task/idx.yaml": ["task.root=x"],
    "task/har.yaml": ["task.root=x"],
    "experiment/cifar10_architectures.yaml": ["task.root=x"],
    "experiment/har_architectures.yaml": ["task.root=x"],
    "experiment/mcu_har.yaml": ["task.root=x"],
    "stage/architecture.yaml": ["model=ds_cnn"],
    "experiment/cifar10_prune.yaml": ["task.root=x", "model.checkpoint=x"],
    "task/image_folder.yaml": ["task.root=x"],
    "task/npz.yaml": ["task.root=x", "task.input_shape=[1]", "task.n_classes=2"],
    "task/data/sklearn.yaml": ["task.data.dataset=diabetes"],
    "task/data/dataset.yaml": ["task.data.dataset._target_=evaluators.a.B"],
    "task/episodic.yaml": ["task.environment._target_=evaluators.a.B"],
    "evaluator/domains.yaml": [
        "task=text",
        "task.root=x",
        "task.data.tokenizer=x",
        "evaluator.domains.domains={a: x}",
    ],
    "evaluator/real_time.yaml": ["evaluator.real_time.seconds=1"],
    "model/sound_front_end.yaml": ["task=sound_classes", "task.root=x"],
    "model/torch.yaml": ["model.cls=torch.nn.Linear", "model.checkpoint=x", "model.input_shape=[1]"],
    "model/llama.yaml": ["model.checkpoint=x"],
    "model/moe.yaml": ["model.checkpoint=x"],
    "task/text.yaml": ["task.root=x", "task.data.tokenizer=x"],
    "task/data/stories.yaml": ["task.data.tokenizer=x"],
    "task/data/tinystories.yaml": ["task.data.tokenizer=x"],
    "experiment/stories15m.yaml": ["task.root=x", "task.data.tokenizer=x", "model.checkpoint=x"],
    "model/onnx.yaml": ["model.checkpoint=x"],
}


def loaded_by(imports, *modules):
    """Which of the modules a fresh interpreter has loaded after the import."""
    code = f"import sys, {imports}; print([m for m in {modules!r} if m in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_search_pulls_in_nothing_heavy():
    heavy = ("torch", "ray", "mlflow", "onnxruntime", "onnx", "xgboost", "pandas")
    assert loaded_by("search", *heavy) == "[]"
    assert loaded_by("search.api", *heavy) == "[]"
    assert loaded_by("pandas", *heavy) == "['pandas']"


def test_the_command_line_loads_nothing_heavy_either():
    assert loaded_by("search.cli.app, search.study.study", "torch", "ray", "mlflow", "onnxruntime") == "[]"


def test_public_names():
    assert sorted(search.__all__) == ["Results", "Study", "compose", "quantize", "run"]
    assert all(getattr(search, name) is not None for name in search.__all__)
    with pytest.raises(AttributeError):
        search.nonsense  # noqa: B018


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_config_composes_and_opens_with_its_command(file):
    text = (CONF / file).read_text()
    first = next(line for line in text.splitlines() if not line.startswith("# @"))
    assert first.startswith("# paredown "), f"{file} must open with the command that uses it"
    group, name = file.parent.as_posix(), file.stem
    assert f"{group}=" in first
    assert name in first
    outer = {"task/data": ["task=regression"], "task/decoder": ["task=detection"]}.get(group, [])
    config = compose([*outer, f"{group}={name}", *GIVEN.get(str(file), [])])
    assert config.data["study"]["name"]


def test_the_default_config_has_its_command_too():
    assert (CONF / "config.yaml").read_text().startswith(f"# paredown {BASE}\n")
    assert compose().data == compose([BASE]).data
    assert compose().command == f"paredown {BASE}"  # without arguments it would be the first study
    assert compose().study.n_trials >= 24


def test_several_devices_by_name():
    config = compose(["device=[host,stm32l4r5]"])
    assert list(config.data["device"]) == ["host", "stm32l4r5"]


def test_a_space_of_ones_own():
    assert compose(space={"quantize": {"weight_bits": [4, 8]}}).data["space"] == {
        "quantize": {"weight_bits": [4, 8]}
    }


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["sampler=magic"], "Unknown sampler 'magic'"),
        (["device=[magic]"], "magic"),
        (["study.n_trial=3"], "n_trial"),
        (["study.n_trials=many"], "many"),
        (["study.n_trials=0"], "study.n_trials must be at least 1"),
        (["study.time_limit=soon"], "study.time_limit"),
        (["seed=[1"], r"cannot read .seed=\[1"),
        (["sampler._target_=os.system"], r"sampler\._target_.*trusted_modules"),
    ],
)
def test_mistakes_are_config_errors(overrides, text):
    with pytest.raises(ConfigError, match=text):
        compose(overrides)


@pytest.mark.parametrize("package", [True, False], ids=["package", "folder"])
def test_a_conf_folder_in_the_working_directory_hides_nothing(tmp_path, package):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("study: {name: theirs}\n")
    if package:
        (tmp_path / "conf" / "__init__.py").touch()
    code = "import conf, search.api as api; print(api.compose().study.name)"
    by_api, by_command = (
        subprocess.run(
            [sys.executable, *how], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout
        for how in (["-c", code], ["-m", "search", "--cfg", "job", "--package", "study"])
    )
    assert by_api.strip() == "digits"
    assert "n_trials: 24" in by_command


def test_a_dry_run_prints_the_plan_and_runs_no_trial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("task,knob.a,metric.m\nt,1,0.5\nt,2,0.7\n")
    text = io.StringIO()
    results = run(
        ["experiment=tabular", "tabular.path=t.csv", "sampler=random", "dry_run=true"],
        console=Console(file=text, width=120),
    )
    assert "dry_run=true: no trial was run" in text.getvalue()
    assert (results.record.trials, results.record.best, results.record.name) == ((), None, "tabular")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(("number", "dies"), [(signal.SIGTERM, True), (signal.SIGINT, False), (None, False)])
def test_a_signal_that_ended_the_study_then_ends_the_caller(monkeypatch, number, dies):
    """SIGTERM means the whole process: by the handler that was set before the call. Ctrl-C returns the results so far."""
    from types import SimpleNamespace

    from search.planning import session
    from search.study import study

    arrived = []
    before = signal.signal(signal.SIGTERM, lambda *arguments: arrived.append(arguments[0]))
    prepared = SimpleNamespace(plan=None, description=str)
    monkeypatch.setattr(session, "prepare", lambda config, say: prepared)
    monkeypatch.setattr(
        study,
        "run_study",
        lambda plan, observer: SimpleNamespace(signal=number, results="results", failed=""),
    )
    try:
        results = run([], console=Console(file=io.StringIO()))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert results.record == "results"
    assert arrived == ([signal.SIGTERM] if dies else [])


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "digits"),
        (["model=onnx", "model.checkpoint='a b/my net.onnx'"], "my_net"),
        (["model=torch", "model.cls=pkg.MyNet", "model.input_shape=[3]"], "MyNet"),
        (["model=onnx", "model.checkpoint=net.onnx", "study.name=mine"], "mine"),
        (["experiment=tones"], "tones"),
    ],
)
def test_a_study_is_named_by_its_network_where_no_name_is_given(overrides, name):
    """Studies of two networks must not end in one folder, where the second would be refused."""
    study = compose([*overrides, "trusted_modules=[pkg]"]).study
    assert (study.name, study.folder.as_posix()) == (name, f"outputs/{name}")
