"""What the common case says in a line is the config that it stands for; what cannot be told is refused with the fix."""

import shlex
from dataclasses import replace
from pathlib import Path

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
from search.requests.network import Network, Output
from search.requests.request import Request
from spaces.errors import ConfigError, InputError
from spaces.stages.artifact import TensorSpec


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


def takes(shape):
    """A network's file with one input of this shape."""
    return Network((TensorSpec(shape),), folder=Path())


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
    (tmp_path / "loose sounds").mkdir()
    (tmp_path / "loose sounds" / "a.wav").touch()
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
    found = data_choices(folder / data, takes(shape))
    assert found.groups == groups
    assert found.values["task.root"] == str(folder / data)
    assert {key: found.values[key] for key in values} == values


@pytest.mark.parametrize(
    ("n", "sizes"), [(50, (10, 20, 20)), (500, (100, 200, 200)), (10_000, (512, 1000, 2000))]
)
def test_splits_grow_with_the_data_up_to_what_tells_a_small_loss(tmp_path, n, sizes):
    np.savez(tmp_path / "data.npz", x=np.zeros((n, 4), np.float32), y=np.arange(n) % 3)
    found = data_choices(tmp_path / "data.npz", takes((4,)))
    assert tuple(found.values[f"task.{name}"] for name in ("calibration", "validation", "test")) == sizes


def test_a_network_of_the_zoo_keeps_examples_to_learn_from(folder):
    np.savez("digits.npz", x=np.zeros((600, 1, 8, 8)), y=np.arange(600) % 10)
    assert not any("calibration" in key for key in Request("digits_cnn", "digits.npz").choices().values)
    np.savez("values.npz", x=np.zeros((600, 1, 8, 8)), y=np.zeros(600))
    assert not any("calibration" in key for key in Request("digits_cnn", "values.npz").choices().values)


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((3, 8, 8), {"resize": 8, "crop": 8, "mean": [0.485, 0.456, 0.406]}),
        ((8, 12, 3), {"resize": [8, 12], "layout": "NHWC"}),
        ((1, 8, 8), {"resize": 8, "crop": 8, "channels": "grey"}),
    ],
)
def test_images_without_labels_are_judged_by_the_uncompressed_network(folder, shape, values):
    classifier = replace(takes(shape), outputs={"y": Output((5,))})
    found = data_choices(folder / "loose", classifier)
    assert found.groups == {"task": "unlabelled", "task/data": "images"}
    assert found.values["task.compared"] == "classes"
    assert {key: found.values[f"task.data.{key}"] for key in values} == values
    assert "there are no labels" in found.notes[0]
    for other in ((5, 8, 8), (1,)):
        assert (
            "task.compared"
            not in data_choices(folder / "loose", replace(classifier, outputs={"y": Output(other)})).values
        )


def test_fewer_folders_than_classes_are_told(folder):
    of_five = replace(takes((3, 8, 8)), outputs={"y": Output((5,))})
    (note,) = [n for n in data_choices(folder / "images", of_five).notes if "class folders" in n]
    assert (
        "the 2 class folders, in the order of their names, are taken for the first of the network's 5 classes"
        in note
    )
    assert "task.classes=FILE task.n_classes=5" in note
    of_two = replace(of_five, outputs={"y": Output((2,))})
    assert not [n for n in data_choices(folder / "images", of_two).notes if "class folders" in n]


def test_one_folder_of_images_is_no_class(folder):
    (folder / "all").mkdir()
    (folder / "loose").rename(folder / "all" / "loose")
    assert data_choices(folder / "all", takes((3, 8, 8))).groups["task"] == "unlabelled"


