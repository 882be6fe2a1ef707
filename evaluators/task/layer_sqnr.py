"""Why a candidate lost accuracy: how far every layer is from the float model's, as a signal-to-noise ratio."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Reference
from evaluators.runtime import fixed_batch, open_session, run_session
from evaluators.task.layers import Layer, add_outputs, layers_of
from spaces.stages.artifact import Artifact, Split

MAX_SQNR_DB = 200.0  # of identical tensors; beyond float32's own precision of about 150 dB
_BATCH = 4  # examples at once, because all activations of a batch are held in memory


def sqnr_db(signal: float, noise: float) -> float:
    """Returns 10 log10(signal / noise) in dB, kept within +-200 dB so that it is finite.

    Args:
        signal: Sum of the squared reference values.
        noise: Sum of the squared differences from them.
    """
    if noise <= 0:
        return MAX_SQNR_DB
    if signal <= 0:
        return -MAX_SQNR_DB
    return float(np.clip(10 * np.log10(signal / noise), -MAX_SQNR_DB, MAX_SQNR_DB))


def layer_sqnr(
    artifact: Artifact, reference: Reference, split: Split, n_images: int, threads: int
) -> list[dict[str, Any]]:
    """Compares the layers (Conv, ConvTranspose, Gemm, MatMul with weights) that both models have.

    Both models run without fusions here, so a quantized layer's arithmetic is simulated in float32; what that
    differs from integer kernels is far below the quantization noise.

    Args:
        artifact: The candidate: a float, QDQ or QOperator model.
        reference: The float model.
        split: Where the examples come from.
        n_images: Examples that activations are compared on.
        threads: onnxruntime's threads within an operator.

    Returns:
        One dict a layer, in the float file's order: `layer` (its weights' name), `op`, `weight_sqnr_db`,
        `output_sqnr_db` (after the Relu or Clip that follows; 200 where nothing differs, None where the tensors cannot
        be compared, e.g. after pruning), and `float`: whether the candidate keeps its weights in floating point.

    Raises:
        EvaluationError: One of the models cannot be run.
    """
    pairs = _Pairs(artifact, reference.artifact, threads)
    for inputs, _ in split.batches(pairs.batch, n_images):
        if len(inputs) == pairs.batch:  # the last batch may be too short for a model with a fixed one
            pairs.compare(inputs)
    return [
        {
            "layer": wanted.name,
            "op": wanted.op,
            "weight_sqnr_db": pairs.weights.get(wanted.weight),
            "output_sqnr_db": pairs.results.get(wanted.result),
            "float": found.is_float,
        }
        for wanted, found in pairs.layers
    ]


class Ratios:
    """Adds up signal and noise by key; a key whose tensors differ in shape has none."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self._unlike: set[str] = set()

    def add(self, key: str, wanted: NDArray[np.generic], found: NDArray[np.generic]) -> None:
        """Adds `found`'s difference from `wanted`."""
        if wanted.shape != found.shape:
            self._unlike.add(key)
            return
        # float32 sums are off by far less than a hundredth of a dB, and half as dear.
        reference = wanted.astype(np.float32, copy=False).ravel()
        difference = found.astype(np.float32, copy=False).ravel() - reference
        signal, noise = self._sums[key]
        self._sums[key] = signal + float(reference @ reference), noise + float(difference @ difference)

    def get(self, key: str) -> float | None:
        """The ratio in dB; None if there is nothing to compare, or it is not finite."""
        if key not in self._sums or key in self._unlike:
            return None
        signal, noise = self._sums[key]
        return sqnr_db(signal, noise) if np.isfinite(signal + noise) else None


class _Pairs:
    """The layers that two models share, and a session of each that yields their tensors."""

    def __init__(self, candidate: Artifact, reference: Artifact, threads: int) -> None:
        theirs, ours = reference.proto(), candidate.proto()
        self.layers = _matched(layers_of(theirs), layers_of(ours))
        self.weights, self.results = Ratios(), Ratios()
        self._weights = {wanted.weight: found.weight for wanted, found in self.layers}
        self._results = {wanted.result: found.result for wanted, found in self.layers}
        add_outputs(theirs, [*self._weights, *self._results])
        add_outputs(ours, [*self._weights.values(), *self._results.values()])
        self._theirs = open_session(theirs.SerializeToString(), threads, optimize=False)
        self._ours = open_session(ours.SerializeToString(), threads, optimize=False)
        self.batch = fixed_batch(self._ours) or fixed_batch(self._theirs) or _BATCH

    def compare(self, inputs: NDArray[np.float32]) -> None:
        """Adds one batch of `(b, *input.shape)` inputs; the weights, which never change, with the first one."""
        if not self.layers:  # onnxruntime takes "no outputs" for "all outputs"
            return
        weights, self._weights = self._weights, {}
        wanted = run_session(self._theirs, inputs, [*weights, *self._results])
        found = run_session(self._ours, inputs, [*weights.values(), *self._results.values()])
        named = zip((*weights, *self._results), wanted, found, strict=True)
        for position, (name, reference, value) in enumerate(named):
            (self.weights if position < len(weights) else self.results).add(name, reference, value)


def _matched(wanted: Sequence[Layer], found: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """Pairs layers by their weights' name (the k-th use of it), else by their output's."""
    by_weight, by_output = _numbered(found), {layer.output: layer for layer in found}
    matches = (
        (layer, by_weight.get(key) or by_output.get(layer.output)) for key, layer in _numbered(wanted).items()
    )
    return [(layer, match) for layer, match in matches if match is not None]


def _numbered(layers: Sequence[Layer]) -> dict[tuple[str, int], Layer]:
    uses: dict[str, int] = defaultdict(int)
    numbered = {}
    for layer in layers:
        numbered[layer.name, uses[layer.name]] = layer
        uses[layer.name] += 1
    return numbered
