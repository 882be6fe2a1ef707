"""Images with boxes in COCO's format: what is read, and what is refused by which message."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluators.task.boxes.labels import CROWD, IGNORED
from evaluators.task.data.boxes.coco import CocoData
from evaluators.task.data.boxes.resized import Resized
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import StoredRows

Content = dict[str, Any]


def _content() -> Content:
    images = [{"id": 10 + i, "file_name": f"{i}.png", "width": 40, "height": 20 + 10 * i} for i in range(3)]
    boxes = [(10, 7, [4, 2, 10, 10], {}), (10, 3, [20, 5, 20, 15], {"iscrowd": 1}), (12, 3, [0, 0, 8, 16], {}),
             (12, 7, [1, 1, 4, 4], {"ignore": 1})]  # fmt: skip
    return {
        "images": images,
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 100 + i, "image_id": image, "category_id": k, "bbox": box, **more}
            for i, (image, k, box, more) in enumerate(boxes)
        ],
    }


def write_coco(folder: Path, content: Content, name: str = "annotations.json") -> Path:
    """Writes the annotations, and an image of the declared size for each entry."""
    (folder / "images").mkdir(exist_ok=True)
    for entry in content["images"]:
        pixels = np.full((entry["height"], entry["width"], 3), 10 * (entry["id"] % 20), np.uint8)
        pixels[:, : entry["width"] // 2] = 255
        Image.fromarray(pixels).save(folder / "images" / entry["file_name"])
    (folder / name).write_text(json.dumps(content))
    return folder


def _data(folder: Path, **settings: Any) -> CocoData:
    return CocoData(folder / "cache", **{"size": [20, 20], "resize": "stretch", **settings})


def test_labels_are_in_pixels_of_the_input(tmp_path: Path) -> None:
    examples = _data(write_coco(tmp_path, _content())).read(tmp_path)
    first, none, last = examples.labels
    # image 10 is 40 wide and 20 high; classes ascend with the ids of categories
    assert first.tolist() == [[2, 2, 7, 12, 1, 0], [10, 5, 20, 20, 0, CROWD]]
    assert none.shape == (0, 6)
    assert last.tolist() == [[0, 0, 4, 8, 0, 0], [0.5, 0.5, 2.5, 2.5, 1, IGNORED]]
    assert examples.place(2) == f"{tmp_path / 'annotations.json'}, image 12"


def test_images_are_stored_on_disk_and_read_in_batches(tmp_path: Path) -> None:
    split = _data(write_coco(tmp_path, _content())).read(tmp_path).split
    assert isinstance(split.raw, StoredRows)  # type: ignore[union-attr]
    ((inputs, labels),) = split.batches(8)
    assert isinstance(inputs, np.ndarray)
    assert inputs.shape == (3, 3, 20, 20)
    assert len(labels) == 3
    assert inputs[0, :, :, :9] == pytest.approx(1.0)
    assert inputs[0, :, :, 11:] == pytest.approx(100 / 255)


def test_letterbox_keeps_the_ratio_and_moves_boxes(tmp_path: Path) -> None:
    data = _data(write_coco(tmp_path, _content()), resize="letterbox", layout="NHWC", channels=1, fill=51)
    examples = data.read(tmp_path)
    ((inputs, _),) = examples.split.batches(8)
    assert isinstance(inputs, np.ndarray)
    assert inputs.shape == (3, 20, 20, 1)
    # 40 x 20 becomes 20 x 10, 5 rows below the upper edge
    assert inputs[0, [0, 4, 15, 19]] == pytest.approx(0.2)
    assert inputs[0, 5:15, :9] == pytest.approx(1.0)
    assert examples.labels[0][0].tolist() == [2, 6, 7, 11, 1, 0]
    corner = _data(tmp_path, resize="corner").read(tmp_path)
    assert corner.labels[0][0].tolist() == [2, 1, 7, 6, 1, 0]


@pytest.mark.parametrize("resize", ["letterbox", "corner", "stretch"])
@pytest.mark.parametrize("shape", [(40, 20), (33, 71), (640, 427), (3, 500)])
def test_a_marked_rectangle_stays_within_its_moved_box(
    resize: Any, shape: tuple[int, int], tmp_path: Path
) -> None:
    width, height = shape
    pixels = np.zeros((height, width), np.uint8)
    box = np.array([[width // 4, height // 4, width - width // 4, height - height // 4]], float)
    pixels[int(box[0, 1]) : int(box[0, 3]), int(box[0, 0]) : int(box[0, 2])] = 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    resized = Resized((32, 48), resize, 0, 1)
    ys, xs = np.nonzero(resized(tmp_path / "image.png")[..., 0] > 127)
    edges = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    np.testing.assert_allclose(resized.moved(box, width, height)[0], edges, atol=1.0)


def test_classes_in_the_order_of_the_network(tmp_path: Path) -> None:
    write_coco(tmp_path, _content())
    examples = _data(tmp_path, class_ids=[None, 7]).read(tmp_path)
    assert [label[:, 4].tolist() for label in examples.labels] == [[1], [], [1]]


def test_a_second_file_is_the_test_split(tmp_path: Path) -> None:
    write_coco(tmp_path, _content())
    other = _content()
    other["annotations"] = other["annotations"][:1]
    for entry in other["images"]:
        entry["file_name"] = f"test{entry['file_name']}"
    write_coco(tmp_path, other, "test.json")
    examples = _data(tmp_path, test_annotations="test.json").read(tmp_path)
    assert examples.parts is not None
    assert {name: rows.tolist() for name, rows in examples.parts.items()} == {"test": [3, 4, 5]}
    assert [len(label) for label in examples.labels] == [2, 0, 2, 1, 0, 0]
    with pytest.raises(InputError, match="splits would not be disjoint"):
        _data(tmp_path, test_annotations="annotations.json").read(tmp_path)


def test_some_images_are_drawn(tmp_path: Path) -> None:
    write_coco(tmp_path, _content())
    drawn = [_data(tmp_path, n_images=2, draw_seed=seed).read(tmp_path).where for seed in (0, 0, 3)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 2


def _set(content: Content, key: str, row: int, **values: Any) -> None:
    content[key][row] |= values


WRONG: Mapping[str, tuple[Callable[[Content], Any], str]] = {
    "no area": (lambda c: _set(c, "annotations", 2, bbox=[0, 0, 0, 5]), "annotation 102: the box .* has no area"),
    "outside": (lambda c: _set(c, "annotations", 2, bbox=[30, 0, 20, 5]), "annotation 102: .* lies outside image 12 of 40 x 40"),
    "above": (lambda c: _set(c, "annotations", 0, bbox=[3, -9, 20, 5]), "annotation 100: .* lies outside image 10"),
    "no numbers": (lambda c: _set(c, "annotations", 1, bbox=[1, 2, 3]), "annotation 101: bbox must be four numbers"),
    "not finite": (lambda c: _set(c, "annotations", 1, bbox=[1, 2, 3, float("nan")]), "annotation 101: bbox must be"),
    "no box": (lambda c: c["annotations"][3].pop("bbox"), "annotation 103 has no 'bbox'"),
    "category": (lambda c: _set(c, "annotations", 3, category_id=5), "annotation 103: there is no category 5"),
    "image": (lambda c: _set(c, "annotations", 1, image_id=99), "annotation 101: there is no image 99"),
    "no examples": (lambda c: c["categories"].append({"id": 8}), "category 8 has no box that counts"),
    "only crowds": (lambda c: _set(c, "annotations", 2, iscrowd=1), "category 3 has no box that counts"),
    "missing file": (lambda c: _set(c, "images", 1, file_name="none.png"), "image 11: .*none.png: there is no such image"),
    "folder": (lambda c: _set(c, "images", 1, file_name="../0.png"), "image 11: '../0.png' is not a file name within"),
    "size": (lambda c: _set(c, "images", 1, width=41), "image 11: .*1.png has 40 x 30 pixels, but the annotations say 41 x 30"),
    "no width": (lambda c: c["images"][1].pop("width"), "image 11 has no 'width'"),
    "side": (lambda c: _set(c, "images", 1, width=0), "image 11: width and height must be whole numbers"),
    "twice": (lambda c: _set(c, "images", 1, id=10), "image 10 is listed twice"),
    "same file": (lambda c: _set(c, "images", 0, file_name="2.png", height=40), "image 12: .* is also that of .*image 10"),
    "category ids": (lambda c: _set(c, "categories", 1, id=7), "categories need ids that differ"),
    "no list": (lambda c: c.pop("annotations"), "a list 'annotations' of objects is needed"),
    "no images": (lambda c: c.update(images=[], annotations=[]), "no box that counts|lists no images"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_annotations_are_refused_by_file_and_id(case: str, tmp_path: Path) -> None:
    write_coco(tmp_path, _content())
    content = _content()
    change, message = WRONG[case]
    change(content)
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as raised:
        _data(tmp_path).read(tmp_path)
    assert str(tmp_path / "annotations.json") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bad_boxes_can_be_left_out(tmp_path: Path) -> None:
    content = _content()
    _set(content, "annotations", 0, bbox=[0, 0, 0, 5])
    _set(content, "annotations", 2, bbox=[30, 0, 20, 5])
    write_coco(tmp_path, content)
    assert [len(label) for label in _data(tmp_path, strict=False).read(tmp_path).labels] == [1, 0, 1]


def test_boxes_may_reach_beyond_the_image_by_a_rounding_error(tmp_path: Path) -> None:
    content = _content()
    _set(content, "annotations", 0, bbox=[-0.4, 0, 40.9, 20])
    write_coco(tmp_path, content)
    assert _data(tmp_path).read(tmp_path).labels[0][0, 0] == pytest.approx(-0.2)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    write_coco(tmp_path, _content())
    path = tmp_path / "images" / "1.png"
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"image 11: .*1.png cannot be decoded as an image"):
        _data(tmp_path).read(tmp_path)
    write_coco(tmp_path, _content())
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=re.escape(f"{path} cannot be decoded as an image")):
        _data(tmp_path).read(tmp_path)


def test_files_that_are_no_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        _data(tmp_path).read(tmp_path)
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(InputError, match="is damaged, or not a JSON file of COCO's format"):
        _data(tmp_path).read(tmp_path)
    with pytest.raises(ConfigError, match=r"task\.root must be given"):
        _data(tmp_path).read(None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": [20]}, r"task.data.size must be \[height, width\]"),
        ({"resize": "crop"}, "task.data.resize must be one of letterbox, corner, stretch"),
        ({"channels": 2}, "task.data.channels must be 1 or 3"),
        ({"fill": 300}, "task.data.fill must lie in 0..255"),
        ({"n_images": 0}, "task.data.n_images must be at least 1"),
        ({"class_ids": [7, 9]}, "has no category 9, but 3, 7"),
        ({"class_ids": [7, 7]}, "names category 7 twice"),
        ({"mean": [0.1, 0.2]}, r"task\.data\.mean has 2 values"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, message: str, tmp_path: Path) -> None:
    write_coco(tmp_path, _content())
    with pytest.raises(ConfigError, match=message):
        _data(tmp_path, **settings).read(tmp_path)
