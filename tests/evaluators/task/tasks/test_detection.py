"""The detection task: conformance, labels that are refused, outputs that do not fit, agreement."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.metric import Outputs
from evaluators.task.boxes.decoded import DecodedBoxes
from evaluators.task.boxes.decoder import Decoder, Decoding
from evaluators.task.boxes.grid import GridHead
from evaluators.task.boxes.labels import box_labels
from evaluators.task.boxes.yolo import YoloHead
from evaluators.task.data.boxes.digit_mosaics import DigitMosaics
from evaluators.task.data.data import Data, Examples
from evaluators.task.metrics.boxes.same_boxes import SameBoxes
from evaluators.task.statistics.scores import statistics_of, value_of
from evaluators.task.tasks.detection import DetectionTask
from evaluators.task.tasks.task import Splits, Task
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit, ragged


def _mosaics() -> DigitMosaics:
    return DigitMosaics(train=10, calibration=5, validation=30, test=10)


def _rows(label: np.ndarray, n: int = 5) -> np.ndarray:
    """Returns right detections `(n, 6)` of one image; the rest is padding."""
    rows = np.zeros((n, 6), np.float32)
    of_label = box_labels(label)
    rows[: len(label)] = np.concatenate(
        [of_label.boxes, np.full((len(label), 1), 0.9), of_label.classes[:, None]], axis=1
    )
    return rows


class TestDetection(TaskConformance):
    @pytest.fixture
    def task(self) -> Task:
        return DetectionTask(_mosaics(), DecodedBoxes())

    def outputs(self, task: Task, splits: Splits) -> Outputs:
        return np.stack([_rows(label) for label in splits.validation.labels])  # type: ignore[attr-defined]


def test_right_boxes_have_full_marks_and_the_metrics_their_names() -> None:
    task = DetectionTask(_mosaics(), DecodedBoxes(), metric="map50")
    labels = task.splits().validation.labels  # type: ignore[attr-defined]
    outputs = np.stack([_rows(label) for label in labels])
    metrics = (task.metric, *task.others, task.agreement)
    assert [(m.name, m.unit) for m in metrics] == [("map50", "%"), ("map", "%"), ("agreement", "%")]
    for metric in metrics[:2]:
        assert value_of(metric, statistics_of(metric, outputs, labels)) == 100
    assert value_of(metrics[2], statistics_of(metrics[2], outputs, outputs)) == 100


class _Given(Data):
    """Labels that are given."""

    def __init__(self, *labels: Any) -> None:
        self._labels = labels

    def read(self, root: Path | None) -> Examples:
        x = np.arange(len(self._labels) * 4, dtype=np.float32).reshape(-1, 1, 2, 2)
        where = [f"file.json, image {row}" for row in range(len(x))]
        return Examples(ArraySplit(x, ragged(self._labels)), where=where, folder="file.json")


BOX = [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([[0, 0, 1]], r"file.json, image 1: a label must be boxes \(m, 6\)"),
        (["box"], "image 1: a label must be boxes"),
        ([[*BOX, 0], [0, 0, 0, 1, 0]], r"image 1: box 1, \[0.0, 0.0, 0.0, 1.0, 0.0, 0.0\], has no area"),
        ([[*BOX, -1]], "image 1: box 0, .* has a class that is no whole number"),
        ([[*BOX, 0.5]], "has a class that is no whole number"),
        ([[*BOX, 0, 3]], r"must be 0 \(counts\), 1 \(ignored\) or 2 \(crowd\)"),
        ([[0, 0, np.inf, 1, 0]], "is not finite"),
    ],
)
def test_wrong_labels_are_refused_by_image(label: Any, message: str) -> None:
    task = DetectionTask(_Given([[*BOX, 0]], label), DecodedBoxes())
    with pytest.raises(InputError, match=message):
        task.splits()


def test_images_without_any_box_are_refused() -> None:
    nothing = np.empty((0, 5))
    with pytest.raises(InputError, match="no image has a box that counts"):
        DetectionTask(_Given(nothing, [[*BOX, 0, 2]]), DecodedBoxes()).splits()


def test_splits_have_rare_classes_in_proportion() -> None:
    labels = [[[*BOX, 0], [*BOX, int(row % 10 == 0)]] for row in range(100)]
    splits = DetectionTask(_Given(*labels), DecodedBoxes(), validation=30, test=30).splits()
    for split in (splits.validation, splits.test):
        assert 2 <= sum((label[:, 4] == 1).any() for label in split.labels) <= 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("decoder", "output", "message"),
    [
        (
            GridHead(),
            np.zeros((4, 10)),
            r"task.decoder cannot read the model's output: the output output has shape \(4, 10\)",
        ),
        (YoloHead(), np.zeros((4, 4 + 9, 7)), "the model tells 9 classes apart, but the labels have 10"),
        (YoloHead(), np.zeros((3, 4 + 10, 7)), r"the model yields \(3, 14, 7\) for 4 images"),
        (YoloHead(), np.zeros((4, 4 + 10, 7)), None),
    ],
)
def test_outputs_that_do_not_fit_are_explained(decoder: Decoder, output: Any, message: str | None) -> None:
    reason = DetectionTask(_mosaics(), decoder).misfit(output, 4)
    assert (reason is None) == (message is None)
    assert re.search(message or "", reason or "")


def test_the_decoder_names_the_outputs() -> None:
    decoder = DecodedBoxes(boxes="b", scores="s", classes="c")
    assert DetectionTask(_mosaics(), decoder).output == ["b", "s", "c"]
    assert DetectionTask(_mosaics(), decoder, output="one").output == "one"
    assert DetectionTask(_mosaics(), GridHead()).output is None


def test_wrong_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"task\.decoder must name a decoder"):
        DetectionTask(_mosaics(), "yolo")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"task\.most must be at least 1"):
        DetectionTask(_mosaics(), GridHead(), most=0)
    with pytest.raises(ConfigError, match=r"unknown metric|metric"):
        DetectionTask(_mosaics(), GridHead(), metric="map75")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs the package `pycocotools`: pip install 'paredown\[detection\]'"
    ):
        DetectionTask(_mosaics(), GridHead())


def test_agreement_counts_boxes_that_both_find() -> None:
    one = np.zeros((2, 4, 6), np.float32)
    one[0, :3] = [[0, 0, 10, 10, 0.9, 1], [20, 0, 30, 10, 0.8, 2], [40, 0, 50, 10, 0.1, 2]]
    other = one.copy()
    other[0, 0, 2] = 15  # an overlap of 2/3
    other[0, 1, 5] = 3  # another class
    other[0, 3] = [0, 0, 9, 10, 0.5, 1]  # a second box for the first
    metric = SameBoxes(Decoding(DecodedBoxes()), Decoding(DecodedBoxes()), 0.3)
    statistics = metric.statistics(one, other)
    assert statistics.tolist() == [[1, 2 + 3], [0, 0]]
    assert metric.pooled(statistics, np.ones(2)) == pytest.approx(2 / 5)
    assert metric.pooled(statistics, np.array([0.0, 1.0])) == 1
    weights = np.array([3.0, 2.0])
    repeated = statistics[[0, 0, 0, 1, 1]]
    assert metric.pooled(statistics, weights) == metric.pooled(repeated, np.ones(5))


def test_ragged_labels_survive_new_labels() -> None:
    examples = _Given([[*BOX, 0]], [[*BOX, 1], [*BOX, 2]]).read(None)
    assert replace(examples).labels[1].shape == (2, 5)
