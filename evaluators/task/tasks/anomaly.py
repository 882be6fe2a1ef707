"""Anomaly detection by an autoencoder: what it was not trained on, it reproduces worse."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data, Examples
from evaluators.task.data.named_split import NamedSplit
from evaluators.task.data.reconstruction_split import ReconstructionSplit
from evaluators.task.data.splits import carve, mixed
from evaluators.task.metrics.anomaly.reconstruction import ReconstructionAUC
from evaluators.task.metrics.numbers.r2 import R2
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import Indices


class AnomalyTask(DataTask):
    """Finds anomalies by the error with which an autoencoder reproduces its input. Labels are whole numbers, `(n,)`.

    Train and calibration splits have normal examples only; anomalies are divided between validation and test in proportion to
    their sizes, which count normal examples. Groups of the data are clips, such as the windows of one recording: a clip is in
    one split, has one error, the mean over its examples, and sizes count clips. Agreement is R2 with the float model's outputs as
    labels.

    Args:
        data: The loader.
        anomalies: Labels that count as anomalies; all others are normal.
        max_fpr: Highest false positive rate of the partial area under the curve.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "auc": ReconstructionAUC, "partial_auc": partial(ReconstructionAUC, max_fpr=0.1)
    }  # fmt: skip
    loss = "reconstruction"

    def __init__(
        self, data: Data, anomalies: Sequence[int] = (1,), max_fpr: float = 0.1, **settings: Any
    ) -> None:
        super().__init__(data, **settings)
        if not anomalies or not 0 < max_fpr < 1:
            raise ConfigError(
                "task.anomalies must list at least one label, and task.max_fpr lie between 0 and 1, not "
                f"anomalies={list(anomalies)}, max_fpr={max_fpr}"
            )
        self._anomalies, self._max_fpr = np.asarray(anomalies), max_fpr
        self.agreement = R2("agreement")

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric; the partial area is that up to `max_fpr`."""
        return factory(max_fpr=self._max_fpr) if isinstance(factory, partial) else factory()

    def labelled(self, examples: Examples) -> Examples:
        """Returns the examples with flag, clip and input as labels.

        Raises:
            InputError: A label is no whole number, there are several inputs, or a clip has examples of both kinds.
        """
        if isinstance(examples.split, NamedSplit):
            raise InputError(
                f"{examples.folder}: an autoencoder takes one input, but there are {', '.join(examples.split.parts)}"
            )
        heads = self.checked(examples)
        return replace(examples, split=ReconstructionSplit(examples.split, heads))

    def checked(self, examples: Examples) -> NDArray[np.float32]:
        """Returns flag and clip of each example, `(n, 2)` float32. Raises InputError as `labelled` does."""
        labels = examples.labels
        if labels.dtype.kind not in "iub" or labels.shape not in ((len(labels),), (len(labels), 1)):
            raise InputError(
                f"{examples.folder}: labels must be whole numbers (n,), not {labels.dtype} of shape {labels.shape}"
            )
        flags = np.isin(labels.reshape(-1), self._anomalies)
        _check_kinds(flags, examples, self._anomalies.tolist())
        if examples.groups is None:
            clips = np.full(len(flags), -1)
        else:
            clips = np.unique(examples.groups, return_inverse=True)[1].reshape(-1)
            _check_clips(flags, clips, examples)
        return np.stack([flags, clips], axis=1).astype(np.float32)

    def classes_of(self, examples: Examples) -> Indices | None:
        """Returns None: normal examples and anomalies are divided each by themselves."""
        return None

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has another size than the input."""
        inputs, _ = next(iter(self._examples.split.batches(1, 1)))
        wanted = np.asarray(inputs).size
        if output.ndim and len(output) == n and output.size == n * wanted:
            return None
        return f"the model yields {output.shape} for {n} examples, but an autoencoder yields as many values as its input, {wanted}"

    def _divided(self, examples: Examples) -> dict[str, Indices]:
        """Divides normal examples as they are asked for, and the anomalies between validation and test."""
        assert isinstance(examples.split, ReconstructionSplit)
        flags = examples.split.heads[:, 0] > 0
        fixed = dict(examples.parts or {})
        _check_fixed(flags, fixed, examples)
        normal = np.flatnonzero(~flags)
        parts = {name: normal[rows] for name, rows in super()._divided(_subset(examples, normal)).items()}
        fixed_rows = np.concatenate([*fixed.values(), np.empty(0, np.int64)])
        free = np.setdiff1d(np.flatnonzero(flags), fixed_rows)
        for name, rows in self._shared(free, parts, examples.groups, list(fixed)).items():
            parts[name] = np.concatenate([parts[name], rows])
        parts |= fixed
        # any contiguous run of a part is to have both kinds, and all clips, in proportion
        column = 0 if examples.groups is None else 1
        kinds = examples.split.heads[:, column].astype(np.int64)
        parts = {n: p if n in fixed else mixed(p, kinds, self._split_seed) for n, p in parts.items()}
        for name in ("validation", "test"):
            if not flags[parts[name]].any() or flags[parts[name]].all():
                raise InputError(
                    f"{examples.folder}: the {name} split has {int(flags[parts[name]].sum())} anomalies among "
                    f"{len(parts[name])} examples; examples of both kinds are needed"
                )
        return parts

    def _shared(
        self, free: Indices, parts: Mapping[str, Indices], groups: NDArray[Any] | None, fixed: Sequence[str]
    ) -> dict[str, Indices]:
        """Returns the anomalies of validation and test, of those that the data put in no split."""
        takers = [name for name in ("test", "validation") if name not in fixed]
        if not takers or not len(free):
            return {}
        own = np.arange(len(free)) if groups is None else np.unique(groups[free], return_inverse=True)[1]
        units = own.reshape(-1)
        n = int(units.max()) + 1
        if n == 1 or len(takers) == 1:
            return {takers[-1]: free}
        share = len(parts["test"]) / (len(parts["test"]) + len(parts["validation"]))
        n_test = min(max(1, round(share * n)), n - 1)
        chosen = carve(n, {"test": n_test, "validation": None}, None, self._split_seed)
        return {name: free[np.isin(units, numbers)] for name, numbers in chosen.items()}


