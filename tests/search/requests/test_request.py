"""What the common case says in a line is the config that it stands for; what cannot be told is refused with the fix."""

import shlex

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from search.api import compose
from search.cli.app import run_command
from search.requests.choices import Choices
from search.requests.data_kinds import data_choices
from search.requests.request import Request
from spaces.errors import ConfigError, InputError


def network(path, *shapes):
    """An ONNX file with an input of each shape, which maps the first one to five scores."""
    inputs = [
        helper.make_tensor_value_info(f"input{i or ''}", TensorProto.FLOAT, ["n", *s])
        for i, s in enumerate(shapes)
    ]
    weight = np.random.default_rng(0).normal(size=(int(np.prod(shapes[0])), 5)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["output"]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph(nodes, "net", inputs, [output], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Networks, and data of every kind that is known and of some that are not."""
    monkeypatch.chdir(tmp_path)
    network("rgb.onnx", (3, 8, 8))
    network("last.onnx", (8, 8, 3))
    network("vector.onnx", (4,))
    network("two.onnx", (4,), (4,))
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "sounds" / name).mkdir(parents=True)
        (tmp_path / "sounds" / name / "a.wav").touch()
        for i in range(20):
            image = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
            image.save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "loose").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "loose" / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    np.savez("first.npz", x=rng.normal(size=(600, 3, 8, 8)), y=np.arange(600) % 5)
    np.savez("last.npz", x=np.zeros((60, 8, 8, 3)), y=np.arange(60) % 5)
    np.savez("numbers.npz", x=np.zeros((60, 4)), y=np.zeros((60, 2)))
    np.savez("texts.npz", x=np.zeros((60, 4)), y=np.array(["a"] * 60))
    rows = [f"{v:.3f},{v * 2:.3f},0,1,{'yes' if v > 0 else 'no'},{v:.4f}" for v in rng.normal(size=60)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,c,d,label,price", *rows]))
    (tmp_path / "unnamed.csv").write_text("a,b\n1,2\n")
    return tmp_path


@pytest.mark.parametrize(
    ("data", "shape", "groups", "values"),
    [
        ("images", (3, 8, 8), {"task": "image_folder"},
         {"task.labels": None, "task.n_classes": 2, "task.crop": 8, "task.calibration": 8}),
        ("images", (8, 8, 3), {"task": "image_folder"}, {"task.layout": "NHWC"}),
        ("sounds", (1, 49, 40), {"task": "sound_classes"}, {}),
        ("first.npz", (3, 8, 8), {"task": "npz"}, {"task.layout": "NHWC", "task.n_classes": 5}),
        ("last.npz", (3, 8, 8), {"task": "npz"}, {"task.layout": "NCHW", "task.validation": 24}),
        ("numbers.npz", (4,), {"task": "regression"}, {"task.data.layout": "NHWC"}),
        ("table.csv", (4,), {"task": "classes", "task/data": "table"}, {"task.data.label": "label"}),
    ],
)  # fmt: skip
def test_the_kind_of_data_is_told(folder, data, shape, groups, values):
    found = data_choices(folder / data, shape)
    assert found.groups == groups
    assert found.values["task.root"] == str(folder / data)
    assert {key: found.values[key] for key in values} == values


@pytest.mark.parametrize(
    ("n", "sizes"), [(50, (10, 20, 20)), (500, (100, 200, 200)), (10_000, (512, 1000, 2000))]
)
def test_splits_grow_with_the_data_up_to_what_tells_a_small_loss(tmp_path, n, sizes):
    np.savez(tmp_path / "data.npz", x=np.zeros((n, 4), np.float32), y=np.arange(n) % 3)
    found = data_choices(tmp_path / "data.npz", (4,))
    assert tuple(found.values[f"task.{name}"] for name in ("calibration", "validation", "test")) == sizes


def test_a_column_of_numbers_is_predicted(folder):
    found = data_choices(folder / "table.csv", (5,), label="price")
    assert found.groups["task"] == "regression"
    assert "price is predicted as a number" in found.notes[0]


@pytest.mark.parametrize(
    ("data", "shape", "told"),
    [
        ("nothing", (4,), "there is no such file or folder of data"),
        ("empty", (4,), "a folder without images and wav files is not known as data. Known are"),
        ("loose", (3, 8, 8), "holds images, but no folder for each class and no labels.csv"),
        ("images", (1, 8, 8), "squares of three colours, but the network takes [1, 8, 8]"),
        ("images", (3, 8, 12), "squares of three colours"),
        ("first.npz", (4,), "examples x have shape [3, 8, 8], but the network takes [4]"),
        ("texts.npz", (4,), "labels y are"),
        ("notes.txt", (4,), "a .txt file is not known as data"),
        ("unnamed.csv", (1,), "which column is the label? Say it with --label COLUMN: a, b"),
    ],
)
def test_data_that_cannot_be_told_is_refused_with_what_is_known(folder, data, shape, told):
    with pytest.raises(InputError) as caught:
        data_choices(folder / data, shape)
    assert told in str(caught.value)
    assert data in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "error", "told"),
    [
        (Request("rgb.onnx", None), ConfigError, "--data is needed"),
        (Request("rgb.onnx", "images", ["stm32h7"]), ConfigError, "Did you mean 'stm32h743' or"),
        (Request("rgb.onnx", "images", flash="much"), ConfigError, "--flash: expected a size"),
        (Request("nothing.onnx", "images"), InputError, "there is no such ONNX file"),
        (Request("net.pt", "images"), InputError, "which does not hold the network"),
        (Request("resnet_20", "images"), InputError, "Did you mean 'resnet20'"),
        (
            Request("two.onnx", "numbers.npz"),
            InputError,
            "has the inputs input, input1: choose the data yourself",
        ),
    ],
)
def test_a_request_that_is_wrong_is_refused(folder, request_, error, told):
    with pytest.raises(error) as caught:
        request_.choices()
    assert told in str(caught.value)


def test_overrides_and_experiment_compose_the_same_config(folder):
    request = Request(
        "rgb.onnx", "images", ["stm32h743", "host"], flash="256 KiB", ram="64KiB", drop="1 %", n_trials=3
    )
    by_words = compose(request.overrides()).data
    assert by_words["objective"]["constraints"]["flash_bytes"] == {"max": "256 KiB"}
    assert by_words["objective"]["constraints"]["drop"]["max"] == "1 %"
    assert list(by_words["device"]) == ["stm32h743", "host"]
    assert by_words["study"]["n_trials"] == 3
    path = folder / "conf/experiment/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(request.choices().experiment("mine", "conf", "Mine."))
    by_file = compose([f"hydra.searchpath=[file://{folder}/conf]", "experiment=mine"]).data
    assert {k: v for k, v in by_file.items() if k != "trusted_modules"} == {
        k: v for k, v in by_words.items() if k != "trusted_modules"
    }


@pytest.mark.parametrize(
    "value", ["1e5", "0.5", "true", "a b", "a,b", "[x]", "~/a.onnx", "null", 3, 0.5, True, None, [1, 8]]
)
def test_every_value_survives_the_grammar_of_overrides(value):
    (override,) = Choices({}, {"study.x": value}, frozenset({"study.x"})).overrides()
    (word,) = shlex.split(shlex.quote(override))
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(word).value() == value


def test_the_verb_prints_the_equivalent_command_and_runs_it(folder, capsys):
    words = ["rgb.onnx", "--data", "first.npz", "--device", "stm32h743", "--flash", "256KiB"]
    tail = ["objective=accuracy_size", "tracker=none", "cache_dir=cache"]
    assert run_command(["quantize", *words, "--dry-run", *tail]) == 0
    out = capsys.readouterr().out
    line = out.split("the same as: ", 1)[1].splitlines()[0]
    assert "dry_run=true: no trial was run" in out
    assert "flash_bytes <= 262144" in out
    assert run_command(shlex.split(line)[1:]) == 0
    again = capsys.readouterr().out
    assert untimed(again) == untimed(out.split(line + "\n", 1)[1])


def untimed(text):
    """The lines without the one that says how long trials take."""
    return [line for line in text.splitlines() if not line.startswith("time ")]


def answers(monkeypatch, *lines):
    """Types lines at a terminal."""
    import io
    import sys

    typed = io.StringIO("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", typed)


def test_init_asks_again_until_an_answer_is_valid(folder, monkeypatch, capsys):
    answers(
        monkeypatch,
        "no.onnx",
        "rgb.onnx",
        "notes.txt",
        "first.npz",
        "stm32h7",
        "stm32h743,host",
        "much",
        "256KiB",
    )
    assert run_command(["init"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for told in ("no such ONNX file", "not known as data", "Did you mean 'stm32h743' or", "expected a size"):
        assert told in out
    assert "paredown --config-dir configs experiment=rgb" in out
    written = yaml.safe_load((folder / "configs/experiment/rgb.yaml").read_text())
    assert written["objective"] == {"constraints": {"flash_bytes": {"max": "256KiB"}}}
    assert {"override /device": ["stm32h743", "host"]} in written["defaults"]
    assert (
        run_command(
            ["--config-dir", "configs", "experiment=rgb", "dry_run=true", "tracker=none", "cache_dir=c"]
        )
        == 0
    )


def test_init_without_a_terminal_takes_options_and_says_what_is_missing(folder, capsys):
    assert run_command(["init", "rgb.onnx"]) == 2
    assert "--data is missing, and there is no terminal to ask at" in capsys.readouterr().err
    words = ["init", "rgb.onnx", "--data", "images", "--device", "stm32h743"]
    assert run_command(words) == 0
    assert run_command(words) == 2
    assert "choose another name with --name NAME, or replace it with --force" in " ".join(
        capsys.readouterr().err.split()
    )
    assert run_command([*words, "--force"]) == 0


def test_init_that_is_left_writes_nothing(folder, monkeypatch, capsys):
    answers(monkeypatch, "rgb.onnx")
    assert run_command(["init"]) == 2
    assert "--data was not answered; nothing is written" in capsys.readouterr().err
    assert not (folder / "configs").exists()
