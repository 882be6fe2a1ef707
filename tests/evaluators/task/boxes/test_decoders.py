"""Decoders read boxes that were written in their formats."""

import pickle
from typing import Any

import numpy as np
import pytest

from evaluators.task.boxes.decoded import DecodedBoxes
from evaluators.task.boxes.decoder import Decoding
from evaluators.task.boxes.grid import GridHead
from evaluators.task.boxes.yolo import YoloHead
from spaces.errors import ConfigError, InputError

CORNERS = np.array([[[2, 4, 10, 20], [30, 10, 40, 30], [0, 0, 1, 1]]], np.float32)
SCORES = np.array([[0.5, 0.9, 0.0]], np.float32)
CLASSES = np.array([[3, 1, 0]], np.float32)


def _named(boxes: Any = CORNERS, scores: Any = SCORES, classes: Any = CLASSES) -> dict[str, Any]:
    return {"b": boxes, "s": scores, "c": classes}


NAMES = {"boxes": "b", "scores": "s", "classes": "c"}


def _assert_two(found: Any, classes: tuple[int, int] = (1, 3)) -> None:
    assert len(found) == 1
    np.testing.assert_allclose(found[0].boxes, [[30, 10, 40, 30], [2, 4, 10, 20]], rtol=1e-5)
    np.testing.assert_allclose(found[0].scores, [0.9, 0.5], rtol=1e-6)
    assert found[0].classes.tolist() == list(classes)


def test_three_outputs() -> None:
    decoder = DecodedBoxes(**NAMES)
    assert decoder.names == ("b", "s", "c")
    _assert_two(decoder.decode(_named()))


def test_one_output_of_six_columns() -> None:
    rows = np.concatenate([CORNERS, SCORES[..., None], CLASSES[..., None]], axis=2)
    _assert_two(DecodedBoxes().decode({"anything": rows}))


def test_shares_of_the_input_and_other_corners() -> None:
    yxyx = CORNERS[..., [1, 0, 3, 2]] / np.array([50, 100, 50, 100])
    _assert_two(DecodedBoxes(**NAMES, format="yxyx", size=[50, 100]).decode(_named(yxyx)))
    sides = CORNERS[..., 2:] - CORNERS[..., :2]
    xywh = np.concatenate([CORNERS[..., :2], sides], axis=2)
    _assert_two(DecodedBoxes(**NAMES, format="xywh").decode(_named(xywh)))
    centres = np.concatenate([CORNERS[..., :2] + sides / 2, sides], axis=2)
    _assert_two(DecodedBoxes(**NAMES, format="cxcywh").decode(_named(centres)))


def test_background_is_left_out_and_classes_start_at_one() -> None:
    background = np.array([[4, 2, 0]])
    _assert_two(DecodedBoxes(**NAMES, first_class=1).decode(_named(classes=background)))
    found = DecodedBoxes(**NAMES, first_class=2).decode(_named())
    assert found[0].classes.tolist() == [1]


def test_scores_for_each_class() -> None:
    scores = np.zeros((1, 3, 4), np.float32)
    scores[0, 0, 3], scores[0, 1, 1] = 0.5, 0.9
    _assert_two(DecodedBoxes(boxes="b", scores="s").decode(_named(scores=scores)))


def test_suppression_of_decoded_boxes() -> None:
    twice = np.repeat(CORNERS[:, :1], 3, axis=1)
    same = _named(twice, np.array([[0.5, 0.9, 0.7]]), np.array([[1, 1, 2]]))
    assert DecodedBoxes(**NAMES, iou=0.5).decode(same)[0].scores.tolist() == [0.9, 0.7]


def _yolo_rows() -> np.ndarray:
    rows = np.zeros((1, 4 + 4, 3), np.float32)
    rows[0, :4] = np.concatenate(
        [(CORNERS[0, :, :2] + CORNERS[0, :, 2:]) / 2, CORNERS[0, :, 2:] - CORNERS[0, :, :2]], 1
    ).T
    rows[0, 4 + 3, 0], rows[0, 4 + 1, 1] = 0.5, 0.9
    return rows


