"""The formats of a network's weights and activations, and which of them a device's runtime does not take."""

from collections.abc import Iterator

from evaluators.cost.graph.kernel import Kernel
from evaluators.cost.graph.op_graph import OpGraph
from evaluators.devices.device import DYNAMIC, Device, DType

UNSUPPORTED = "unsupported_layers"
"""The measurement of how many layers a device's runtime does not take."""

_DYNAMIC = ("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
"""Operators that take the ranges of a DynamicQuantizeLinear, or find them."""


def weight_format(kernel: Kernel) -> DType | None:
    """Returns the format of a kernel's weight, by the type in the file; None without multiply-accumulates by a weight."""
    if not kernel.weight or not kernel.macs:
        return None
    if kernel.dtype in ("float32", "float16") and kernel.weight_bits >= 16:
        return kernel.dtype
    return _integer(kernel.weight_bits)


def activation_format(kernel: Kernel) -> str | None:
    """Returns the format of the activations that a kernel multiplies, a dtype or `dynamic_int8`; None without multiply-accumulates."""
    if not kernel.macs:
        return None
    if kernel.op in _DYNAMIC:
        return DYNAMIC
    return kernel.dtype if kernel.dtype in ("float32", "float16") else _integer(kernel.activation_bits)


def unsupported(graph: OpGraph, device: Device) -> dict[str, str]:
    """Returns the kernels that the device's runtime does not take, by name, each with its format, e.g. `int4 weights`.

    Empty if the profile states no formats.
    """
    return dict(found for kernel in graph.kernels for found in _unsupported(kernel, device))


def why_unsupported(kernels: dict[str, str], device: Device) -> str:
    """Returns the result of `unsupported` as a sentence."""
    first, form = next(iter(kernels.items()))
    layers = f"{first} and {len(kernels) - 1} more have" if len(kernels) > 1 else f"{first} has"
    taken = [
        f"{', '.join(formats)} {kind}"
        for kind, formats in (("weights", device.weight_formats), ("activations", device.activation_formats))
        if formats
    ]
    return f"{device.runtime} takes {' and '.join(taken)}, but {layers} {form}"


def _unsupported(kernel: Kernel, device: Device) -> Iterator[tuple[str, str]]:
    for kind, form, taken in (
        ("activations", activation_format(kernel), device.activation_formats),
        ("weights", weight_format(kernel), device.weight_formats),
    ):
        if form is not None and taken and form not in taken:
            yield kernel.name, f"{form} {kind}"


def _integer(bits: int) -> DType:
    return "int4" if bits <= 4 else "int8" if bits <= 8 else "int16"
