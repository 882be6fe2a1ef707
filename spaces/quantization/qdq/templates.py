"""The skeletons that were used last."""

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.plan.plan import Plan, Settings
from spaces.quantization.plan.source import Source
from spaces.quantization.qdq.slots import Numbers, UnlikeToolError, weight_memory
from spaces.quantization.qdq.template import Template, build_template, tool_model
from spaces.quantization.schemes.recent import Recent
from spaces.quantization.schemes.scheme import scheme_of

MOST_TEMPLATE_BYTES = 128 * 2**20


class Templates:
    """Makes quantized files, each structure's first one with the tool and all others from its skeleton."""

    def __init__(self) -> None:
        self._weights = weight_memory()
        self._templates: Recent[tuple[object, ...], Template | None] = Recent(
            MOST_TEMPLATE_BYTES, lambda s: 1000 if s is None else s.n_bytes
        )

    def model(
        self,
        source: Source,
        plan: Plan,
        settings: Settings,
        corrected: Mapping[str, NDArray[np.float32]] | None,
    ) -> bytes:
        """Returns the serialized quantized model.

        Args:
            source: The float model.
            plan: The grid of every tensor.
            settings: The knobs.
            corrected: Biases that take the place of the float model's; None to leave these.

        Raises:
            StageError: The tool fails.
        """
        template = self._templates.get(
            _key(source, settings, corrected is not None),
            lambda: build_template(source, plan, settings, corrected),
        )
        if template is not None:
            numbers = Numbers(source, plan, settings, source.biases | dict(corrected or {}), self._weights)
            with suppress(UnlikeToolError, ValueError):
                return template.filled(numbers)
        return tool_model(source, plan, settings, corrected)


def _key(source: Source, settings: Settings, corrected: bool) -> tuple[object, ...]:
    """Returns what decides about everything but numbers and the types of weights."""
    return (
        source.artifact.digest,
        frozenset(settings.weight_bits),
        4 in settings.weight_bits.values(),  # asks for a newer opset
        scheme_of(settings.scheme).keeps_activations,
        settings.per_channel,
        settings.activation_bits,
        settings.activation_type,
        settings.weight_type,
        settings.format,
        corrected,
    )
