"""Transcripts by connectionist temporal classification (CTC): sequences of symbols that are not aligned with the steps."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data, Examples
from evaluators.task.metrics.sequences.decoding import check_extra, transcripts
from evaluators.task.metrics.sequences.error_rate import ErrorRate, SameTranscripts
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import ConfigError, InputError
from spaces.task_losses import IGNORED

SYMBOLS, WORDS = "symbol_error_rate", "word_error_rate"


class TranscriptsTask(DataTask):
    """Reads symbols from the outputs of a CTC network, by the largest output of each step.

    Labels are texts `(n,)` over `alphabet`; or numbers of symbols in the alphabet, `(n, most)` with -1 behind the last one, or
    `(n,)` objects, an array each. Agreement is 1 minus the error rate between both models' symbols.

    Args:
        data: The loader.
        alphabet: The symbols, in the order of the model's outputs, without the blank; a text, or a list of texts.
        blank: Whether the blank is the first or the last output.
        time_first: Whether outputs are `(steps, n, classes)`; else they are `(n, steps, classes)`.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {SYMBOLS: ErrorRate, WORDS: ErrorRate}

    def __init__(
        self,
        data: Data,
        alphabet: str | Sequence[str],
        blank: Literal["first", "last"] = "first",
        time_first: bool = False,
        **settings: Any,
    ) -> None:
        self._symbols = [str(symbol) for symbol in alphabet]
        twice = next((s for s in self._symbols if self._symbols.count(s) > 1), None)
        if twice is not None or not self._symbols:
            raise ConfigError(
                f"task.alphabet must list different symbols, but has {twice!r} twice"
                if twice
                else "task.alphabet is empty"
            )
        if blank not in ("first", "last"):
            raise ConfigError(f"task.blank must be first or last, not {blank!r}")
        if settings.get("also") is None:
            settings = {**settings, "also": self._others(settings.get("metric"))}
        super().__init__(data, **settings)
        check_extra()
        self._first, self._blank = (1, 0) if blank == "first" else (0, -1)
        self.loss = "ctc" if blank == "first" else "ctc_last"
        self.output_batch_axis = 1 if time_first else 0
        self.agreement = SameTranscripts(self._blank)
        if WORDS in (self._metric, *self._also) and " " not in self._symbols:
            raise ConfigError(f"task.metric={WORDS} needs a space in task.alphabet, which separates words")

    def _others(self, metric: Any) -> list[str]:
        names = [SYMBOLS, *([WORDS] if " " in self._symbols else [])]
        return [name for name in names if name != (metric or SYMBOLS)]

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        """Number of symbols, and the blank."""
        return len(self._symbols) + 1

    def _named(self, metric: Any) -> Metric:
        if metric == WORDS:
            return ErrorRate(self._blank, self._first + self._symbols.index(" "))
        return ErrorRate(self._blank) if metric == SYMBOLS else super()._named(metric)

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the transcripts as classes of the outputs, `(n, most)` int64, with -1 behind the last symbol.

        Raises:
            InputError: A symbol is not in the alphabet, or no transcript has a symbol.
        """
        labels = examples.labels
        is_list = labels.dtype.kind in "UO" and labels.ndim == 1
        if not is_list and not (labels.dtype.kind in "iu" and labels.ndim == 2):
            raise InputError(
                f"{examples.folder}: transcripts must be texts (n,), or numbers of symbols (n, most) with -1 behind the last, not "
                f"{labels.dtype} of shape {labels.shape}"
            )
        rows = [self._classes(label, examples, row) for row, label in enumerate(labels)]
        most = max(len(row) for row in rows)
        if not most:
            raise InputError(f"{examples.folder}: no transcript has a symbol")
        padded = np.full((len(rows), most), IGNORED, np.int64)
        for row, classes in enumerate(rows):
            padded[row, : len(classes)] = classes
        return padded

    def _classes(self, label: Any, examples: Examples, row: int) -> list[int]:
        """Returns the classes of a transcript's symbols."""
        if isinstance(label, str):
            unknown = next((symbol for symbol in label if symbol not in self._symbols), None)
            if unknown is not None:
                raise InputError(
                    f"{examples.place(row)}: {unknown!r} in {label[:60]!r} is not in task.alphabet ({self._listed()})"
                )
            return [self._first + self._symbols.index(symbol) for symbol in label]
        numbers = np.asarray(label)
        if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iu"):
            raise InputError(
                f"{examples.place(row)}: a transcript must be a text or numbers (length,), not {numbers.dtype} of shape {numbers.shape}"
            )
        ends = np.flatnonzero(numbers == IGNORED)
        symbols = numbers[: ends[0]] if len(ends) else numbers
        rest = numbers[len(symbols) :]
        bad = [*symbols[(symbols < 0) | (symbols >= len(self._symbols))], *rest[rest != IGNORED]]
        if bad:
            raise InputError(
                f"{examples.place(row)}: the symbol {bad[0]} is not one of the {len(self._symbols)} of task.alphabet, 0 to "
                f"{len(self._symbols) - 1}, or stands behind a -1"
            )
        return [self._first + int(symbol) for symbol in symbols]

    def _listed(self) -> str:
        return ", ".join(repr(symbol) for symbol in self._symbols)[:120]

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has too few classes, or fewer steps than a transcript needs."""
        if output.ndim != 3 or len(output) != n or output.shape[2] != self.n_classes:
            return (
                f"the model yields {output.shape} (examples first) for {n} examples, but ({n}, steps, {self.n_classes}) are needed: one "
                "class for each symbol of task.alphabet, and the blank; task.time_first=true is for outputs (steps, n, classes)"
            )
        # equal neighbours need a blank between them
        needed = [len(s) + sum(a == b for a, b in pairwise(s)) for s in transcripts(self._examples.labels)]
        row = int(np.argmax(needed))
        if needed[row] <= output.shape[1]:
            return None
        return f"the model yields {output.shape[1]} steps, but {self._examples.place(row)} has a transcript that needs {needed[row]}"