def _subset(examples: Examples, rows: Indices) -> Examples:
    """Returns some of the examples, with the splits that the data fix."""
    number = np.full(len(examples.split), -1)
    number[rows] = np.arange(len(rows))
    parts = {name: number[part][number[part] >= 0] for name, part in (examples.parts or {}).items()}
    return Examples(
        examples.split.subset(rows),
        None if examples.groups is None else examples.groups[rows],
        [examples.place(row) for row in rows.tolist()],
        parts,
        examples.folder,
    )


def _check_kinds(flags: NDArray[np.bool_], examples: Examples, anomalies: Sequence[int]) -> None:
    if flags.all() or not flags.any():
        raise InputError(
            f"{examples.folder}: {int(flags.sum())} of {len(flags)} examples are anomalies (task.anomalies={list(anomalies)}); "
            "examples of both kinds are needed"
        )


def _check_clips(flags: NDArray[np.bool_], clips: Indices, examples: Examples) -> None:
    first = np.unique(clips, return_index=True)[1]
    odd = np.flatnonzero(flags != flags[first][clips])
    if len(odd):
        row = int(odd[0])
        kinds = ("an anomaly", "normal") if flags[row] else ("normal", "an anomaly")
        assert examples.groups is not None
        raise InputError(
            f"{examples.place(row)} is {kinds[0]}, but its clip {examples.groups[row]} begins with one that is {kinds[1]} "
            f"({examples.place(int(first[clips[row]]))}); a clip is of one kind"
        )


def _check_fixed(flags: NDArray[np.bool_], fixed: Mapping[str, Indices], examples: Examples) -> None:
    for name in ("train", "calibration"):
        rows = fixed.get(name, np.empty(0, np.int64))
        if flags[rows].any():
            row = int(rows[flags[rows]][0])
            raise InputError(
                f"{examples.place(row)} is an anomaly in the {name} split, which has normal examples only"
            )
