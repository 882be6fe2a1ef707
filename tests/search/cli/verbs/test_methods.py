"""`paredown methods` and `paredown knobs`: what a stage, a family or a config says of itself is what is printed."""

import json
import shlex
import subprocess
import sys

import pytest

from search.api import compose
from search.cli.app import run_command
from search.cli.verbs.dispatch import VERBS, verb_of
from search.cli.verbs.methods import AXES, methods
from search.planning.config.shipped import shipped
from search.planning.loading import _stages
from search.planning.stage_order import check_stages
from spaces.knob_spec import PLACES
from spaces.space_config import read_space

METHODS = list(methods([shipped()], ()))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_method_says_what_it_is_and_its_command_composes_a_study_with_it(method):
    technique = method.technique
    assert technique.axis in AXES
    assert set(technique.needs) <= {"data", "labels", "training"}
    assert technique.tuning in ("none", "light", "full")
    assert technique.general is ("labels" not in technique.needs)
    assert (technique.axis == "quantization") == bool(technique.places)
    assert len(technique.places) in (0, len(PLACES))
    assert method.description
    config = compose(shlex.split(method.run)[1:])
    stages = _stages(config)
    check_stages(config, stages)
    space = read_space(config.section("space"), stages)
    stage, _, knob = method.name.partition("=")[0].partition(".")
    if knob:
        (domain,) = (k.domain for k in space.knobs if k.base == f"{stage}.{knob}")
        values = {str(value).lower() for value in domain}
        assert method.name.partition("=")[2] in values


def test_no_method_is_listed_twice_and_every_axis_has_some():
    names = [method.name for method in METHODS]
    assert len(set(names)) == len(names)
    assert {method.technique.axis for method in METHODS} == set(AXES)


def test_methods_of_rounding_formats_and_criteria_are_all_there():
    from spaces.pruning.criteria.registry import BUILT_IN
    from spaces.quantization.formats.methods import FORMATS
    from spaces.quantization.rounding.methods import METHODS as ROUNDINGS

    wanted = {
        *(f"quantize.rounding={name}" for name in ROUNDINGS),
        *(f"quantize.weight_format={name}" for name in FORMATS),
        *(f"prune.criterion={name}" for name in BUILT_IN),
    }
    found = {method.name: method for method in METHODS}
    assert wanted <= set(found)
    assert "arXiv 2210.17323" in found["quantize.rounding=gptq"].technique.paper
    assert found["prune.criterion=taylor"].technique.needs == ("data", "labels")
    assert found["prune.criterion=magnitude_l1"].technique.needs == ()


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """A stage and a sampler of a user's, as a plug-in is: a class and a config."""
    (tmp_path / "conf/stage").mkdir(parents=True)
    (tmp_path / "conf/sampler").mkdir()
    (tmp_path / "my_stage_of_tests.py").write_text(
        "from spaces.knob_spec import KnobSpec, Technique\n"
        "from spaces.stages.stage import Stage\n"
        "HALVED = Technique('pruning', ('data',), paper='Mine et al.')\n"
        "class Mine(Stage):\n"
        "    name, consumes, produces = 'mine', ('torch',), 'torch'\n"
        "    knobs = (KnobSpec('share', 0.0, 'what goes', low=0, high=1, techniques=((0.5, HALVED),)),)\n"
        "    def apply(self, artifact, values, context):\n"
        "        return artifact\n"
    )
    (tmp_path / "conf/stage/mine.yaml").write_text(
        "# @package stage\n# paredown stage=[mine,export]\n# Halves it. Not more.\nmine: {_target_: my_stage_of_tests.Mine}\n"
    )
    (tmp_path / "conf/sampler/mine.yaml").write_text(
        "# paredown sampler=mine\n# Draws.\n_target_: optuna.samplers.RandomSampler\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_stage_of_tests", None)
    return ["--config-dir", str(tmp_path / "conf"), "trusted_modules=[my_stage_of_tests]"]


