"""Runs models on the first examples of a split; a run on more examples continues the run on fewer."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from evaluators.metric import Outputs
from evaluators.runtime import Batch, Batches, OutputBatch, n_not_finite, rollout_of, run_batches
from spaces.errors import EvaluationError
from spaces.stages.artifact import Artifact, Split
from spaces.stages.inputs import each, joined_inputs, n_bytes, n_rows

BLOCK = 64  # examples per batch
N_OPEN = 4  # models that stay loaded
MOST_OUTPUT_BYTES = (
    128 * 2**20
)  # of cached outputs; a model whose outputs were evicted is run from the beginning


class Prefix:
    """The first examples of a split, themselves a split.

    Args:
        split: The split.
        n_examples: How many of its examples.
    """

    def __init__(self, split: Split, n_examples: int) -> None:
        self._split, self._n_examples = split, n_examples

    def __len__(self) -> int:
        return self._n_examples

    @property
    def digest(self) -> str:
        """Digest of the examples."""
        return f"{self._split.digest}-{self._n_examples}"

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Yields the split's batches up to the end of the prefix."""
        return self._split.batches(batch_size, min(self._n_examples, limit or self._n_examples))


class PartialRuns:
    """The outputs of models on the first examples of a split, cached.

    Args:
        split: The split.
        sizes: Numbers of examples that will be requested, ascending.
        threads: onnxruntime's threads within an operator.
        exact_sums: Whether 8-bit kernels must not saturate: see `EvaluationContext.exact_sums`.
    """

    def __init__(
        self, split: Split, sizes: Sequence[int], threads: int = 1, exact_sums: bool = False
    ) -> None:
        self._prefix, self._rollout = Prefix(split, sizes[-1]), rollout_of(split)
        self._sizes, self._threads, self._exact_sums = tuple(sizes), threads, exact_sums
        self._batches = Batches()
        self._done: OrderedDict[str, list[Outputs]] = OrderedDict()
        self._open: OrderedDict[str, Iterator[OutputBatch]] = OrderedDict()

    def outputs(self, key: str, n_examples: int, build: Callable[[], Artifact]) -> Outputs:
        """Returns a model's outputs on the first examples, `(n_examples, ...)`, or by name.

        Args:
            key: Key of the model.
            n_examples: One of `sizes`.
            build: Returns the model; called if it is not loaded.

        Raises:
            StageError: The model cannot be built.
            EvaluationError: The model cannot be run, or its outputs are not finite.
        """
        done = self._done.setdefault(key, [])
        self._done.move_to_end(key)
        n_done = sum(map(n_rows, done))
        if n_done < n_examples:
            running = self._open.pop(key, None) or self._begin(build(), n_done)
            while n_done < n_examples:
                outputs, _ = next(running)
                if n_not_finite(outputs):
                    raise EvaluationError("the model's outputs are not finite")
                done.append(outputs)
                n_done += n_rows(outputs)
            if n_done < len(self._prefix):
                self._open[key] = running
            self._evict()
        return each(lambda array: array[:n_examples], joined_inputs(done))

    def _evict(self) -> None:
        """Drops the least recently used models and outputs, down to the limits above."""
        while len(self._open) > N_OPEN:
            self._open.popitem(last=False)
        held = [sum(map(n_bytes, parts)) for parts in self._done.values()]
        while len(held) > 1 and sum(held) > MOST_OUTPUT_BYTES:
            key, _ = self._done.popitem(last=False)
            self._open.pop(key, None)
            held.pop(0)

    def _begin(self, artifact: Artifact, n_done: int) -> Iterator[OutputBatch]:
        return run_batches(
            artifact,
            lambda size: self._after(n_done, size),
            BLOCK,
            self._threads,
            self._exact_sums,
            self._rollout,
        )

    def _after(self, n_done: int, batch_size: int) -> Iterator[Batch]:
        """Yields the batches after the first `n_done` examples; a batch ends at each of the sizes."""
        position = 0
        for inputs, labels in self._batches.of(self._prefix, batch_size):
            n = n_rows(inputs)
            cuts = sorted({c - position for c in (n_done, *self._sizes) if 0 < c - position < n})
            for start, end in pairwise((0, *cuts, n)):
                if position + start >= n_done:
                    rows = slice(start, end)
                    yield each(lambda array, rows=rows: array[rows], inputs), labels[rows]  # type: ignore[misc]
            position += n
