"""What a user mistypes or misunderstands is refused before any work, with one message: what was wrong, where, and the fix."""

import pytest

from search.api import compose
from search.planning.session import prepare
from spaces.errors import ParedownError

TORCH = "takes a torch network, but model=onnx gives an ONNX file"
ONNX = ("model=onnx", "model.checkpoint=any.onnx")
PRUNED = "Run it so: paredown stage=[prune,recover,export] space=prune"
QUICK = ("device=stm32h743", "evaluator=[accuracy,cost]", "objective=accuracy_size")
FEATURES = ("task.input_shape=[4]", "task.n_classes=2")
MISTAKES = {
    # keys, at any depth
    "study.n_trial=3": ["study has no 'n_trial'", "Did you mean study.n_trials=3?", "Known: cost_report, dir"],
    "n_trials=3": ["Did you mean study.n_trials=3?"],
    "stady.n_trials=3": ["the config has no 'stady'", "Did you mean study.n_trials=3?"],
    "drop.max=3": ["Did you mean objective.constraints.drop.max=3?"],
    "objective.drop.max=3": ["objective has no 'drop'", "Did you mean objective.constraints.drop.max=3?"],
    "objective.constraints.flash_bytes.max=9": ["To add a limit: +objective.constraints.flash_bytes.max=9"],
    "quantize.scheme=[symmetric]": ["Did you mean space.quantize.scheme=[symmetric]?"],
    "space.quantize.schem=[symmetric]": ["Did you mean space.quantize.scheme=[symmetric]?"],
    "space.quantise.scheme=[symmetric]": ["space has no 'quantise'", "Did you mean space.quantize.scheme=["],
    "space.quantize.rounding=[gptq]": ["It can be added: +space.quantize.rounding=[gptq]"],
    "space.quantize.roundin=[gptq]": ["Did you mean +space.quantize.rounding=[gptq]?"],
    "+space.quantize.roundin=[gptq]": ["Unknown knob 'roundin' in space.quantize", "Did you mean 'rounding' or"],
    "sampler.pool_siz=9": ["sampler has no 'pool_siz'", "Did you mean sampler.pool_size=9?", "Known: low_fidelity"],
    "sampler=tpe sampler.n_ei_candidates=9": ["It can be added: +sampler.n_ei_candidates=9"],
    "sampler=tpe sampler.n_ei_candidate=9": ["Did you mean +sampler.n_ei_candidates=9?"],
    "device.stm32h743.ram_byte=9": ["Did you mean device.stm32h743.ram_bytes=9?"],
    "device.stm32h74.ram_bytes=9": ["Did you mean device.stm32h743.ram_bytes=9?"],
    "model.checkpiont=a.pt": ["Did you mean model.checkpoint=a.pt?"],
    "sampler.seed.x=3": ["sampler.seed is a plain value", "Give sampler.seed as a whole"],
    "tabular.path=a.csv": ["tabular is a plain value here, or null", "Give tabular as a whole"],
    "+study.n_trials=3": ["write study.n_trials=VALUE, without `+`"],
    "~study.foo": ["~study.foo", "nothing to remove"],
    # groups and their names
    "samplers=tpe": ["Did you mean sampler=tpe?"],
    "task/dat=csv": ["Did you mean task/data=csv?"],
    "task/data=csv": ["the chosen task has no such part", "classes", "regression"],
    "device=stm32h7": ["'stm32h743' or 'stm32h743_tflm' or", "'stm32h7a3_plumerai'?", "`paredown-devices`"],
    "device=[host,stm32h7]": ["Unknown device 'stm32h7'", "'stm32h743' or"],
    "sampler=tpee": ["Did you mean 'tpe'?", "Known: allocator, bandit"],
    "space=prunes": ["Did you mean 'prune'?"],
    "objective=5": ["a config group is chosen by the name of a file", "sampler=tpe"],
    "device=STM32H743": ["Did you mean 'stm32h743' or"],
    "sampler=[tpe,random]": ["sampler=[tpe,random]: one sampler is chosen, not several: sampler=tpe"],
    "+sampler=tpe": ["one is chosen already: write sampler=tpe, without `+`"],
    "task.root=data": ["task has no 'root'. It is a key of task=", "cifar10"],
    "allocator.n_examples=9": ["It is a key of allocator=knapsack"],
    "space.quantize.percentile={flaot:[99,100]}": ["Unknown key 'flaot' in space.quantize.percentile. Did you mean 'float'?"],
    # types
    "study.n_trials=abc": ["study.n_trials must be a whole number, not 'abc'"],
    "study.n_trials=[1,2]": ["study.n_trials must be a whole number, not '[1,2]'"],
    "seed=1.5": ["seed must be a whole number, not '1.5'"],
    "study.report=maybe": ["study.report must be true or false, not 'maybe'"],
    "study.name=[a,b]": ["study.name must be a text, not '[a,b]'"],
    "study=5": ["study must be a section with keys of its own"],
    "sampler.seed=abc": ["sampler.seed must be a whole number or null, not 'abc'"],
    "space.quantize=3": ["space.quantize must map knobs to values", "paredown knobs quantize"],
    "space.quantize.scheme=[false]": ["scheme must be one of", "YAML reads off, no and false as False"],
    "stage=export,quantize": ["a list is written stage=[export,quantize]", "--multirun"],
    "stage=[export, quantize]": ["write a list without spaces, or in quotes"],
    "frobnicate": ["cannot read 'frobnicate'", "is written with `=`"],
    # stages against the model and the space
    "stage=[quantize,export]": ["`quantize` takes an ONNX file", "Order them so: stage=[export,quantize]"],
    "stage=[quantize]": ["Put `export` before it, e.g. stage=[export,quantize]"],
    "stage=[prune,export,recover,quantize] space=prune_quantize": [
        "`recover` takes a torch network, but `export`, before it, gives an ONNX file",
        "Order them so: stage=[prune,recover,export,quantize]",
    ],
    "space=prune": ["this study does not run: stage=[export,quantize]", PRUNED],
    "+space.prune.ratio=[0.5]": ["Run it so: stage=[prune,export,quantize]"],
    "+space.pruen.ratio=[0.5]": ["Unknown stage 'pruen'", "Did you mean 'prune'?"],
    f"{' '.join(ONNX)} space=prune": [f"It {TORCH}", "or leave `prune` out", "space=quantize"],
    f"{' '.join(ONNX)} space=prune stage=[prune,recover,export]": [f"`prune` {TORCH}", "stage=[export]"],
    # names of objectives and limits, before the network is loaded: there is no such file
    f"{' '.join(ONNX)} objective.minimize=[latancy_ms]": ["'latancy_ms' in objective.minimize. Did you mean 'latency_ms'?"],
    f"{' '.join(ONNX)} objective.maximize=[top5]": ["'top5' in objective.maximize. Did you mean 'top1'?"],
    f"{' '.join(ONNX)} objective.constraints.drop.measure=metric_dorp": ["in objective.constraints.drop. Did you mean 'metric_drop'"],
    f"{' '.join(ONNX)} +objective.constraints.flash_byte.max=9": ["Did you mean 'flash_bytes'?"],
    f"{' '.join(ONNX)} device=host +objective.constraints.flash_bytes.max=9": ["Unknown measurement 'flash_bytes'", "file_bytes"],
    f"{' '.join(ONNX)} +objective.constraints.drop.mx=9": ["Unknown key 'mx' in objective.constraints.drop", "'max'"],
    # files
    "model=onnx model.checkpoint=a_folder": ["a_folder is a folder, not an ONNX file"],
    "model=onnx model.checkpoint=weights.pt": ["weights.pt is truncated, or no ONNX file", "model=torch"],
    "model=resnet20 model.checkpoint=a_folder": ["a_folder is a folder, not a checkpoint file"],
    "model=resnet20 model.checkpoint=net.onnx": ["net.onnx is an ONNX file by its name: model=onnx"],
    "task=image_folder task.root=a_folder": ["a_folder/labels.csv", "task.labels=null for a folder of images"],
    "task=image_folder task.root=table.csv": ["a folder is needed"],
    f"task=npz task.root=a_folder {' '.join(FEATURES)}": ["a_folder is a folder; an .npz file is needed"],
    f"task=npz task.root=table.csv {' '.join(FEATURES)}": ["table.csv is not an .npz file"],
}  # fmt: skip


