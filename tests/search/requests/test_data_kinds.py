"""Texts by class, images with masks, and boxes in COCO's format are told from their files; what cannot be told is asked for."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from search.cli.app import run_command
from search.requests.request import Request
from spaces.errors import InputError

WORDS = {"neg": "bad poor awful", "pos": "good great fine"}
RNG = np.random.default_rng(0)


def save(path, nodes, inputs, outputs, constants):
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def port(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, ["n", *shape])


def text_network(path, *names, length=16):
    """Looks the first input's ids up, adds the means of the others, and has two scores."""
    nodes = [
        helper.make_node("Gather", ["table", names[0]], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["scores0"]),
    ]
    for i, name in enumerate(names[1:]):
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", [f"{name}_float"], [f"{name}_mean"], axes=[1], keepdims=1),
            helper.make_node("Add", [f"scores{i}", f"{name}_mean"], [f"scores{i + 1}"]),
        ]
    nodes.append(helper.make_node("Identity", [f"scores{len(names) - 1}"], ["logits"]))
    constants = {
        "table": RNG.normal(size=(300, 8)).astype(np.float32),
        "weight": RNG.normal(size=(8, 2)).astype(np.float32),
    }
    inputs = [port(name, length, kind=TensorProto.INT64) for name in names]
    save(path, nodes, inputs, [port("logits", 2)], constants)


def image_network(path, n_scores, stride=1, then=None, channels=3):
    """A convolution of 16 x 16 images, and what comes after it: the node's type and the shape that it yields."""
    weight = RNG.normal(size=(n_scores, channels, stride, stride)).astype(np.float32)
    side = 16 // stride
    nodes = [helper.make_node("Conv", ["x", "weight"], ["scores"], name="conv", strides=[stride, stride])]
    shape, constants = (n_scores, side, side), {"weight": weight}
    if then == "Sigmoid":
        nodes.append(helper.make_node("Sigmoid", ["scores"], ["y"]))
    if then == "Transpose":
        nodes.append(helper.make_node("Transpose", ["scores"], ["y"], perm=[0, 2, 3, 1]))
        shape = (side, side, n_scores)
    if then in ("rows", "columns"):
        constants["size"] = np.array([0, n_scores, -1])
        nodes.append(helper.make_node("Reshape", ["scores", "size"], ["rows"]))
        nodes.append(
            helper.make_node("Transpose", ["rows"], ["y"], perm=[0, 1, 2] if then == "rows" else [0, 2, 1])
        )
        shape = (n_scores, side * side) if then == "rows" else (side * side, n_scores)
    save(
        path,
        nodes,
        [port("x", channels, 16, 16)],
        [port("y" if then else "scores", *shape)],
        constants,
    )


def picture(path, mode="RGB"):
    shape = (20, 24, 3) if mode == "RGB" else (20, 24)
    Image.fromarray(RNG.integers(0, 255, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def reviews(folder):
    for name, words in WORDS.items():
        (folder / "reviews" / name).mkdir(parents=True)
        for i in range(30):
            text = " ".join([*RNG.choice(words.split(), 5), str(i)])
            (folder / "reviews" / name / f"{i}.txt").write_text(text)
    return "reviews"


@pytest.fixture
def masked(folder):
    """Makes pairs of images and masks with these values."""

    def make(*values):
        for name in ("images", "masks"):
            (folder / "seg" / name).mkdir(parents=True)
        for i in range(20):
            picture(folder / "seg/images" / f"{i}.jpg")
            mask = RNG.choice(values, size=(20, 24)).astype(np.uint8)
            Image.fromarray(mask).save(folder / "seg/masks" / f"{i}.png")
        return "seg"

    return make


@pytest.fixture
def coco(folder):
    (folder / "coco/annotations").mkdir(parents=True)
    (folder / "coco/val2017").mkdir()
    for i in range(20):
        picture(folder / "coco/val2017" / f"{i}.jpg")
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 24, "height": 20} for i in range(20)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": (3, 7)[i % 2], "bbox": [2, 3, 8, 9], "area": 72, "iscrowd": 0}
            for i in range(20)
        ],
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
    }  # fmt: skip
    (folder / "coco/annotations/instances_val.json").write_text(json.dumps(content))
    (folder / "coco/notes.json").write_text('{"images": 3}')
    return "coco"


def choices(model, data, *words):
    return Request(model, data, words=words).choices()


