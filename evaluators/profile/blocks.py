"""The blocks that random image networks are made of."""

from collections.abc import Callable

import numpy as np

from evaluators.profile.sketch import Place, Sketch, channels

MOST_MACS = 1.2e8  # of one network, approximately
MOST_ELEMENTS = 1.3e6  # of one activation
MOST_WEIGHTS = 6e6  # of one network, approximately
# Networks have more channels at lower resolution: the side length times the channels stays within this range.
SIDE_TIMES_CHANNELS = (100.0, 12000.0)


def activation(sketch: Sketch, x: Place, probability: float = 0.8) -> Place:
    """Adds a random activation function with this probability, else nothing."""
    random = sketch.random
    if random.random() > probability:
        return x
    kind = str(random.choice(["Relu"] * 10 + ["Clip"] * 5 + ["HardSwish", "LeakyRelu", "Sigmoid"]))
    if kind == "Clip":
        return sketch.add("Clip", [x.name, sketch.weight((), 0.0), _six(sketch)], x.shape)
    return sketch.add(kind, [x.name], x.shape)


def _six(sketch: Sketch) -> str:
    from onnx import TensorProto, helper

    name = f"w{len(sketch.stored)}"
    sketch.stored.append(helper.make_tensor(name, TensorProto.FLOAT, [], [6.0]))
    return name


def _width(sketch: Sketch, x: Place, window: int, stride: int = 1) -> int:
    """Draws a number of output channels, an eighth to eight times those of `x`, within the limits on MACs and memory."""
    positions = x.shape[1] * x.shape[2] / stride**2
    most = min(
        1280.0,
        8.0 * x.shape[0] + 16,
        MOST_ELEMENTS / positions,
        SIDE_TIMES_CHANNELS[1] / positions**0.5,
        MOST_MACS / 3 / (positions * x.shape[0] * window**2),
        MOST_WEIGHTS / 3 / (x.shape[0] * window**2),
    )
    return channels(sketch, max(2.0, min(x.shape[0] / 8, most)), max(most, 2.0))


def _near(sketch: Sketch, x: Place) -> int:
    """Draws a number of channels between half and double those of `x`."""
    return channels(sketch, max(2, x.shape[0] / 2), min(1280, max(8, 2 * x.shape[0])))


def _stride(sketch: Sketch, x: Place) -> int:
    return 2 if min(x.shape[1:]) > 1 and sketch.random.random() < sketch.stride_share else 1


def _plain(sketch: Sketch, x: Place) -> Place:
    window = int(sketch.random.choice([1, 1, 3, 3, 3, 3, 5, 7]))
    stride = _stride(sketch, x)
    return activation(sketch, sketch.conv(x, _width(sketch, x, window, stride), window, stride))


def _depthwise(sketch: Sketch, x: Place) -> Place:
    window = int(sketch.random.choice([3, 3, 3, 5, 7]))
    x = activation(sketch, sketch.conv(x, x.shape[0], window, _stride(sketch, x), x.shape[0]), 0.9)
    return activation(sketch, sketch.conv(x, _width(sketch, x, 1), 1), 0.6)


def _inverted(sketch: Sketch, x: Place) -> Place:
    hidden = min(1280, int(sketch.random.choice([2, 3, 4, 6])) * x.shape[0])
    if hidden * x.shape[1] * x.shape[2] > MOST_ELEMENTS:
        return _depthwise(sketch, x)
    y = activation(sketch, sketch.conv(x, hidden, 1), 0.95)
    stride = _stride(sketch, x)
    y = activation(sketch, sketch.conv(y, hidden, int(sketch.random.choice([3, 3, 5])), stride, hidden), 0.95)
    if sketch.random.random() < 0.2:
        y = _squeeze_excite(sketch, y)
    same = stride == 1 and sketch.random.random() < 0.6
    y = sketch.conv(y, x.shape[0] if same else _width(sketch, x, 1), 1)
    return sketch.add("Add", [x.name, y.name], x.shape) if same else y


def _residual(sketch: Sketch, x: Place) -> Place:
    if x.shape[0] > 256 or x.elements * x.shape[0] * 18 > MOST_MACS / 2:
        return _inverted(sketch, x) if x.shape[0] < 200 else _squeeze_expand(sketch, x)
    stride = _stride(sketch, x)
    out = x.shape[0] if stride == 1 else 2 * x.shape[0]
    window = int(sketch.random.choice([3, 3, 3, 5]))
    y = activation(sketch, sketch.conv(x, out, window, stride), 0.9)
    y = sketch.conv(y, out, 3)
    if stride != 1:
        x = (
            sketch.conv(x, out, 1, stride)
            if sketch.random.random() < 0.6
            else _slice_and_pad(sketch, x, out, stride)
        )
    return activation(sketch, sketch.add("Add", [y.name, x.name], y.shape), 0.9)


