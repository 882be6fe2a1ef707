"""A config from elsewhere runs no code: each test is an attack, named in `.github/SECURITY.md`."""

import sys
import textwrap

import pytest

from search.cli.app import main
from spaces.errors import UntrustedTargetError

RUNS = "{_target_: os.system, command: 'touch VICTIM'}"


@pytest.fixture
def attack(paredown, tmp_path, monkeypatch):
    """Writes files of a config folder, runs the command with it, and says that what they name did not run."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))

    def run(files, *arguments):
        for name, text in files.items():
            path = tmp_path / "stranger" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        ran = paredown(f"--config-dir={tmp_path / 'stranger'}", *arguments)
        assert not [*tmp_path.rglob("VICTIM")]
        assert "Traceback" not in ran.out + ran.err
        return ran

    return run


def refused(ran, *texts):
    assert ran.status == 2, ran.out + ran.err
    assert len(ran.err.strip().splitlines()) == 1, ran.err
    for text in texts:
        assert text in ran.err, ran.err


GLOBAL = "# @package _global_\n"
EXPERIMENTS = {
    "trusted_modules: [os]\nsampler: " + RUNS: ["experiment/evil.yaml", "trusted_modules", "command line", "[os]"],
    "trusted_modules: os": ["trusted_modules"],
    "trusted_modules: ['${oc.env:HOME}']": ["evil.yaml", "trusted_modules"],
    "trusted_modules: ${study.name}": ["evil.yaml", "trusted_modules"],
    "trusted_modules: ${oc.decode:'[os]'}": ["evil.yaml", "trusted_modules"],
    "model: {_target_: spaces.models.torch_checkpoint.TorchModel, cls: os.system, checkpoint: null, input_shape: [1], "
    "trusted_modules: [os]}": ["model.trusted_modules", "[os]"],
    "space: {a: [{trusted_modules: [os]}]}": ["space.a[0].trusted_modules"],
    "hydra: {callbacks: {x: " + RUNS + "}}": ["experiment/evil.yaml", "hydra.callbacks.x._target_", "command line"],
    "hydra: ${space}\nspace: {callbacks: {x: " + RUNS + "}}": ["evil.yaml", "hydra is refused"],
    "hydra: {callbacks: '${space}'}\nspace: {x: " + RUNS + "}": ["evil.yaml", "hydra.callbacks is refused"],
    "hydra: {launcher: {_target_: os.system}}": ["hydra.launcher._target_"],
    "hydra: {sweeper: {_target_: os.system}}": ["hydra.sweeper._target_"],
    "hydra: {sweeper: {params: {x: " + RUNS + "}}}": ["hydra.sweeper.params.x._target_"],
    "hydra: {sweeper: {params: {x: '${space}'}}}\nspace: " + RUNS: ["hydra.sweeper.params.x"],
    "hydra: {sweeper: {params: {+trusted_modules: '[os]'}}}": ["hydra.sweeper.params.+trusted_modules"],
    "hydra: {sweeper: {params: {hydra.job_logging.root: x}}}": ["hydra.sweeper.params.hydra"],
    "hydra: {job_logging: {handlers: {x: {(): os.system, command: touch VICTIM}}}}": ["hydra.job_logging.handlers"],
    "hydra: {hydra_logging: {handlers: {x: {class: logging.FileHandler, filename: VICTIM}}}}": ["hydra.hydra_logging"],
    "hydra: {job: {env_set: {LD_PRELOAD: ./evil.so}}}": ["hydra.job.env_set.LD_PRELOAD"],
    "hydra: {overrides: {task: ['trusted_modules=[os]']}}": ["hydra.overrides.task"],
    "hydra: {searchpath: ['pkg://evil']}": ["hydra.searchpath"],
    "executor: {_target_: search.executors.ray.RayExecutor, address: 'ray://evil:10001'}": ["evil.yaml: executor.address"],
    "executor: ${space}\nspace: {_target_: search.executors.ray.RayExecutor, address: evil}": ["evil.yaml: executor is"],
    "hydra: {sweeper: {params: {executor.address: evil}}}": ["hydra.sweeper.params.executor.address"],
    "executor: {_target_: spaces.stages.cache._delete, path: VICTIM}": ["executor._target_", "private"],
    "executor: {_target_: spaces.stages.cache.Cache, folder: x}": ["executor._target_", "is no Executor"],
    "tracker: {_target_: search.executors.serial.SerialExecutor}": ["tracker._target_", "is no Tracker"],
    "sampler: {_target_: optuna.pruners.NopPruner}": ["sampler._target_", "is no BaseSampler"],
    "pruner: {_target_: optuna.samplers.RandomSampler}": ["pruner._target_", "is no BasePruner"],
    "knowledge: {_target_: search.tracking.base.NoTracker}": ["knowledge._target_", "is no KnowledgeSource"],
    "evaluator: {cost: {_target_: search.tracking.base.NoTracker}}": ["evaluator.cost._target_", "is no Evaluator"],
    "stage: {export: {_target_: search.tracking.base.NoTracker}}": ["stage.export._target_", "is no Stage"],
    "criterion: {mine: {_target_: search.tracking.base.NoTracker}}": ["criterion.mine._target_", "is no Criterion"],
    "task: {_target_: search.tracking.base.NoTracker}": ["task._target_", "is no Task"],
    "model: {_target_: search.tracking.base.NoTracker}": ["model._target_", "is no ModelSource"],
    "task: {_target_: evaluators.task.tasks.classes.ClassesTask, data: {_target_: search.tracking.base.NoTracker}}":
        ["task.data._target_", "is no Data"],
    "sampler: {_target_: spaces.models.trust.importlib.import_module, name: os}": ["sampler._target_", "does not exist"],
    "sampler: {_target_: search.api.OmegaConf.load, file_: x}": ["sampler._target_", "trusted package"],
    "sampler: {_target_: search.api.command_text, overrides: []}": ["sampler._target_", "is no BaseSampler"],
    "sampler: {_target_: spaces.models.trust.import_module, name: os}": ["sampler._target_", "trusted package"],
}  # fmt: skip


@pytest.mark.parametrize("text", EXPERIMENTS, ids=range(len(EXPERIMENTS)))
def test_an_experiment_from_elsewhere_runs_nothing(attack, text):
    files = {"experiment/evil.yaml": GLOBAL + text}
    refused(attack(files, "experiment=evil", "dry_run=true"), *EXPERIMENTS[text])
    if "hydra" in text:
        refused(attack(files, "--multirun", "experiment=evil"), *EXPERIMENTS[text])


def test_no_other_file_of_a_config_folder_says_what_is_trusted(attack):
    evil = "trusted_modules: [os]\n"
    refused(
        attack({"sampler/evil.yaml": GLOBAL + evil}, "sampler=evil"), "sampler/evil.yaml", "trusted_modules"
    )
    refused(
        attack(
            {"sampler/more.yaml": "defaults: [evil@_global_]\n", "sampler/evil.yaml": evil}, "sampler=more"
        ),
        "evil.yaml",
    )
    primary = {"mine.yaml": "defaults: [config, _self_]\n" + evil}
    refused(attack(primary, "--config-name=mine"), "mine.yaml", "trusted_modules")
    refused(
        attack({"hydra/callbacks/evil.yaml": f"x: {RUNS}\n"}, "hydra/callbacks=evil"),
        "hydra/callbacks/evil.yaml",
    )
    placed = {"experiment/evil.yaml": GLOBAL + "defaults: [/executor/ray@hydra.callbacks.x]\n"}
    refused(attack(placed, "experiment=evil"), "conf/executor/ray.yaml", "hydra.callbacks.x._target_")
    chosen = {"experiment/evil.yaml": GLOBAL + "defaults: [{override /hydra/callbacks: evil}]\n"}
    refused(attack(chosen, "experiment=evil"), "hydra/callbacks/evil.yaml")


def test_a_search_path_in_a_config_imports_nothing(attack, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil_package").mkdir()
    (tmp_path / "evil_package/__init__.py").write_text("open('VICTIM', 'w')\n")
    primary = {"mine.yaml": "defaults: [config, _self_]\nhydra: {searchpath: ['pkg://evil_package']}\n"}
    for option in ((), ("--info=defaults",), ("--help",), ("--cfg=job",)):
        refused(attack(primary, "--config-name=mine", *option), "mine.yaml", "hydra.searchpath")
    assert "evil_package" not in sys.modules


def test_a_config_may_still_set_up_a_sweep_and_repeat_what_the_user_trusts(attack):
    text = GLOBAL + "hydra: {sweeper: {params: {seed: '1,2'}}, verbose: false}\ntrusted_modules: [my_own]\n"
    files = {"experiment/mine.yaml": text}
    refused(attack(files, "experiment=mine"), "trusted_modules=[my_own]")
    ran = attack(
        files, "experiment=mine", "trusted_modules=[my_own]", "--cfg=hydra", "--package=hydra.sweeper.params"
    )
    assert ran.status == 0, ran.err
    assert "seed: 1,2" in ran.out


def test_the_command_line_and_the_users_own_file_are_trusted(attack, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_samplers.py").write_text(
        "import optuna\nclass Mine(optuna.samplers.RandomSampler): ...\n"
    )
    files = {"sampler/mine.yaml": "_target_: my_samplers.Mine\n"}
    table = tmp_path / "table.csv"
    table.write_text("task,knob.a,metric.top1\nt,1,1.0\nt,2,2.0\n")
    study = ("sampler=mine", "experiment=tabular", f"tabular.path={table}", "study.report=false")
    refused(attack(files, *study), "sampler._target_", "trusted_modules=[my_samplers]", "command line")
    assert attack(files, "trusted_modules=[my_samplers]", *study, "study.name=by_hand").status == 0
    own = tmp_path / "own/paredown/trusted_modules.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# mine\n- my_samplers\n")
    assert attack(files, *study, "study.name=by_file").status == 0


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("trusted_modules=os", "must be a list of packages"),
        ("trusted_modules=[a b]", "must be a list of packages"),
        ("trusted_modules=[${study.name}]", "must be a list of packages"),
        ("trusted_modules=${study.name}", "must be a list of packages"),
        ("~trusted_modules", "must be a list of packages"),
        ("~seed", "seed must not be removed"),
        ("study.name=../outside", "It names a folder"),
        ("study.name='a\\b'", "It names a folder"),
        ("study.name=..", "It names a folder"),
        ("--experimental-rerun=evil.pickle", "--experimental-rerun is refused"),
    ],
)
def test_what_the_command_line_says_wrongly_is_one_message(attack, override, text):
    refused(attack({"x.yaml": ""}, override), text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a: b", "must be a list of packages"),
        ("- 3", "must be a list"),
        ("[", "is no YAML"),
        ("\0", "is no YAML"),
    ],
)
def test_a_wrong_file_of_the_user_is_one_message(attack, tmp_path, content, text):
    own = tmp_path / "own/paredown/trusted_modules.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(content)
    refused(attack({"x.yaml": ""}, "seed=1"), str(own), text)


def test_a_sweep_over_what_is_trusted_is_refused(attack):
    refused(attack({"x.yaml": ""}, "--multirun", "trusted_modules=[a],[b]"), "must be a list of packages")


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: !!python/object/apply:os.system ['touch VICTIM']"])
def test_a_file_that_is_no_config_is_one_message(attack, text):
    ran = attack({"experiment/evil.yaml": text}, "experiment=evil")
    assert ran.status == 2, ran.err


def test_a_folder_that_is_entered_brings_no_modules(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "here.py").write_text("")
    for arguments, is_found in (
        (["--cfg=job"], False),
        (["--cfg=job", "trusted_modules=[json]"], False),
        (["--cfg=job", "trusted_modules=[here.x]"], True),
    ):
        monkeypatch.setattr(sys, "argv", ["paredown", *arguments])
        with pytest.raises(SystemExit):
            main()
        assert (str(tmp_path) in sys.path) == is_found
    capsys.readouterr()
    assert issubclass(UntrustedTargetError, Exception)
