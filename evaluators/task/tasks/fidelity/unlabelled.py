"""Examples without labels: a network is judged by how close its outputs stay to the uncompressed network's."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.runtime import joined, rollout_of, run_batches
from evaluators.task.data.data import Data, Examples, labelled
from evaluators.task.metrics.fidelity.of_classes import FidelityOfClasses
from evaluators.task.metrics.fidelity.of_values import FidelityOfValues
from evaluators.task.tasks.data_task import DataTask
from evaluators.task.tasks.task import Splits
from spaces.errors import ConfigError, InputError
from spaces.stages.artifact import Artifact, Split

Compared = Literal["classes", "values"]
_METRICS: Mapping[Compared, Callable[[], Metric]] = {"classes": FidelityOfClasses, "values": FidelityOfValues}
_LOSSES: Mapping[Compared, str] = {"classes": "cross_entropy", "values": "squared"}
_SAID: Mapping[Compared, str] = {
    "classes": "is the share of largest outputs that are the uncompressed network's",
    "values": "is the share of the variance of the uncompressed network's outputs that is reproduced (99 % are 20 dB)",
}
_BATCH_SIZE = 64


class UnlabelledTask(DataTask):
    """Judges networks by the uncompressed one, whose outputs on the examples become the labels.

    The metric is `fidelity`, in per cent: 100 for the uncompressed network, whatever its accuracy. A network that errs where
    the uncompressed one does is as good; one that corrects it is worse.

    Args:
        data: The loader; labels that it reads are not used.
        compared: `classes`: the largest along the outputs' second axis, `(n, n_classes, ...)`; `values`: all numbers. None takes classes
            if each row of the outputs `(n, n_classes)` is of probabilities that sum to 1.
        output: Name of the model's output that is compared; None takes the first.
        **settings: Those of `DataTask`.

    Raises:
        ConfigError: `compared` is neither, or there are several outputs.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {"fidelity": FidelityOfValues}

    def __init__(
        self, data: Data, compared: Compared | None = None, output: str | None = None, **settings: Any
    ) -> None:
        if compared is not None and compared not in _METRICS:
            raise ConfigError(f"task.compared must be classes, values or null, not {compared!r}")
        if not isinstance(output, str | None):
            raise ConfigError(
                f"task.output must name one output, not {list(output)}: its values are compared"
            )
        super().__init__(data, output=output, **settings)
        self._compared = compared

    @property
    def loss(self) -> str | None:  # type: ignore[override]
        """The loss for the labels, once it is known what they are."""
        return None if self._compared is None else _LOSSES[self._compared]

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns the metric of what is compared."""
        return factory() if self._compared is None else _METRICS[self._compared]()

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns labels that say that there are none."""
        return np.full(len(examples.split), -1, np.int64)

    def labelled_by(self, reference: Artifact, splits: Splits, *, trains: bool) -> Splits:
        """Returns the splits with the outputs of the uncompressed network as labels: classes `(n, ...)`, or values `(n, ...)`.

        Raises:
            InputError: Classes are to be compared, but there is one output only.
        """
        outputs = {
            field.name: _outputs(reference, split)
            for field in fields(splits)
            if len(split := getattr(splits, field.name)) and (trains or field.name != "train")
        }
        validation = outputs["validation"]
        if self._compared is None:
            self._compared = "classes" if _are_probabilities(validation) else "values"
        if self._compared == "classes" and (validation.ndim < 2 or validation.shape[1] < 2):
            raise InputError(
                f"task.compared=classes needs an output for each class, but the network yields {validation.shape} for "
                f"{len(validation)} examples; task.compared=values takes outputs as numbers"
            )
        return replace(
            splits, **{name: labelled(getattr(splits, name), self._labels(o)) for name, o in outputs.items()}
        )

    def notes(self) -> tuple[str, ...]:
        """Returns what the metric is."""
        if self._compared is None:
            return ()
        other = "values" if self._compared == "classes" else "classes"
        return (
            f"there are no labels: fidelity is no accuracy, it {_SAID[self._compared]}; task.compared={other} compares {other}",
        )

    def _labels(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        return outputs.argmax(axis=1) if self._compared == "classes" else outputs


def _outputs(reference: Artifact, split: Split) -> NDArray[np.float32]:
    batches = run_batches(
        reference, lambda size: split.batches(size), _BATCH_SIZE, threads=1, rollout=rollout_of(split)
    )
    return np.asarray(joined(list(batches))[0])


def _are_probabilities(outputs: NDArray[np.float32]) -> bool:
    return bool(
        outputs.ndim == 2
        and outputs.shape[1] > 1
        and (outputs >= 0).all()
        and np.allclose(outputs.sum(axis=1), 1.0, atol=1e-3)
    )