def test_yolo_head() -> None:
    rows = _yolo_rows()
    decoder = YoloHead()
    _assert_two(decoder.decode({"output0": rows}))
    assert decoder.n_classes({"output0": rows}) == 4
    _assert_two(YoloHead(boxes_first=True).decode({"output0": rows.transpose(0, 2, 1)}))
    with_presence = np.insert(rows, 4, 0.5, axis=1)
    with_presence[:, 5:] *= 2
    _assert_two(YoloHead(objectness=True).decode({"output0": with_presence}))


def test_yolo_suppresses_within_a_class_only() -> None:
    rows = np.repeat(_yolo_rows()[:, :, :1], 3, axis=2)
    rows[0, 4:] = np.array([[0.6, 0.7, 0], [0.2, 0, 0], [0, 0, 0], [0, 0, 0.3]])
    found = YoloHead(iou=0.5).decode({"output0": rows})[0]
    assert list(zip(found.classes.tolist(), found.scores.round(3).tolist(), strict=True)) == [
        (0, 0.7),
        (3, 0.3),
        (1, 0.2),
    ]
    found = YoloHead(iou=0.5, several_classes=False).decode({"output0": rows})[0]
    assert found.classes.tolist() == [0, 3]


def test_grid_head() -> None:
    head = np.full((1, 5 + 3, 4, 8), -20.0, np.float32)
    head[0, :, 2, 5] = [2.0, 0.0, 0.0, np.log(2), np.log(3), 1.0, 30.0, 2.0]
    found = GridHead(stride=10).decode({"grid": head})
    assert found[0].classes.tolist() == [1]
    np.testing.assert_allclose(found[0].boxes, [[45, 10, 65, 40]], rtol=1e-6)
    np.testing.assert_allclose(found[0].scores, 1 / (1 + np.exp(-2)), rtol=1e-6)
    assert GridHead().n_classes({"grid": head}) == 3


def test_infinite_looking_outputs_of_a_damaged_network_stay_finite() -> None:
    found = GridHead().decode({"grid": np.full((1, 7, 2, 2), 1e6, np.float32)})
    assert np.isfinite(found[0].boxes).all()


@pytest.mark.parametrize(
    ("decoder", "outputs", "message"),
    [
        (DecodedBoxes(), {"o": np.zeros((1, 3, 7))}, r"\(1, 3, 7\), but the decoder takes \(n, m, 6\)"),
        (DecodedBoxes(), {"o": np.zeros((1, 3))}, r"the output o has shape \(1, 3\)"),
        (DecodedBoxes(**NAMES), {"b": CORNERS, "s": SCORES}, "names the output 'c', but there are b, s"),
        (DecodedBoxes("b", "s"), _named(), r"scores must be \(n, m, n_classes\)"),
        (DecodedBoxes(**NAMES), _named(scores=SCORES[:, :2]), "do not fit"),
        (YoloHead(), {"o": np.zeros((1, 4, 9))}, r"takes \(n, 4 \+ n_classes, m\)"),
        (YoloHead(), _named(), "takes one output"),
        (GridHead(), {"o": np.zeros((1, 5, 2, 2))}, "takes"),
    ],
)
def test_outputs_of_another_shape_are_refused(decoder: Any, outputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decoder.decode(outputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DecodedBoxes(boxes="b"), "both"),
        (lambda: DecodedBoxes(format="cxywh"), "format must be one of"),  # type: ignore[arg-type]
        (lambda: DecodedBoxes(size=[3]), "size must be"),
        (lambda: YoloHead(iou=1.5), r"task.decoder.iou must lie in 0..1"),
        (lambda: YoloHead(candidates=0), "candidates must be at least 1"),
        (lambda: GridHead(stride=0), "stride must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_batch_is_decoded_once() -> None:
    class Counting(GridHead):
        n = 0

        def decode(self, outputs: Any) -> Any:
            self.n += 1
            return super().decode(outputs)

    decoder = Counting()
    decoding, batch = Decoding(decoder), np.zeros((2, 7, 2, 2), np.float32)
    assert decoding(batch) is decoding(batch)
    assert decoder.n == 1
    decoding(batch.copy())
    assert decoder.n == 2
    assert len(pickle.loads(pickle.dumps(Decoding(GridHead())))(batch)) == 2
