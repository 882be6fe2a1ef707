"""The most recently used templates."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.plan.plan import Plan, Settings
from spaces.quantization.plan.source import Source
from spaces.quantization.qdq.slots import Numbers, UnlikeToolError, weight_cache
from spaces.quantization.qdq.template import Template, build_template, tool_model
from spaces.quantization.schemes.recent import Recent
from spaces.quantization.schemes.scheme import scheme_of

MAX_TEMPLATE_BYTES = 128 * 2**20


class Templates:
    """Makes quantized files: the tool runs for the first one of a structure, the others fill its template."""

    def __init__(self) -> None:
        self._weights = weight_cache()
        self._templates: Recent[tuple[object, ...], Template | None] = Recent(
            MAX_TEMPLATE_BYTES, lambda template: 1000 if template is None else template.n_bytes
        )

    def model(
        self,
        source: Source,
        plan: Plan,
        settings: Settings,
        corrected: Mapping[str, NDArray[np.float32]] | None,
        rounded: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> bytes:
        """Returns the serialized quantized model.

        Args:
            source: The float model.
            plan: The grid of every tensor.
            settings: The knobs.
            corrected: Biases that replace those of the float model; None to keep these.
            rounded: Weights by layer name that are on their grids; None rounds to nearest.

        Raises:
            StageError: The tool fails.
        """
        template = self._templates.get(
            _key(source, settings, corrected is not None),
            lambda: build_template(source, plan, settings, corrected),
        )
        if template is not None:
            weights, cache = (
                (source.weights, self._weights) if rounded is None else ({**source.weights, **rounded}, None)
            )
            numbers = Numbers(
                replace(source, weights=weights), plan, settings, source.biases | dict(corrected or {}), cache
            )
            with suppress(UnlikeToolError, ValueError):
                return template.filled(numbers)
        return tool_model(source.with_weights(rounded or {}), plan, settings, corrected)


def _key(source: Source, settings: Settings, corrected: bool) -> tuple[object, ...]:
    """Returns the key of a structure: everything in a file except numbers and weight types depends on it."""
    return (
        source.key,
        frozenset(settings.weight_bits),
        any(bits <= 4 for bits in settings.weight_bits.values()),  # needs a newer opset
        scheme_of(settings.scheme).keeps_activations,
        settings.per_channel,
        settings.activation_bits,
        settings.activation_type,
        settings.weight_type,
        settings.format,
        settings.activation_matmuls,
        corrected,
    )
