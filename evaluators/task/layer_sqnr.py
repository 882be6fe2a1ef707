"""Explains a loss of accuracy by the signal-to-noise ratio of every layer, relative to the float model's layers."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Reference
from evaluators.runtime import fixed_batch, open_session, run_session
from evaluators.task.layers import Layer, add_outputs, layers_of
from spaces.stages.artifact import Artifact, Split
from spaces.stages.inputs import Inputs, n_rows

MAX_SQNR_DB = 200.0  # of identical tensors; beyond float32's own precision of about 150 dB
_BATCH = 4  # examples, few because all activations of a batch are held in memory


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

    Both models run without fusions here, so a quantized layer's arithmetic is simulated in float32; the difference
    from integer kernels is far below the quantization noise.

    Args:
        artifact: The candidate: a float, QDQ or QOperator model.
        reference: The float model.
        split: Where the examples come from.
        n_images: Number of examples on which activations are compared.
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
        if n_rows(inputs) == pairs.batch:  # the last batch may be too short for a model with a fixed one
            pairs.compare(inputs)
    return [
        {
            "layer": float_layer.name,
            "op": float_layer.op,
            "weight_sqnr_db": pairs.weights.get(float_layer.weight),
            "output_sqnr_db": pairs.results.get(float_layer.result),
            "float": layer.is_float,
        }
        for float_layer, layer in pairs.layers
    ]


class Ratios:
    """Accumulates signal and noise power by key; a key whose tensors differ in shape has no ratio."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self._unlike: set[str] = set()

    def add(self, key: str, reference: NDArray[np.generic], candidate: NDArray[np.generic]) -> None:
        """Adds the power of `reference` as signal, and that of `candidate - reference` as noise."""
        if reference.shape != candidate.shape:
            self._unlike.add(key)
            return
        # float32 sums are off by far less than a hundredth of a dB, and take half the time
        values = reference.astype(np.float32, copy=False).ravel()
        difference = candidate.astype(np.float32, copy=False).ravel() - values
        signal, noise = self._sums[key]
        self._sums[key] = signal + float(values @ values), noise + float(difference @ difference)

    def get(self, key: str) -> float | None:
        """Returns the ratio in dB; None if no tensors could be compared, or if a sum is not finite."""
        if key not in self._sums or key in self._unlike:
            return None
        signal, noise = self._sums[key]
        return sqnr_db(signal, noise) if np.isfinite(signal + noise) else None


class _Pairs:
    """The layers that two models share, and a session of each model that outputs their tensors."""

    def __init__(self, candidate: Artifact, reference: Artifact, threads: int) -> None:
        reference_proto, candidate_proto = reference.proto(), candidate.proto()
        self.layers = _matched(layers_of(reference_proto), layers_of(candidate_proto))
        self.weights, self.results = Ratios(), Ratios()
        self._weights = {float_layer.weight: layer.weight for float_layer, layer in self.layers}
        self._results = {float_layer.result: layer.result for float_layer, layer in self.layers}
        add_outputs(reference_proto, [*self._weights, *self._results])
        add_outputs(candidate_proto, [*self._weights.values(), *self._results.values()])
        self._reference = open_session(reference_proto.SerializeToString(), threads, optimize=False)
        self._candidate = open_session(candidate_proto.SerializeToString(), threads, optimize=False)
        self.batch = fixed_batch(self._candidate) or fixed_batch(self._reference) or _BATCH

    def compare(self, inputs: Inputs) -> None:
        """Compares the layers on one batch of inputs; the constant weights on the first batch only."""
        if not self.layers:  # onnxruntime takes "no outputs" for "all outputs"
            return
        weights, self._weights = self._weights, {}
        reference = run_session(self._reference, inputs, [*weights, *self._results])
        candidate = run_session(self._candidate, inputs, [*weights.values(), *self._results.values()])
        named = zip((*weights, *self._results), reference, candidate, strict=True)
        for position, (name, reference_tensor, tensor) in enumerate(named):
            (self.weights if position < len(weights) else self.results).add(name, reference_tensor, tensor)


def _matched(reference: Sequence[Layer], candidate: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """Pairs layers by their weights' name (the k-th use of it), else by their output's."""
    by_weight, by_output = _numbered(candidate), {layer.output: layer for layer in candidate}
    matches = (
        (layer, by_weight.get(key) or by_output.get(layer.output))
        for key, layer in _numbered(reference).items()
    )
    return [(layer, match) for layer, match in matches if match is not None]


def _numbered(layers: Sequence[Layer]) -> dict[tuple[str, int], Layer]:
    uses: dict[str, int] = defaultdict(int)
    numbered = {}
    for layer in layers:
        numbered[layer.name, uses[layer.name]] = layer
        uses[layer.name] += 1
    return numbered