def test_a_plug_in_appears_by_itself(plug_in, capsys):
    assert run_command(["methods", "mine", "--json", *plug_in]) == 0
    stage, sampler = json.loads(capsys.readouterr().out)
    assert (stage["name"], stage["paper"], stage["axis"]) == ("mine.share=0.5", "Mine et al.", "pruning")
    assert stage["run"] == "paredown 'stage=[mine,export,quantize]' '+space.mine.share=[0.5]'"
    assert (sampler["name"], sampler["description"]) == ("sampler=mine", "Draws.")
    assert run_command(["knobs", "mine", *plug_in]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:4] == ["mine: Halves it.", "  space.mine.share = 0.0", "      0 to 1", "      what goes"]


def test_a_rounding_of_ones_own_appears_with_the_stage_file_that_names_it(plug_in, tmp_path, capsys):
    (tmp_path / "my_stage_of_tests.py").write_text(
        "from spaces.quantization.rounding.base import Method\n"
        "class Zero(Method):\n"
        "    'Rounds towards zero (arXiv 1234.56789).'\n"
        "    name = 'towards_zero'\n"
        "    def solve(self, unit):\n"
        "        pass\n"
    )
    (tmp_path / "conf/stage/mine.yaml").write_text(
        "# @package stage\nquantize: {_target_: spaces.quantization.quantize.QuantizeStage,"
        " roundings: [{_target_: my_stage_of_tests.Zero}]}\n"
    )
    sys.modules.pop("my_stage_of_tests", None)
    assert run_command(["methods", "towards_zero", "--json", *plug_in]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["paper"]) == ("quantize.rounding=towards_zero", "arXiv 1234.56789")
    assert found["run"] == "paredown 'stage=[export,mine]' '+space.quantize.rounding=[towards_zero]'"


def test_every_knob_is_printed_with_default_range_and_description(capsys):
    assert run_command(["knobs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["values"] and row["description"] and "default" in row for row in rows)
    found = {(row["stage"], row["knob"]) for row in rows}
    assert {
        ("quantize", "rounding"),
        ("prune", "keep"),
        ("recover", "lora_rank"),
        ("architecture", "width"),
    } <= found
    for stage in _stages(compose(["stage=[sparsify,prune,recover,tokens,train,export,quantize]"])):
        assert {(stage.name, knob.name) for knob in stage.knobs} <= found


@pytest.mark.parametrize("verb", ["knobs", "methods"])
def test_nothing_that_is_read_is_wider_than_80_columns(verb, capsys):
    assert run_command([verb]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if len(line) > 80 and not line.startswith("      run: ")]
    assert not [line for line in lines if line != line.rstrip()]


def test_a_first_word_without_an_equals_sign_is_a_verb():
    assert verb_of(["knobs", "quantize"]) == "knobs"
    for words in ([], ["seed=1"], ["--multirun", "seed=1,2"], ["+space.a=1"], ["~seed"], ["--help"]):
        assert verb_of(words) is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["knob"], "Unknown verb 'knob'. Did you mean 'knobs'?"),
        (
            ["frobnicate"],
            "Known: init, knobs, mcp, methods, quantize. An override of the config is written with `=`",
        ),
        (["knobs", "quantise"], "Unknown stage 'quantise'. Did you mean 'quantize'?"),
        (["knobs", "--jsn"], "unrecognized arguments: --jsn; `paredown knobs --help` explains it"),
        (["methods", "nonsense"], "no method has 'nonsense'"),
        (["methods", "--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
    ],
)
def test_mistakes_end_with_status_2_and_one_message(arguments, told, capsys):
    assert run_command(arguments) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert told in " ".join(printed.err.split())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    assert run_command([verb, "--help"]) == 0
    assert f"usage: paredown {verb}" in capsys.readouterr().out


def test_help_lists_the_verbs_and_a_reader_who_leaves_sees_no_traceback():
    whole = subprocess.run(
        [sys.executable, "-m", "search", "--help"], capture_output=True, text=True, check=True
    )
    for verb in VERBS:
        assert f"paredown {verb}" in whole.stdout
    command = f"{shlex.quote(sys.executable)} -m search --help | head -n 1"
    cut = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert len(cut.stdout.splitlines()) == 1
    assert not cut.stderr