def refusal(overrides):
    """The message with which a study is refused."""
    with pytest.raises(ParedownError) as caught:
        prepare(compose([*overrides, "dry_run=true", "tracker=none"]), lambda text: None)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files that are not what they are given as."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_folder").mkdir()
    for name in ("weights.pt", "net.onnx", "table.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_answered_by_one_message_with_the_fix(folder, mistake):
    text = refusal(mistake.split(" "))  # as a shell does
    for part in MISTAKES[mistake]:
        assert part in text
    assert len(text) < 800
    for word in ("hydra.cc", "full_key", "object_type", "To append", "in struct", "allow_pickle"):
        assert word not in text
    assert sorted(p.name for p in folder.iterdir()) == ["a_folder", "net.onnx", "table.csv", "weights.pt"]


FILES = {
    "study: {n_trial: 3}": "experiment/mine.yaml: study.n_trial: study has no 'n_trial'. Did you mean study.n_trials?",
    "stady: {n_trials: 3}": "experiment/mine.yaml: stady: the config has no 'stady'. Did you mean study?",
    "study: {n_trials: many}": "experiment/mine.yaml: study.n_trials must be a whole number, not 'many'",
    "study: [3]": "experiment/mine.yaml: a section must be a section with keys of its own",
    "on: 3": "experiment/mine.yaml: YAML reads on, yes and true as True: write the word in quotes",
    "space: {quantize: {on: 3}}": "space.quantize has the key True: YAML reads on, yes and true as True",
    "space: {quantize: {schem: [symmetric]}}": "Unknown knob 'schem' in space.quantize. Did you mean 'scheme'?",
    "sampler: {pool_siz: 3}": "Unknown key 'pool_siz' in sampler. Did you mean 'pool_size'?",
    "defaults: [{override /space: prune}]\nspace: {prune: {keep: [0.5]}}": "experiment/mine.yaml: a list stands where a file of its defaults list has a section",
    "defaults: [{override /sampler: tpee}]": "Unknown sampler 'tpee' in sampler=tpee. Did you mean 'tpe'?",
    "defaults: [{override /samplr: tpe}]": "Unknown config group 'samplr'. Did you mean 'sampler'?",
    "defaults: [{sampler: tpe}]": "a file of experiment names sampler: write `- override /sampler: tpe`",
}


@pytest.mark.parametrize("content", FILES, ids=str)
def test_a_mistake_in_a_file_is_answered_likewise(folder, content):
    files = folder / "conf" / "experiment"
    files.mkdir(parents=True)
    (files / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    text = refusal([f"hydra.searchpath=[file://{folder}/conf]", "experiment=mine"])
    assert FILES[content] in text
    assert "raised while composing" not in text


def test_an_option_that_is_none_is_told_how_keys_are_written(capsys):
    from search.cli.app import run_command

    assert run_command(["--device=host"]) == 2
    assert "unknown option --device=host: keys of the config have no dashes, write device=host" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("limit", "meant"),
    [
        ("objective.constraints.drop.max=0.005", '"0.5 %"'),
        ("+objective.constraints.least={measure: top1, min: 0.9}", '"90 %"'),
    ],
)
def test_a_share_where_a_percentage_is_wanted_is_refused_with_the_unit(limit, meant, tmp_path):
    text = refusal([*QUICK, f"cache_dir={tmp_path}", limit])
    assert "is in %, so" in text
    assert meant in text


def test_where_an_evaluator_cannot_tell_its_columns_names_are_checked_after_measuring(tmp_path):
    given = [*QUICK, f"cache_dir={tmp_path}", "evaluator=[accuracy,cost,class_risk]"]
    least = "+objective.constraints.c={measure: false_negatives_3, max: 9}"
    config = compose([*given, least, "dry_run=true", "tracker=none"])
    assert any(c.name == "c" for c in prepare(config, lambda text: None).plan.constraints)
    assert "Did you mean 'false_negatives_3" in refusal([*given, least.replace("_3", "_33")])


def test_a_limit_of_a_percentage_with_its_unit_is_taken(tmp_path):
    limit = 'objective.constraints.drop.max="0.005 %"'
    config = compose([*QUICK, f"cache_dir={tmp_path}", limit, "dry_run=true", "tracker=none"])
    limits = {c.name: c.limit for c in prepare(config, lambda text: None).plan.constraints}
    assert limits["drop"] == 0.005