def test_arrays_without_labels(folder):
    np.savez("bare.npz", x=np.zeros((60, 4)))
    np.savez("named.npz", a=np.zeros((60, 4)), b=np.zeros((60, 2)))
    found = data_choices(folder / "bare.npz", takes((4,)))
    assert found.groups == {"task": "unlabelled", "task/data": "npz"}
    assert (found.values["task.data.y"], found.values["task.validation"]) == (None, 24)
    assert "task.compared" not in found.values
    named = replace(takes((4,)), outputs={"logits": Output((5,))})
    assert data_choices(folder / "bare.npz", named).values["task.compared"] == "classes"
    several = Network((TensorSpec((4,), name="a"), TensorSpec((2,), name="b")), folder=Path())
    assert data_choices(folder / "named.npz", several).values["task.data.input_shape"] == {"a": [4], "b": [2]}


def test_masks_of_arrays_are_those_of_a_network_that_scores_positions(folder):
    masks = np.random.default_rng(0).integers(0, 3, (60, 8, 8))
    masks[0, 0, 0] = 255
    np.savez("masks.npz", x=np.zeros((60, 3, 8, 8)), y=masks)
    scoring = replace(takes((3, 8, 8)), outputs={"y": Output((3, 4, 4))})
    found = data_choices(folder / "masks.npz", scoring)
    assert found.groups == {"task": "segmentation", "task/data": "npz"}
    assert (found.values["task.n_classes"], found.values["task.upsample"]) == (3, "bilinear")
    with pytest.raises(
        InputError, match=r"masks y hold the class 2, but the network yields scores of 2 classes"
    ):
        data_choices(folder / "masks.npz", replace(scoring, outputs={"y": Output((2, 8, 8))}))
    with pytest.raises(InputError, match=r"labels y are int64 of shape \[60, 8, 8\]"):
        data_choices(folder / "masks.npz", replace(scoring, outputs={"y": Output((5,))}))


def test_a_network_that_is_trained_on_the_data_needs_labels(folder):
    np.savez("bare.npz", x=np.zeros((60, 1, 8, 8)))
    with pytest.raises(
        InputError, match="has no labels, which this network needs: it is trained on the data"
    ):
        Request("digits_cnn", "bare.npz").choices()


def test_a_column_of_numbers_is_predicted(folder):
    found = data_choices(folder / "table.csv", takes((5,)), label="price")
    assert found.groups["task"] == "regression"
    assert "price is predicted as a number" in found.notes[0]


@pytest.mark.parametrize(
    ("data", "shape", "told"),
    [
        ("nothing", (4,), "there is no such file or folder of data"),
        ("empty", (4,), "a folder without images, wav files and texts is not known as data. Known are"),
        ("loose", (4,), "holds images, but the network takes input [4]"),
        ("loose", (0, 8, 3), "holds images, but the network takes input [0, 8, 3] float32 (0 is open"),
        ("loose sounds", (3, 8, 8), "holds wav files, but no folder for each class, so it has no labels"),
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
        data_choices(folder / data, takes(shape))
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
            "numbers.npz has no array 'input'; it has x, y; input, input1 and, if there are any, labels y are needed",
        ),
        (Request("two.onnx", "images"), InputError, "an .npz file with arrays of these names, and labels y"),
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


def steps_first(path):
    """A network with two inputs of open length, whose outputs are (steps, n, classes)."""
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3, "t"]) for n in ("a", "b")]
    nodes = [
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[2, 0, 1]),
        helper.make_node("MatMul", ["d", "w"], ["steps"]),
    ]
    outputs = [helper.make_tensor_value_info("steps", TensorProto.FLOAT, ["t", "batch", 3])]
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    graph = helper.make_graph(nodes, "net", inputs, outputs, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def test_arrays_are_read_by_the_names_of_several_inputs_and_fill_open_axes(folder, capsys):
    steps_first("steps.onnx")
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(60, 3, 7)).astype(np.float32) for name in ("a", "b")}
    np.savez("steps.npz", **arrays, y=(arrays["a"] + arrays["b"]).argmax(1))
    found = Request("steps.onnx", "steps.npz").choices()
    assert found.groups["task"] == "step_classes"
    assert found.values["task.time_first"] is True
    assert (found.values["task.calibration"], found.values["task.validation"]) == (12, 24)
    shapes = {"a": [3, 7], "b": [3, 7]}
    assert found.values["model.input_shape"] == found.values["task.data.input_shape"] == shapes
    assert run_command(["quantize", "steps.onnx", "--data", "steps.npz", "--dry-run", "cache_dir=c"]) == 0
    assert "step_classes" in capsys.readouterr().out


