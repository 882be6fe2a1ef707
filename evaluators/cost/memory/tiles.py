"""Tiles of patch-based inference: the part of every tensor, halo included, that a patch reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evaluators.cost.graph import Kernel, OpGraph

Size = tuple[int, int]  # (height, width)
_WINDOWED = ("conv", "pointwise", "depthwise", "pool")
_POINTWISE = ("elementwise", "quantize")
_JOINING = ("Concat", "QLinearConcat")


@dataclass(frozen=True)
class Tiles:
    """The patches of one stage.

    Attributes:
        share: Size of each tensor's largest tile relative to the whole tensor, 0 to 1, by name.
        work: Per kernel of the stage, the total size of its output tiles relative to the whole output.
    """

    share: Mapping[str, float]
    work: tuple[float, ...]


def spatial_prefix(graph: OpGraph, order: Sequence[int]) -> tuple[int, dict[str, Size]]:
    """Returns how many of the first kernels can run patch by patch, and (height, width) by tensor."""
    sizes = _sizes(graph.kernels)
    for n, k in enumerate(order):
        if not _is_spatial(graph.kernels[k], sizes):
            return n, sizes
    return len(order), sizes


def tiles(kernels: Sequence[Kernel], output: str, sizes: Mapping[str, Size], patches: int) -> Tiles:
    """Splits a stage's output into `patches` x `patches` and propagates each patch back through the kernels.

    Args:
        kernels: The kernels of the stage, in the order of execution.
        output: Name of the tensor that is split.
        sizes: (height, width) of every tensor of the stage, by name.
        patches: Number of splits in each direction; at most the size of the output.
    """
    rows = _along(kernels, output, sizes, patches, 0)
    square = _shapes(kernels, sizes, 0) == _shapes(kernels, sizes, 1)
    columns = rows if square else _along(kernels, output, sizes, patches, 1)
    longest = [
        {t: max(spans[t][1] - spans[t][0] for spans in axis) for t in axis[0]} for axis in (rows, columns)
    ]
    work = []
    for kernel in kernels:
        t = kernel.outputs[0]
        sums = [sum(spans[t][1] - spans[t][0] for spans in axis) for axis in (rows, columns)]
        work.append(sums[0] * sums[1] / (sizes[t][0] * sizes[t][1]))
    share = {t: longest[0][t] * longest[1][t] / (sizes[t][0] * sizes[t][1]) for t in longest[0]}
    return Tiles(share, tuple(work))


def _shapes(kernels: Sequence[Kernel], sizes: Mapping[str, Size], axis: int) -> list[tuple[int, ...]]:
    """Returns all sizes, windows and strides that the tiles along one axis depend on."""
    shapes = [(sizes[t][axis],) for k in kernels for t in (*k.inputs, *k.outputs)]
    return shapes + [(g.window[axis], g.stride[axis]) for g in (k.geometry for k in kernels) if g]


def _along(
    kernels: Sequence[Kernel], output: str, sizes: Mapping[str, Size], patches: int, axis: int
) -> list[dict[str, tuple[int, int]]]:
    """Returns, per patch, the span [low, high) of every tensor that it reads along one axis."""
    length = sizes[output][axis]
    n = min(patches, length)
    return [
        _spans(kernels, {output: (i * length // n, (i + 1) * length // n)}, sizes, axis) for i in range(n)
    ]


def _spans(
    kernels: Sequence[Kernel], spans: dict[str, tuple[int, int]], sizes: Mapping[str, Size], axis: int
) -> dict[str, tuple[int, int]]:
    for kernel in reversed(kernels):
        written = [spans[t] for t in kernel.outputs if t in spans]
        if not written:  # its outputs are not read
            spans |= dict.fromkeys(kernel.outputs, (0, 0))
            continue
        low, high = min(w[0] for w in written), max(w[1] for w in written)
        for t in kernel.outputs:
            spans[t] = (low, high)
        for i, t in enumerate(kernel.inputs):
            span = _read(kernel, low, high, axis) if i == 0 else (low, high)
            known = spans.get(t, span)
            spans[t] = (min(known[0], span[0]), max(known[1], span[1]))
    return spans


def _read(kernel: Kernel, low: int, high: int, axis: int) -> tuple[int, int]:
    """Returns the span of input positions that outputs [low, high) are computed from, padding excluded.

    How the padding splits into both sides is not known; half of it is assumed at the beginning.
    """
    shape = kernel.geometry
    if kernel.kind not in _WINDOWED or shape is None:
        return low, high
    window, stride = shape.window[axis], shape.stride[axis]
    n_in, n_out = shape.in_size[axis], shape.out_size[axis]
    before = max(0, (n_out - 1) * stride + window - n_in + 1) // 2
    return max(low * stride - before, 0), min((high - 1) * stride - before + window, n_in)


def _sizes(kernels: Iterable[Kernel]) -> dict[str, Size]:
    """Returns (height, width) by tensor, from kernels with a geometry and through elementwise ones."""
    sizes: dict[str, Size] = {}
    listed = list(kernels)
    for kernel in listed:
        if kernel.geometry is not None and kernel.inputs:
            sizes.setdefault(kernel.inputs[0], kernel.geometry.in_size)
            for t in kernel.outputs:
                sizes.setdefault(t, kernel.geometry.out_size)
    for kernel in (*listed, *reversed(listed)):
        if _is_pointwise(kernel):
            known = {sizes[t] for t in (*kernel.inputs, *kernel.outputs) if t in sizes}
            if len(known) == 1:
                sizes |= dict.fromkeys((*kernel.inputs, *kernel.outputs), *known)
    return sizes


def _is_pointwise(kernel: Kernel) -> bool:
    joins = kernel.op in _JOINING and kernel.input_bytes == kernel.output_bytes
    return kernel.kind in _POINTWISE or joins


def _is_spatial(kernel: Kernel, sizes: Mapping[str, Size]) -> bool:
    """Whether a part of the kernel's output depends only on a part of its input."""
    if (
        not kernel.inputs
        or not kernel.outputs
        or any(t not in sizes for t in (*kernel.inputs, *kernel.outputs))
    ):
        return False
    first, *others = kernel.inputs
    out = sizes[kernel.outputs[0]]
    if any(sizes[t] != out for t in (*others, *kernel.outputs)) or out == (1, 1):
        return False
    if kernel.kind not in _WINDOWED:
        return _is_pointwise(kernel) and sizes[first] == out
    shape = kernel.geometry
    known = shape is not None and (sizes[first], out) == (shape.in_size, shape.out_size)
    return known and kernel.op != "ConvTranspose"