def refusal(model, data, *words):
    with pytest.raises(InputError) as caught:
        choices(model, data, *words)
    return str(caught.value)


def dry_run(capsys, model, data, *words):
    """Asks for the quantization of a network, up to the trials."""
    rest = ["--dry-run", *words, "tracker=none", "cache_dir=cache", "knowledge=none", "evaluator=[accuracy,cost]",
            "objective=accuracy_size"]  # fmt: skip
    assert run_command(["quantize", model, "--data", data, *rest]) == 0
    return capsys.readouterr().out


# -- texts -----------------------------------------------------------------------------------------------------


def test_texts_need_a_tokenizer_which_one_message_asks_for(reviews):
    text_network("text.onnx", "ids")
    told = refusal("text.onnx", reviews)
    for line in ("task.data.tokenizer=FILE.json", "task.data.tokenizer=bytes", "task.data.vocabulary=FILE"):
        assert line in told


def test_with_a_tokenizer_texts_are_read(reviews, capsys):
    text_network("text.onnx", "ids")
    found = choices("text.onnx", reviews, "task.data.tokenizer=bytes")
    assert found.groups == {
        "model": "onnx",
        "task": "classes",
        "task/data": "text_folder",
        "device": ["host"],
        "space": "matrix_products",
    }
    assert found.values["task.data.length"] == 16
    assert found.values["task.validation"] == 24
    assert "the classes neg, pos in this order; task.classes=[...] says another" in found.notes[0]
    assert "stages       export -> quantize" in dry_run(
        capsys, "text.onnx", reviews, "task.data.tokenizer=bytes"
    )


def test_a_tokenizer_beside_the_network_is_taken(reviews, folder):
    (folder / "net").mkdir()
    text_network("net/bert.onnx", "input_ids", "attention_mask", "token_type_ids")
    (folder / "net/tokenizer.json").write_text("{}")
    values = choices("net/bert.onnx", reviews).values
    assert values["task.data.tokenizer"] == "net/tokenizer.json"
    assert {key: values[f"task.data.{key}"] for key in ("ids", "mask", "types")} == {
        "ids": "input_ids",
        "mask": "attention_mask",
        "types": "token_type_ids",
    }


def test_an_open_length_is_told(reviews):
    text_network("text.onnx", "ids", length=0)
    found = choices("text.onnx", reviews, "task.data.tokenizer=bytes")
    assert found.values["task.data.length"] == 128
    assert "task.data.length=N takes more or fewer" in found.notes[1]


def test_inputs_whose_part_is_not_told_by_their_names_are_asked_for(reviews):
    text_network("odd.onnx", "first", "second")
    assert "task.data.ids=NAME task.data.mask=NAME" in refusal(
        "odd.onnx", reviews, "task.data.tokenizer=bytes"
    )


def test_texts_for_a_network_of_images_are_refused(reviews):
    image_network("seg.onnx", 3)
    assert "become whole numbers (length,), but the network takes x [3, 16, 16] float32" in refusal(
        "seg.onnx", reviews
    )


# -- masks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "network", "wanted"),
    [
        ((0, 1, 2), {"n_scores": 3}, {"task.n_classes": 3, "task.data.resize": [16, 16]}),
        ((0, 1, 2, 255), {"n_scores": 3}, {"task.n_classes": 3}),
        ((0, 1), {"n_scores": 5}, {"task.n_classes": 5}),
        ((0, 127, 254), {"n_scores": 3}, {"task.data.mask_values": [0, 127, 254]}),
        ((0, 100, 255), {"n_scores": 2}, {"task.data.mask_values": [0, 100], "task.data.ignore": 255}),
        ((0, 255), {"n_scores": 2}, {"task.data.mask_values": [0, 255], "task.n_classes": 2}),
        ((0, 255), {"n_scores": 1, "then": "Sigmoid"}, {"task.threshold": 0.5, "task.n_classes": 2}),
        ((0, 1), {"n_scores": 1}, {"task.threshold": 0, "task.n_classes": 2}),
        ((0, 1, 2), {"n_scores": 3, "then": "Transpose"}, {"task.output_layout": "NHWC"}),
        ((0, 1, 2), {"n_scores": 3, "stride": 2}, {"task.upsample": "bilinear"}),
        ((0, 1, 2), {"n_scores": 3, "channels": 1}, {"task.data.channels": "grey"}),
    ],
)
def test_masks_are_told_by_their_values_and_the_network_s_scores(masked, values, network, wanted):
    data = masked(*values)
    image_network("seg.onnx", **network)
    found = choices("seg.onnx", data)
    assert (found.groups["task"], found.groups["task/data"]) == ("segmentation", "mask_folders")
    assert {key: found.values.get(key) for key in wanted} == wanted
    assert ("task.data.mask_values" in found.values) == any(
        n.startswith("the masks' values") for n in found.notes
    )