def test_a_class_for_each_example_of_several_inputs(folder):
    rng = np.random.default_rng(0)
    arrays = {"input": rng.normal(size=(60, 4)), "input1": rng.normal(size=(60, 4)), "y": np.arange(60) % 5}
    np.savez("two.npz", **arrays)
    found = Request("two.onnx", "two.npz").choices()
    assert found.groups["task"] == "npz"
    assert found.values["task.input_shape"] == {"input": [4], "input1": [4]}
    compose([*found.overrides(), "tracker=none"])


def test_zeros_and_ones_are_no_classes_of_three_outputs(folder):
    steps_first("steps.onnx")
    arrays = {name: np.zeros((60, 3, 7), np.float32) for name in ("a", "b")}
    np.savez("steps.npz", **arrays, y=np.arange(420).reshape(60, 7) % 2)
    assert Request("steps.onnx", "steps.npz").choices().groups["task"] == "yes_no"


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (np.arange(60) % 2 == 0, {}),
        (np.arange(300).reshape(60, 5) % 2, {}),
        (np.arange(300).reshape(60, 5) % 3, None),
    ],
)
def test_answers_are_zeros_and_ones(folder, labels, values):
    np.savez("answers.npz", input=np.zeros((60, 4)), y=labels)
    if values is None:
        with pytest.raises(InputError, match="0 and 1 of any shape, which are answers"):
            Request("vector.onnx", "answers.npz").choices()
        return
    found = Request("vector.onnx", "answers.npz").choices()
    assert found.groups["task"] == "yes_no"
    assert found.values["task.data.x"] == "input"
    assert "task.threshold" not in found.values


def test_probabilities_are_answers_above_a_half(folder):
    proto = onnx.load("vector.onnx")
    proto.graph.node[-1].output[0] = "logits"
    proto.graph.node.append(helper.make_node("Sigmoid", ["logits"], ["output"]))
    onnx.save(proto, "probabilities.onnx")
    np.savez("answers.npz", x=np.zeros((60, 4)), y=np.arange(300).reshape(60, 5) % 2)
    assert Request("probabilities.onnx", "answers.npz").choices().values["task.threshold"] == 0.5


@pytest.mark.parametrize(
    ("model", "devices", "words", "space"),
    [
        ("vector.onnx", ["host"], [], "matrix_products"),
        ("vector.onnx", ["stm32h743"], [], None),
        ("vector.onnx", ["host"], ["space=few_bits"], None),
        ("conv.onnx", ["host"], [], None),
    ],
)
def test_a_network_of_matrix_products_may_find_its_ranges_while_it_runs(folder, model, devices, words, space):
    weight = numpy_helper.from_array(np.ones((5, 4, 1), np.float32), "w")
    shapes = {"input": ["n", 4, 1], "output": ["n", 5, 1]}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["output"])],
        "net",
        *([helper.make_tensor_value_info(k, TensorProto.FLOAT, shapes[k])] for k in shapes),
        [weight],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "conv.onnx"
    )
    np.savez("conv.npz", x=np.zeros((60, 4, 1)), y=np.arange(60) % 5)
    np.savez("vector.npz", x=np.zeros((60, 4)), y=np.arange(60) % 5)
    found = Request(model, model.replace("onnx", "npz"), devices, words=words).choices()
    assert found.groups.get("space") == space
    if space:
        compose(found.overrides())
