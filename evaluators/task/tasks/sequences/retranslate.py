"""Re-translation: a network says anew what all steps are whenever a sequence has grown, and may take back what it said."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from evaluators.metric import Metric
from evaluators.task.data.data import Data
from evaluators.task.data.prefix_split import HYPOTHESES, LAST, PrefixSplit
from evaluators.task.metrics.of_output import OfOutput
from evaluators.task.metrics.sequences.erasure import Erasure
from evaluators.task.metrics.sequences.macro_f1 import MacroF1
from evaluators.task.metrics.sequences.token_accuracy import SameTokens, TokenAccuracy
from evaluators.task.tasks.sequences.step_classes import StepClassesTask
from evaluators.task.tasks.task import Splits
from spaces.errors import ConfigError, InputError


class RetranslateTask(StepClassesTask):
    """Classifies the steps of growing sequences: the network is run on each prefix, padded to the length of all.

    Quality is that of what it says of the whole sequence; `erasure` is how much it took back until then. Networks are trained
    and calibrated with whole sequences.

    Args:
        data: The loader: inputs `(n, steps, ...)`, labels `(n, steps)`, -1 after the end of a sequence.
        every: Steps from one prefix to the next.
        held_back: Steps at the end of a prefix for which its hypothesis says nothing yet (mask-k of Arivazhagan et al. 2020, arXiv
            2004.03643): less is taken back, later.
        pad: What inputs are after the end of a prefix.
        **settings: Those of `StepClassesTask`.

    Raises:
        ConfigError: A value is out of range.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "token_accuracy": TokenAccuracy,
        "erasure": Erasure,
        "macro_f1": MacroF1,
    }

    def __init__(
        self, data: Data, every: int = 4, held_back: int = 0, pad: float = 0, **settings: Any
    ) -> None:
        super().__init__(data, **settings)
        for name, value, least in (("every", every, 1), ("held_back", held_back, 0)):
            if type(value) is not int or value < least:
                raise ConfigError(f"task.{name} must be a whole number from {least} on, not {value!r}")
        self._every, self._held_back, self._pad = every, held_back, pad
        self.agreement = OfOutput(SameTokens(), LAST)

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric of the last hypotheses, or of all."""
        return OfOutput(super().made(factory), HYPOTHESES if factory is Erasure else LAST)  # type: ignore[arg-type]

    def splits(self) -> Splits:
        """Loads the data and returns the four disjoint splits; validation and test are run prefix by prefix.

        Raises:
            InputError: A file is missing, damaged or of another format, a label is wrong, or an input's first axis is not the steps.
            ConfigError: More examples are asked for than there are, or a prefix is longer than sequences.
        """
        found = super().splits()
        self._check_steps()
        return replace(found, validation=self._growing(found.validation), test=self._growing(found.test))

    def _growing(self, split: Any) -> PrefixSplit:
        return PrefixSplit(split, self._every, self._held_back, self._pad)

    def _check_steps(self) -> None:
        """Raises an error if there are no prefixes of the inputs."""
        steps = self._examples.labels.shape[1]
        if self._every >= steps:
            raise ConfigError(
                f"task.every={self._every}, but sequences have {steps} steps: it must be less, or there are no prefixes"
            )
        shapes = self.input_shape
        for shape in shapes.values() if isinstance(shapes, Mapping) else (shapes,):
            if shape[:1] != (steps,):
                raise InputError(
                    f"{self._examples.folder}: labels have {steps} steps, but an input is of shape {shape}; its first axis must "
                    "be the steps, so that it can be cut"
                )
