"""Random small networks, whose kernels are timed between the kernels that precede and follow them in real networks.

A kernel alone in a session runs on warm caches and in a layout that it never has in a network; so the kernels are part
of chains, residual blocks, branches and heads. The shapes are log-uniform over the ranges of small networks, and
no known architecture is among them.
"""

import numpy as np

from evaluators.profile.blocks import (
    BLOCKS,
    MOST_ELEMENTS,
    MOST_MACS,
    MOST_WEIGHTS,
    SIDE_TIMES_CHANNELS,
    activation,
)
from evaluators.profile.sketch import Place, Random, Sketch, channels, log_int
from spaces.stages.artifact import Artifact

GRAINS = (
    1,
    2,
    4,
    8,
    8,
    8,
    8,
    16,
    16,
    16,
    16,
    16,
    16,
    32,
)  # channel counts of a network are multiples of its grain


def random_network(random: Random) -> Artifact:
    """Draws a float network of up to a dozen blocks."""
    kind = random.random()
    sketch = Sketch(
        random, grain=int(random.choice(GRAINS)), stride_share=float(random.choice([0.1, 0.25, 0.5]))
    )
    if kind < 0.06:
        return _dense_network(sketch)
    if kind < 0.1:
        return _token_network(sketch)
    return _image_network(sketch)


def _dense_network(sketch: Sketch) -> Artifact:
    random = sketch.random
    shape = (channels(sketch, 8, 2048),)
    x = Place("input", shape)
    for _ in range(int(random.integers(2, 11))):
        out = channels(sketch, 4, 1536)
        if sketch.weights + x.shape[0] * out > MOST_WEIGHTS:
            break
        x = sketch.gemm(x, out)
        x = activation(sketch, x, 0.75)
    x = sketch.gemm(x, channels(sketch, 2, 1000))
    return sketch.artifact(shape, _maybe_softmax(sketch, x))


def _token_network(sketch: Sketch) -> Artifact:
    random = sketch.random
    shape = (log_int(random, 4, 200), channels(sketch, 16, 384))
    x = Place("input", shape)
    for _ in range(int(random.integers(1, 4))):
        if random.random() < 0.6:
            x = _attention(sketch, x)
        y = sketch.matmul(_layer_norm(sketch, x), channels(sketch, x.shape[1], 4 * x.shape[1]))
        y = sketch.add(str(random.choice(["Gelu", "Relu"])), [y.name], y.shape)
        y = sketch.matmul(y, x.shape[1])
        x = sketch.add("Add", [x.name, y.name], x.shape)
        if sketch.macs > MOST_MACS / 2 or sketch.weights > MOST_WEIGHTS / 2:
            break
    pooled = sketch.add("ReduceMean", [x.name, sketch.integers([1])], (x.shape[1],), keepdims=0)
    return sketch.artifact(shape, sketch.gemm(pooled, channels(sketch, 2, 1000)))


def _layer_norm(sketch: Sketch, x: Place) -> Place:
    scale, bias = sketch.weight(x.shape[-1:], 1.0), sketch.weight(x.shape[-1:], 0.1)
    return sketch.add("LayerNormalization", [x.name, scale, bias], x.shape, axis=-1)


def _attention(sketch: Sketch, x: Place) -> Place:
    random = sketch.random
    rows, width = x.shape
    heads = next(h for h in (int(random.choice([1, 2, 4, 8])), 1) if width % h == 0)
    y = _layer_norm(sketch, x)
    split = []
    for order in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        z = sketch.matmul(y, width)
        z = sketch.add(
            "Reshape",
            [z.name, sketch.integers([-1, rows, heads, width // heads])],
            (rows, heads, width // heads),
        )
        split.append(sketch.add("Transpose", [z.name], z.shape, perm=order))
    scores = sketch.add("MatMul", [split[0].name, split[1].name], (heads, rows, rows))
    scores = sketch.add("Mul", [scores.name, sketch.weight((1,), 0.1)], scores.shape)
    scores = sketch.add("Softmax", [scores.name], scores.shape, axis=-1)
    mixed = sketch.add("MatMul", [scores.name, split[2].name], (heads, rows, width // heads))
    mixed = sketch.add("Transpose", [mixed.name], (rows, heads, width // heads), perm=(0, 2, 1, 3))
    mixed = sketch.add("Reshape", [mixed.name, sketch.integers([-1, rows, width])], x.shape)
    sketch.macs += 2 * rows * rows * width
    return sketch.add("Add", [x.name, sketch.matmul(mixed, width).name], x.shape)


def _image_network(sketch: Sketch) -> Artifact:
    random = sketch.random
    height = log_int(random, 3, 230)
    width = height if random.random() < 0.85 else max(1, round(height * random.uniform(0.2, 1)))
    stem = random.random() < 0.4
    least, most = (n / height for n in SIDE_TIMES_CHANNELS)
    most = min(1280.0, MOST_ELEMENTS / 2 / (height * width), most)
    n_channels = (
        int(random.choice([1, 3, 3, 3]))
        if stem
        else channels(sketch, max(2.0, min(least, most)), max(most, 2))
    )
    shape = (n_channels, height, width)
    x = Place("input", shape)
    if random.random() < 0.15:  # as exported from a framework with channels last
        shape = (height, width, n_channels)
        x = sketch.add("Transpose", ["input"], (n_channels, height, width), perm=[0, 3, 1, 2])
    most_macs = log_int(random, 3e5, MOST_MACS)
    if stem:
        out = channels(sketch, 8, min(64, MOST_ELEMENTS / (height * width)))
        stride = int(random.choice([1, 2, 2])) if height < 64 else int(random.choice([2, 2, 4]))
        x = activation(sketch, sketch.conv(x, out, int(random.choice([3, 3, 5, 7])), stride), 0.9)
    names = list(BLOCKS)
    weights = np.array([BLOCKS[name][1] for name in names])
    for _ in range(int(random.integers(1, 16))):
        x = BLOCKS[str(random.choice(names, p=weights / weights.sum()))][0](sketch, x)
        if sketch.macs > most_macs or sketch.weights > MOST_WEIGHTS:
            break
    return sketch.artifact(shape, _head(sketch, x))


def _head(sketch: Sketch, x: Place) -> Place:
    random = sketch.random
    kind = random.random()
    if kind < 0.15 and x.elements < 16384:
        x = sketch.add("Flatten", [x.name], (x.elements,), axis=1)
    elif kind < 0.25:
        return x
    elif kind < 0.6:
        shape = (x.shape[0], 1, 1)
        x = sketch.add("ReduceMean", [x.name, sketch.integers([2, 3])], shape, keepdims=1)
        x = sketch.add("Reshape", [x.name, sketch.integers([-1, x.shape[0]])], x.shape[:1])
    else:
        if random.random() < 0.4:
            x = sketch.add("AveragePool", [x.name], (x.shape[0], 1, 1), kernel_shape=list(x.shape[1:]))
        else:
            x = sketch.add("GlobalAveragePool", [x.name], (x.shape[0], 1, 1))
        x = sketch.add("Flatten", [x.name], x.shape[:1], axis=1)
    if random.random() < 0.9:
        most = min(1024, MOST_WEIGHTS / 2 / x.shape[0])
        x = sketch.gemm(
            x, log_int(random, 2, most) if random.random() < 0.5 else log_int(random, most / 4, most)
        )
    return _maybe_softmax(sketch, x)


def _maybe_softmax(sketch: Sketch, x: Place) -> Place:
    return sketch.add("Softmax", [x.name], x.shape, axis=-1) if sketch.random.random() < 0.4 else x
