"""The methods of rounding, by name."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from spaces.quantization.plan.plan import Plan, Settings
from spaces.quantization.plan.source import Source
from spaces.quantization.rounding.adaround import AdaRound
from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.brecq import Brecq
from spaces.quantization.rounding.gptq import Gptq
from spaces.stages.stage import StageContext

if TYPE_CHECKING:
    from spaces.quantization.rounding.walk import Rounded

METHODS: Mapping[str, Method] = MappingProxyType({m.name: m for m in (Gptq(), AdaRound(), Brecq())})
"""All but `nearest`, which needs no examples and no torch."""


def round_weights(
    method: Method | None,
    source: Source,
    plan: Plan,
    settings: Settings,
    n_images: int,
    context: StageContext,
) -> "Rounded | None":
    """Returns the network with rounded weights; None with neither a method nor tuning: they are rounded to nearest.

    Raises:
        StageError: The network has parts that torch cannot run.
    """
    if method is None and not settings.network_steps:
        return None
    from spaces.quantization.rounding.walk import Walk

    no_kernel = settings.format == "qoperator"
    left_float = {x.name for x in source.network.layers if no_kernel and x.op_type == "ConvTranspose"}
    reduced = {name for name, bits in settings.weight_bits.items() if settings.reduce_range and bits == 8}
    walk = Walk(
        source, plan, settings.layers_only, n_images, context, frozenset(left_float), frozenset(reduced),
        fixed_scales="power2" in settings.scheme, network_steps=settings.network_steps,
    )  # fmt: skip
    return walk.rounded(None if method is None else replace(method, steps=settings.rounding_steps))