def _slice_and_pad(sketch: Sketch, x: Place, out: int, stride: int) -> Place:
    """Adds a shortcut without weights: a strided slice, padded with zeros to `out` channels."""
    size = tuple((n - 1) // stride + 1 for n in x.shape[1:])
    if sketch.random.random() < 0.5:
        ints = [sketch.integers(v) for v in ([0, 0], [2**31, 2**31], [2, 3], [stride, stride])]
        x = sketch.add("Slice", [x.name, *ints], (x.shape[0], *size))
    else:
        for axis in (2, 3):
            ints = [sketch.integers(v) for v in ([0], [2**31], [axis], [stride])]
            shape = list(x.shape)
            shape[axis - 1] = size[axis - 2]
            x = sketch.add("Slice", [x.name, *ints], tuple(shape))
    before = int(sketch.random.integers(out - x.shape[0] + 1))
    pads = [0, before, 0, 0, 0, out - x.shape[0] - before, 0, 0]
    return sketch.add("Pad", [x.name, sketch.integers(pads), sketch.weight((), 0.0)], (out, *size))


def _squeeze_expand(sketch: Sketch, x: Place) -> Place:
    squeezed = channels(sketch, 4, min(96, max(4, x.shape[0] / 2)))
    y = activation(sketch, sketch.conv(x, squeezed, 1), 0.95)
    most = min(
        512,
        MOST_ELEMENTS / 2 / (x.shape[1] * x.shape[2]),
        MOST_MACS / 30 / (x.shape[1] * x.shape[2] * squeezed),
    )
    parts = []
    for window in sorted(
        sketch.random.choice([1, 3, 3, 5], size=int(sketch.random.integers(2, 4)), replace=False)
    ):
        out = channels(sketch, 4, max(4, most))
        parts.append(activation(sketch, sketch.conv(y, out, int(window)), 0.95))
    shape = (sum(p.shape[0] for p in parts), *x.shape[1:])
    return sketch.add("Concat", [p.name for p in parts], shape, axis=1)


def _grouped(sketch: Sketch, x: Place) -> Place:
    groups = int(sketch.random.choice([2, 4, 8]))
    channels = max(groups, x.shape[0] // groups * groups)
    if channels != x.shape[0]:
        x = sketch.conv(x, channels, 1)
    out = max(groups, min(512, _near(sketch, x)) // groups * groups)
    return activation(sketch, sketch.conv(x, out, 3, _stride(sketch, x), groups))


def _squeeze_excite(sketch: Sketch, x: Place) -> Place:
    inner = max(2, x.shape[0] // int(sketch.random.choice([4, 8, 16])))
    y = sketch.add("GlobalAveragePool", [x.name], (x.shape[0], 1, 1))
    y = sketch.conv(y, inner, 1)
    y = sketch.add("Relu", [y.name], y.shape)
    y = sketch.conv(y, x.shape[0], 1)
    y = sketch.add(str(sketch.random.choice(["Sigmoid", "HardSigmoid"])), [y.name], y.shape)
    return sketch.add("Mul", [x.name, y.name], x.shape)


def _pool(sketch: Sketch, x: Place) -> Place:
    window = min(int(sketch.random.choice([2, 3, 3])), *x.shape[1:])
    stride = int(sketch.random.choice([1, 2, 2])) if window > 1 else 1
    pads = int(sketch.random.integers(2)) if window == 3 else 0
    size = tuple((n + 2 * pads - window) // stride + 1 for n in x.shape[1:])
    op = str(sketch.random.choice(["MaxPool", "MaxPool", "AveragePool"]))
    shape = (x.shape[0], *size)
    return sketch.add(op, [x.name], shape, kernel_shape=[window] * 2, strides=[stride] * 2, pads=[pads] * 4)


def _enlarge(sketch: Sketch, x: Place) -> Place:
    if x.elements * 4 > MOST_ELEMENTS / 2:
        return _pool(sketch, x)
    shape = (x.shape[0], 2 * x.shape[1], 2 * x.shape[2])
    scales = sketch.weight((4,), 0.0)
    sketch.stored[-1].raw_data = np.array([1, 1, 2, 2], np.float32).tobytes()
    return sketch.add("Resize", [x.name, "", scales], shape, mode="nearest")


BLOCKS: dict[str, tuple[Callable[[Sketch, Place], Place], float]] = {
    "plain": (_plain, 5),
    "depthwise": (_depthwise, 3),
    "inverted": (_inverted, 4),
    "residual": (_residual, 4),
    "squeeze_expand": (_squeeze_expand, 3),
    "grouped": (_grouped, 0.5),
    "squeeze_excite": (_squeeze_excite, 0.5),
    "pool": (_pool, 2),
    "enlarge": (_enlarge, 0.3),
}
