"""Detection: each image has boxes with classes as its label."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.boxes.decoder import Decoder, Decoding, by_name
from evaluators.task.boxes.labels import CROWD
from evaluators.task.data.data import Data, Examples
from evaluators.task.metrics.boxes.matching import check_pycocotools
from evaluators.task.metrics.boxes.mean_average_precision import COCO_THRESHOLDS, MOST, MeanAveragePrecision
from evaluators.task.metrics.boxes.same_boxes import SameBoxes
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import Indices, ragged

THRESHOLDS = {"map": COCO_THRESHOLDS, "map50": COCO_THRESHOLDS[:1]}


class DetectionTask(DataTask):
    """Finds boxes; labels are `(m, 6)` for each image, see `evaluators.task.boxes.labels`.

    Metrics are pycocotools' mean average precision at overlaps from 0.5 to 0.95 (`map`) and at 0.5 (`map50`). Agreement is the share of
    boxes, of the same class and with an overlap of at least 0.5, that the float model finds, too (F1). No loss takes boxes, so
    recovery uses distillation only.

    Args:
        data: The loader.
        decoder: Turns the network's raw outputs into boxes.
        most: Detections of an image and class that count at most.
        answer_score: Score from which a box is an answer, for the agreement; average precision takes all.
        output: As in `DataTask`; None takes the outputs that the decoder names.
        **settings: Those of `DataTask`.

    Raises:
        ConfigError: The package `pycocotools` is missing, or a setting is wrong.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = dict.fromkeys(THRESHOLDS, MeanAveragePrecision)
    loss = None

    def __init__(
        self,
        data: Data,
        decoder: Decoder,
        most: int = MOST,
        answer_score: float = 0.3,
        output: str | Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        check_pycocotools()
        if not isinstance(decoder, Decoder):
            raise ConfigError(f"task.decoder must name a decoder in `_target_`, not {decoder!r}")
        if most < 1:
            raise ConfigError(f"task.most must be at least 1, not {most}")
        super().__init__(data, output=output or [*decoder.names] or None, **settings)
        self._decoding, self._most = Decoding(decoder), most
        self.agreement = SameBoxes(self._decoding, Decoding(decoder), answer_score)

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the labels as `(n,)` objects, `(m, 6)` float64 each.

        Raises:
            InputError: A label is no such array, a box is not finite or has no area, or a class or state is none.
        """
        labels = [_checked(label, examples.place(row)) for row, label in enumerate(examples.labels)]
        if not any((label[:, 5] == 0).any() for label in labels):
            raise InputError(f"{examples.folder}: no image has a box that counts")
        return ragged(labels)

    def strata(self, labels: NDArray[Any]) -> Indices | None:
        """Returns the rarest class of each image, plus one; 0 without boxes."""
        classes = [label[:, 4].astype(np.int64) for label in labels]
        counts = np.bincount(np.concatenate(classes))
        return np.array([c[np.argmin(counts[c])] + 1 if len(c) else 0 for c in classes], np.int64)

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has not a row for each image, or the decoder refuses it."""
        if not output.ndim or len(output) != n:
            return f"the model yields {output.shape} for {n} images"
        if not isinstance(self.output, str) and len(self.output or ()) > 1:
            return None
        decoder, outputs = self._decoding.decoder, by_name(output)
        try:
            n_found = decoder.n_classes(outputs)
            decoder.decode(outputs)
        except InputError as error:
            return f"task.decoder cannot read the model's output: {error}"
        n_classes = 1 + int(max(label[:, 4].max(initial=0) for label in self._examples.labels))
        if n_found is not None and n_found < n_classes:
            return f"the model tells {n_found} classes apart, but the labels have {n_classes}"
        return None

    def _named(self, metric: Any) -> Metric:
        if metric not in THRESHOLDS:
            return super()._named(metric)
        return MeanAveragePrecision(self._decoding, metric, THRESHOLDS[metric], self._most)


def _checked(label: Any, place: str) -> NDArray[np.float64]:
    rows = np.asarray(label)
    if rows.dtype.kind not in "iuf" or rows.ndim != 2 or rows.shape[1] not in (5, 6):
        raise InputError(
            f"{place}: a label must be boxes (m, 6): x1, y1, x2, y2, class, ignored; not {rows.dtype} of shape {rows.shape}"
        )
    found = np.zeros((len(rows), 6))
    found[:, : rows.shape[1]] = rows
    sides = found[:, 2:4] - found[:, :2]
    kinds = found[:, 4:]
    for bad, why in (
        (~np.isfinite(found).all(axis=1), "is not finite"),
        ((sides <= 0).any(axis=1), "has no area"),
        (
            (kinds < 0).any(axis=1) | (kinds != kinds.round()).any(axis=1),
            "has a class that is no whole number from 0 on",
        ),
        (found[:, 5] > CROWD, "must be 0 (counts), 1 (ignored) or 2 (crowd) in its last column"),
    ):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(f"{place}: box {row}, {found[row].tolist()}, {why}")
    return found
