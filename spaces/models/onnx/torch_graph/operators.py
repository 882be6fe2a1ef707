"""ONNX operators as torch functions: what a part of a network needs to be trained."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Attributes = Mapping[str, Any]
Function = Callable[..., "Tensor | tuple[Tensor, ...]"]
"""`(attributes, *inputs)`; an absent optional input is None."""


def functions() -> Mapping[str, Function]:
    """Returns the operators by ONNX name. Imports torch."""
    return MappingProxyType(_UNARY | _ARITHMETIC | _LAYERS | _SHAPES | _REDUCTIONS)


def _torch() -> Any:
    import torch

    return torch


def _elementwise(name: str) -> Function:
    return lambda attributes, *inputs: getattr(_torch(), name)(*inputs)


def _nn(name: str) -> Function:
    return lambda attributes, x: getattr(_torch().nn.functional, name)(x)


def _clip(
    attributes: Attributes, x: "Tensor", low: "Tensor | None" = None, high: "Tensor | None" = None
) -> "Tensor":
    low = attributes.get("min") if low is None else low
    high = attributes.get("max") if high is None else high
    return x if low is None and high is None else x.clamp(low, high)


def _softmax(attributes: Attributes, x: "Tensor") -> "Tensor":
    return x.softmax(attributes.get("axis", -1))


def _gelu(attributes: Attributes, x: "Tensor") -> "Tensor":
    approximate = attributes.get("approximate", b"none").decode()
    return _torch().nn.functional.gelu(x, approximate=approximate)  # type: ignore[no-any-return]


def _hard_sigmoid(attributes: Attributes, x: "Tensor") -> "Tensor":
    return (attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5)).clamp(0, 1)  # type: ignore[no-any-return]


def _prelu(attributes: Attributes, x: "Tensor", slope: "Tensor") -> "Tensor":
    return _torch().where(x < 0, x * slope, x)  # type: ignore[no-any-return]


def _most(name: str) -> Function:
    def function(attributes: Attributes, first: "Tensor", *others: "Tensor") -> "Tensor":
        for other in others:
            first = getattr(_torch(), name)(first, other)
        return first

    return function


def _divide(attributes: Attributes, x: "Tensor", y: "Tensor") -> "Tensor":
    return x / y if x.is_floating_point() else _torch().div(x, y, rounding_mode="trunc")


def _cast(attributes: Attributes, x: "Tensor") -> "Tensor":
    return x.to(_dtype(attributes["to"]))


def _dtype(number: int) -> "torch.dtype":
    import onnx
    import torch

    return torch.from_numpy(np.zeros(0, onnx.helper.tensor_dtype_to_np_dtype(number))).dtype


def _gemm(attributes: Attributes, a: "Tensor", b: "Tensor", c: "Tensor | None" = None) -> "Tensor":
    a = a.T if attributes.get("transA") else a
    b = b.T if attributes.get("transB") else b
    product = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c  # type: ignore[no-any-return]


def _conv(attributes: Attributes, x: "Tensor", weight: "Tensor", bias: "Tensor | None" = None) -> "Tensor":
    n_axes = x.ndim - 2
    kernel = list(weight.shape[2:])
    steps = _steps(attributes, n_axes)
    x, pads = _padded(x, attributes, kernel, steps, 0.0)
    functional = _torch().nn.functional
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[n_axes - 1]
    return function(x, weight, bias, steps[0], pads, steps[1], attributes.get("group", 1))  # type: ignore[no-any-return]


def unfolded(attributes: Attributes, x: "Tensor", kernel: list[int]) -> "Tensor":
    """Returns the patches that a 1-D or 2-D Conv multiplies with its weight, `(b, n_channels * kernel size, n_places)`.

    Args:
        attributes: The Conv's attributes.
        x: Its input, `(b, n_channels, *places)`.
        kernel: Sizes of its kernel.
    """
    steps = _steps(attributes, len(kernel))
    x, pads = _padded(x, attributes, kernel, steps, 0.0)
    if len(kernel) == 1:
        x, kernel = x[:, :, None], [1, *kernel]
        steps, pads = ([1, *steps[0]], [1, *steps[1]]), [0, *pads]
    return _torch().nn.functional.unfold(x, kernel, steps[1], pads, steps[0])  # type: ignore[no-any-return]


def _conv_transpose(
    attributes: Attributes, x: "Tensor", weight: "Tensor", bias: "Tensor | None" = None
) -> "Tensor":
    n_axes = x.ndim - 2
    stride, dilation = _steps(attributes, n_axes)
    pads = _symmetric(attributes.get("pads", [0] * 2 * n_axes))
    if pads is None or "output_shape" in attributes or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise NotImplementedError
    functional = _torch().nn.functional
    function = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[
        n_axes - 1
    ]
    extra = attributes.get("output_padding", [0] * n_axes)
    return function(x, weight, bias, stride, pads, extra, attributes.get("group", 1), dilation)  # type: ignore[no-any-return]


def _max_pool(attributes: Attributes, x: "Tensor") -> "Tensor":
    kernel = list(attributes["kernel_shape"])
    n_axes = len(kernel)
    stride, dilation = _steps(attributes, n_axes)
    x, pads = _padded(x, attributes, kernel, (stride, dilation), -float("inf"))
    functional = _torch().nn.functional
    function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[n_axes - 1]
    return function(x, kernel, stride, pads, dilation, bool(attributes.get("ceil_mode", 0)))  # type: ignore[no-any-return]


def _average_pool(attributes: Attributes, x: "Tensor") -> "Tensor":
    kernel = list(attributes["kernel_shape"])
    n_axes = len(kernel)
    stride, dilation = _steps(attributes, n_axes)
    counted = bool(attributes.get("count_include_pad", 0))
    pads = _symmetric(_pads(x, attributes, kernel, (stride, dilation)))
    if pads is None or any(d != 1 for d in dilation):
        raise NotImplementedError
    functional = _torch().nn.functional
    function = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[n_axes - 1]
    return function(x, kernel, stride, pads, bool(attributes.get("ceil_mode", 0)), counted)  # type: ignore[no-any-return]


def _steps(attributes: Attributes, n_axes: int) -> tuple[list[int], list[int]]:
    """Returns strides and dilations."""
    ones = [1] * n_axes
    return list(attributes.get("strides", ones)), list(attributes.get("dilations", ones))


def _pads(
    x: "Tensor", attributes: Attributes, kernel: list[int], steps: tuple[list[int], list[int]]
) -> list[int]:
    mode = attributes.get("auto_pad", b"NOTSET").decode()
    if mode == "NOTSET":
        return list(attributes.get("pads", [0] * 2 * len(kernel)))
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    before, after = [], []
    for size, k, stride, dilation in zip(x.shape[2:], kernel, *steps, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before + after


def _symmetric(pads: list[int]) -> list[int] | None:
    half = len(pads) // 2
    return pads[:half] if pads[:half] == pads[half:] else None


def _padded(
    x: "Tensor", attributes: Attributes, kernel: list[int], steps: tuple[list[int], list[int]], value: float
) -> "tuple[Tensor, list[int]]":
    """Returns the input and what the operator itself has to pad: torch pads both sides of an axis alike."""
    pads = _pads(x, attributes, kernel, steps)
    alike = _symmetric(pads)
    fits = alike is not None and (value == 0 or all(2 * p <= k for p, k in zip(alike, kernel, strict=True)))
    if alike is not None and fits:
        return x, alike
    half = len(kernel)
    both = [p for axis in reversed(range(half)) for p in (pads[axis], pads[half + axis])]
    return _torch().nn.functional.pad(x, both, value=value), [0] * half


def _layer_norm(
    attributes: Attributes, x: "Tensor", scale: "Tensor", bias: "Tensor | None" = None
) -> "Tensor":
    axis = attributes.get("axis", -1) % x.ndim
    shape = tuple(x.shape[axis:])
    shift = None if bias is None else bias.expand(shape)
    return _torch().nn.functional.layer_norm(  # type: ignore[no-any-return]
        x, shape, scale.expand(shape), shift, attributes.get("epsilon", 1e-5)
    )


def _batch_norm(
    attributes: Attributes, x: "Tensor", scale: "Tensor", bias: "Tensor", mean: "Tensor", variance: "Tensor"
) -> "Tensor":
    epsilon = attributes.get("epsilon", 1e-5)
    return _torch().nn.functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)  # type: ignore[no-any-return]


def _instance_norm(attributes: Attributes, x: "Tensor", scale: "Tensor", bias: "Tensor") -> "Tensor":
    return _torch().nn.functional.instance_norm(  # type: ignore[no-any-return]
        x, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5)
    )


def _global(name: str) -> Function:
    def function(attributes: Attributes, x: "Tensor") -> "Tensor":
        axes = tuple(range(2, x.ndim))
        return x.mean(axes, keepdim=True) if name == "mean" else x.amax(axes, keepdim=True)

    return function


def _reduce(name: str) -> Function:
    def function(attributes: Attributes, x: "Tensor", axes: "Tensor | None" = None) -> "Tensor":
        given = attributes.get("axes") if axes is None else axes.tolist()
        if not given:
            if attributes.get("noop_with_empty_axes"):
                return x
            given = range(x.ndim)
        return getattr(x, name)(tuple(given), keepdim=bool(attributes.get("keepdims", 1)))  # type: ignore[no-any-return]

    return function


def _reshape(attributes: Attributes, x: "Tensor", shape: "Tensor") -> "Tensor":
    sizes = shape.tolist()
    if not attributes.get("allowzero"):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(attributes: Attributes, x: "Tensor") -> "Tensor":
    axis = attributes.get("axis", 1)
    rows = 1
    for size in x.shape[: axis if axis >= 0 else x.ndim + axis]:
        rows *= size
    return x.reshape(rows, -1)


def _transpose(attributes: Attributes, x: "Tensor") -> "Tensor":
    return x.permute(attributes.get("perm", list(reversed(range(x.ndim)))))


def _axes(attributes: Attributes, axes: "Tensor | None") -> list[int]:
    return list(attributes["axes"]) if axes is None else list(axes.tolist())


def _squeeze(attributes: Attributes, x: "Tensor", axes: "Tensor | None" = None) -> "Tensor":
    if axes is None and "axes" not in attributes:
        return x.squeeze()
    return x.squeeze(tuple(_axes(attributes, axes)))


def _unsqueeze(attributes: Attributes, x: "Tensor", axes: "Tensor | None" = None) -> "Tensor":
    given = _axes(attributes, axes)
    for axis in sorted(a % (x.ndim + len(given)) for a in given):
        x = x.unsqueeze(axis)
    return x


def _concat(attributes: Attributes, *inputs: "Tensor") -> "Tensor":
    return _torch().cat(inputs, attributes["axis"])  # type: ignore[no-any-return]


def _slice(
    attributes: Attributes,
    x: "Tensor",
    starts: "Tensor",
    ends: "Tensor",
    axes: "Tensor | None" = None,
    steps: "Tensor | None" = None,
) -> "Tensor":
    starts_, ends_ = starts.tolist(), ends.tolist()
    axes_ = list(range(len(starts_))) if axes is None else axes.tolist()
    steps_ = [1] * len(starts_) if steps is None else steps.tolist()
    for start, end, axis, step in zip(starts_, ends_, axes_, steps_, strict=True):
        rows = range(x.shape[axis])[start:end:step]
        index = _torch().tensor(list(rows), dtype=_torch().int64, device=x.device)
        whole = step == 1
        x = x.narrow(axis, rows.start, len(rows)) if whole else x.index_select(axis, index)
    return x


def _split(attributes: Attributes, x: "Tensor", sizes: "Tensor | None" = None) -> "tuple[Tensor, ...]":
    axis = attributes.get("axis", 0)
    if sizes is not None or "split" in attributes:
        return x.split(attributes["split"] if sizes is None else sizes.tolist(), axis)  # type: ignore[no-any-return, no-untyped-call]
    return x.split(-(-x.shape[axis] // attributes["num_outputs"]), axis)  # type: ignore[no-any-return, no-untyped-call]


def _gather(attributes: Attributes, x: "Tensor", index: "Tensor") -> "Tensor":
    axis = attributes.get("axis", 0) % x.ndim
    index = _torch().where(index < 0, index + x.shape[axis], index).to(_torch().int64)
    chosen = x.index_select(axis, index.reshape(-1))
    return chosen.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _pad(
    attributes: Attributes,
    x: "Tensor",
    pads: "Tensor",
    value: "Tensor | None" = None,
    axes: "Tensor | None" = None,
) -> "Tensor":
    mode = attributes.get("mode", b"constant").decode()
    sizes = pads.tolist()
    if axes is not None or mode != "constant":
        raise NotImplementedError
    both = [p for axis in reversed(range(x.ndim)) for p in (sizes[axis], sizes[x.ndim + axis])]
    return _torch().nn.functional.pad(x, both, value=0.0 if value is None else float(value))  # type: ignore[no-any-return]


def _expand(attributes: Attributes, x: "Tensor", shape: "Tensor") -> "Tensor":
    return x.expand(_torch().broadcast_shapes(x.shape, tuple(shape.tolist())))


_UNARY: dict[str, Function] = {
    **{op: _elementwise(name) for op, name in (("Relu", "relu"), ("Sigmoid", "sigmoid"), ("Tanh", "tanh"), ("Erf", "erf"), ("Exp", "exp"), ("Log", "log"), ("Sqrt", "sqrt"), ("Abs", "abs"), ("Neg", "neg"), ("Reciprocal", "reciprocal"), ("Floor", "floor"), ("Ceil", "ceil"), ("Round", "round"), ("Sin", "sin"), ("Cos", "cos"), ("Sign", "sign"), ("Not", "logical_not"))},
    **{op: _nn(name) for op, name in (("HardSwish", "hardswish"), ("Softplus", "softplus"), ("Mish", "mish"), ("Softsign", "softsign"))},
    "Identity": lambda attributes, x: x,
    "Dropout": lambda attributes, x, *_: x,
    "Clip": _clip,
    "LeakyRelu": lambda attributes, x: _torch().nn.functional.leaky_relu(x, attributes.get("alpha", 0.01)),
    "Elu": lambda attributes, x: _torch().nn.functional.elu(x, attributes.get("alpha", 1.0)),
    "PRelu": _prelu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Softmax": _softmax,
    "LogSoftmax": lambda attributes, x: x.log_softmax(attributes.get("axis", -1)),
    "Cast": _cast,
}  # fmt: skip
_ARITHMETIC: dict[str, Function] = {
    **{op: _elementwise(name) for op, name in (("Add", "add"), ("Sub", "sub"), ("Mul", "mul"), ("Pow", "pow"), ("MatMul", "matmul"), ("Where", "where"), ("Equal", "eq"), ("Greater", "gt"), ("GreaterOrEqual", "ge"), ("Less", "lt"), ("LessOrEqual", "le"), ("And", "logical_and"), ("Or", "logical_or"))},
    "Div": _divide,
    "Max": _most("maximum"),
    "Min": _most("minimum"),
    "Sum": _most("add"),
}  # fmt: skip
_LAYERS: dict[str, Function] = {
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("max"),
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
}
_SHAPES: dict[str, Function] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "Shape": lambda attributes, x: _torch().tensor(
        x.shape[attributes.get("start", 0) : attributes.get("end")]
    ),
}
_REDUCTIONS: dict[str, Function] = {
    **{op: _reduce(name) for op, name in (("ReduceMean", "mean"), ("ReduceSum", "sum"), ("ReduceMax", "amax"), ("ReduceMin", "amin"))},
    "ReduceL2": lambda attributes, x, *axes: _reduce("sum")(attributes, x * x, *axes).sqrt(),  # type: ignore[union-attr]
}  # fmt: skip
