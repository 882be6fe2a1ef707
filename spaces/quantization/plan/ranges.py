"""Activation ranges and corrected biases from calibration statistics, with LRU caches."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
from spaces.quantization.calibration.statistics import Statistics
from spaces.quantization.plan.bias_correction import corrected_biases, is_correctable, mean_error
from spaces.quantization.plan.plan import Plan, Settings, Spans, clipped_ranges
from spaces.quantization.plan.source import Source
from spaces.quantization.schemes.recent import Recent
from spaces.quantization.schemes.scheme import scheme_of
from spaces.stages.stage import StageContext

MAX_ENTRIES = 512
MAX_ERROR_BYTES = 16 * 2**20

Means = Mapping[str, NDArray[np.float64]]


class Ranges:
    """LRU cache of activation ranges, channel means and mean errors."""

    def __init__(self) -> None:
        self._spans: Recent[tuple[object, ...], Spans] = Recent(MAX_ENTRIES)
        self._means: Recent[tuple[object, ...], Means] = Recent(MAX_ENTRIES)
        self._errors: Recent[tuple[object, ...], NDArray[np.float64]] = Recent(
            MAX_ERROR_BYTES, lambda e: 500 + e.nbytes
        )

    def spans(self, source: Source, settings: Settings, n_images: int, context: StageContext) -> Spans:
        """Returns, by tensor name, the real range that the activation's grid should cover.

        Args:
            source: The float model.
            settings: The knobs.
            n_images: Number of calibration examples.
            context: Calibration data and cache.

        Raises:
            StageError: There is no calibration data, or an activation is not finite.
        """
        rule = scheme_of(settings.scheme).activations
        key = (settings.clipping, settings.percentile, rule, settings.activation_bits)

        def build() -> Spans:
            return clipped_ranges(_statistics(source, n_images, context), settings, context)

        found = self._spans.get((*_data(source, n_images, context), *key), build)
        shares = source.network.shares if settings.activation_matmuls else ()
        return {**found, **dict.fromkeys(shares, (0.0, 1.0))}

    def corrected_biases(
        self,
        source: Source,
        plan: Plan,
        n_images: int,
        context: StageContext,
        weights: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Returns the biases, by name, that compensate the mean errors of the quantized weights.

        Args:
            source: The float model.
            plan: The grids.
            n_images: Number of calibration examples for the mean inputs.
            context: Calibration data and cache.
            weights: Weights by layer name that are rounded already; the others of the plan are rounded to nearest.
        """
        data = _data(source, n_images, context)
        means = self._means.get(data, lambda: _statistics(source, n_images, context).means())
        shifts = {}
        for layer in source.network.layers:
            grid, rounded = plan.weights.get(layer.name), (weights or {}).get(layer.name)
            if (grid is None and rounded is None) or not is_correctable(layer):
                continue
            of_grid = () if grid is None else grid.key
            key = (*data, layer.node, *of_grid, None if rounded is None else rounded.tobytes())
            arguments = (layer, source.weights[layer.name], grid, means[layer.input], rounded)
            shifts[layer.node] = self._errors.get(key, lambda a=arguments: mean_error(*a))  # type: ignore[misc]
        return corrected_biases(source.network.layers, source.biases, shifts)


def _data(source: Source, n_images: int, context: StageContext) -> tuple[str, str, int]:
    if context.calibration is None:
        raise StageError("quantization needs calibration examples, but the stage was given none")
    return source.key, context.calibration.digest, n_images


def _statistics(source: Source, n_images: int, context: StageContext) -> Statistics:
    return Statistics(source.artifact, source.wanted, n_images, context)