def test_a_study_of_masks_is_made(masked, capsys):
    data = masked(0, 255)
    image_network("seg.onnx", 1, then="Sigmoid")
    out = dry_run(capsys, "seg.onnx", data)
    assert "note: class 1 is where the score lies above 0.5, as for probabilities" in out
    assert "maximize metric.miou" in out


@pytest.mark.parametrize("values", [(0, 1, 2, 3), (0, 255)])
def test_masks_that_do_not_fit_the_scores_are_refused_with_the_fix(masked, values):
    data = masked(*values)
    image_network("seg.onnx", 3)
    assert "the network tells 3 classes apart. Add task.data.mask_values=[...]" in refusal("seg.onnx", data)
    values = choices("seg.onnx", data, "task.data.mask_values=[0,1,2]").values
    assert "task.data.mask_values" not in values  # the user's own prevails


# -- boxes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_scores", "then", "wanted"),
    [
        (6, "rows", {}),
        (6, "columns", {"task.decoder.boxes_first": True}),
        (7, "columns", {"task.decoder.boxes_first": True, "task.decoder.objectness": True}),
    ],
)
@pytest.mark.parametrize("named", ["coco", "coco/annotations/instances_val.json"])
def test_boxes_are_told_by_the_annotations_and_the_shape_of_the_output(coco, n_scores, then, wanted, named):
    image_network("yolo.onnx", n_scores, stride=2, then=then)
    found = choices("yolo.onnx", named)
    assert {found.groups[g] for g in ("task", "task/data", "task/decoder")} == {"detection", "coco", "yolo"}
    settings = {key: value for key, value in found.values.items() if key.startswith("task.decoder.")}
    assert settings == wanted
    assert found.values["task.root"] == "coco"
    assert found.values["task.data.annotations"] == "annotations/instances_val.json"
    assert found.values["task.data.images"] == "val2017"
    assert found.values["task.data.size"] == [16, 16]


def test_a_study_of_boxes_is_made(coco, capsys):
    pytest.importorskip("pycocotools")
    image_network("yolo.onnx", 6, stride=2, then="rows")
    assert "maximize metric.map" in dry_run(capsys, "yolo.onnx", coco)


def test_more_classes_than_categories_and_other_outputs_are_asked_for(coco):
    image_network("yolo.onnx", 14, stride=2, then="rows")
    assert "has 2 categories, but" in (told := refusal("yolo.onnx", coco))
    assert "Add task.data.class_ids=[...]" in told
    words = ("task.data.class_ids=[3,7,null,null,null,null,null,null,null,null]",)
    assert choices("yolo.onnx", coco, *words).groups["task/decoder"] == "yolo"
    image_network("map.onnx", 6)
    assert "Add task/decoder=yolo, task/decoder=grid, or task/decoder=decoded" in refusal("map.onnx", coco)
    assert "task/decoder" not in choices("map.onnx", coco, "task/decoder=grid").groups


def test_several_annotation_files_and_images_that_are_missing_are_told(coco, folder):
    image_network("yolo.onnx", 6, stride=2, then="rows")
    first = folder / "coco/annotations/instances_val.json"
    second = first.with_name("instances_train.json")
    second.write_text(first.read_text().replace(".jpg", ".png"))
    assert "has several annotation files: name one, e.g. --data coco/annotations/instances_train.json" in (
        refusal("yolo.onnx", coco)
    )
    assert "task.data.images=FOLDER" in refusal("yolo.onnx", str(second.relative_to(folder)))


def test_init_writes_whole_paths(reviews, folder, capsys):
    import yaml

    (folder / "net").mkdir()
    text_network("net/bert.onnx", "input_ids", "attention_mask")
    (folder / "net/tokenizer.json").write_text("{}")
    assert run_command(["init", "net/bert.onnx", "--data", reviews]) == 0
    written = yaml.safe_load((folder / "configs/experiment/bert.yaml").read_text())
    assert written["task"]["data"]["tokenizer"] == str(folder / "net/tokenizer.json")
