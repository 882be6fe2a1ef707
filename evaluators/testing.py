"""Conformance tests that the test class of every evaluator inherits, with a tiny model and split to run them on.

A new evaluator's test is::

    class TestMine(EvaluatorConformance):
        def make_evaluator(self) -> Evaluator:
            return MineEvaluator()
"""

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from evaluators.base import EvaluationContext, Evaluator, Outline, Reference, Source
from evaluators.devices.device import Device
from evaluators.metric import MeanMetric
from evaluators.runtime import reference_outputs
from spaces.digest import digest_of
from spaces.stages.artifact import Artifact, InputSpec

_SHAPE = (3, 8, 8)
_CLASSES = 5
_OPSET = 21  # the first with 4-bit integers


@dataclass(frozen=True)
class RandomSplit:
    """Normally distributed inputs with random labels; implements `spaces.stages.artifact.Split`."""

    n: int = 32
    shape: tuple[int, ...] = _SHAPE
    seed: int = 0

    @property
    def digest(self) -> str:
        """Digest of the arguments, which determine the examples."""
        return digest_of(self.n, self.shape, self.seed)

    def __len__(self) -> int:
        return self.n

    def batches(
        self, batch_size: int, limit: int | None = None
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yields inputs `(b, *shape)` float32 and labels `(b,)` int64."""
        random = np.random.default_rng(self.seed)
        inputs = random.normal(size=(self.n, *self.shape)).astype(np.float32)
        labels = random.integers(_CLASSES, size=self.n)
        end = self.n if limit is None else min(limit, self.n)
        for start in range(0, end, batch_size):
            chosen = slice(start, min(start + batch_size, end))
            yield inputs[chosen], labels[chosen]


def model_from_text(text: str, stored: Mapping[str, NDArray[np.generic]]) -> Artifact:
    """Builds a model from ONNX's textual syntax.

    Args:
        text: `name (float[n,3,8,8] input) => (float[n,5] output) { y = Relu(x) ... }`.
        stored: Initializers by name; arrays of `ml_dtypes.int4` make INT4 tensors.
    """
    from onnx import numpy_helper, parser

    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": {_OPSET}, "com.microsoft": 1]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    return Artifact.onnx(model, InputSpec(shape, model.graph.input[0].name))


def tiny_model(weight_bits: int | None = None, batch: int | str = "n") -> Artifact:
    """Builds a Conv, Relu, GlobalAveragePool, Flatten, Gemm network for `RandomSplit`.

    Args:
        weight_bits: 8 or 4 quantizes the Conv: its weights per channel, its input and output to int8, as
            QuantizeLinear and DequantizeLinear around it. None leaves everything in floating point.
        batch: Size of the batch axis, or the name of a free one.
    """
    random = np.random.default_rng(7)
    kernel = random.normal(size=(4, 3, 3, 3)).astype(np.float32)
    dense = random.normal(size=(4, _CLASSES)).astype(np.float32)
    stored: dict[str, NDArray[np.generic]] = {
        "dense_weight": dense,
        "dense_bias": np.zeros(_CLASSES, np.float32),
    }
    stored |= {"kernel": kernel} if weight_bits is None else _quantized(kernel, weight_bits)
    return model_from_text(
        f"""tiny (float[{batch},3,8,8] input) => (float[{batch},{_CLASSES}] output) {{
            {_FLOAT_CONV if weight_bits is None else _INT8_CONV}
            pooled = GlobalAveragePool(features)
            flat = Flatten(pooled)
            output = Gemm(flat, dense_weight, dense_bias)
        }}""",
        stored,
    )


_FLOAT_CONV = """
    conv = Conv<pads = [1, 1, 1, 1]>(input, kernel)
    features = Relu(conv)
"""
_INT8_CONV = """
    weight = DequantizeLinear<axis = 0>(kernel_quantized, kernel_scale)
    input_quantized = QuantizeLinear(input, scale, zero)
    input_dequantized = DequantizeLinear(input_quantized, scale, zero)
    conv = Conv<pads = [1, 1, 1, 1]>(input_dequantized, weight)
    relu = Relu(conv)
    features_quantized = QuantizeLinear(relu, scale, zero)
    features = DequantizeLinear(features_quantized, scale, zero)
"""


def _quantized(kernel: NDArray[np.float32], bits: int) -> dict[str, NDArray[np.generic]]:
    import ml_dtypes

    scale = np.abs(kernel).max(axis=(1, 2, 3)) / np.float32(2 ** (bits - 1) - 1)
    integers = np.rint(kernel / scale[:, None, None, None]).astype(np.int8)
    return {
        "kernel_quantized": integers if bits == 8 else integers.astype(ml_dtypes.int4),
        "kernel_scale": scale,
        "scale": np.asarray(0.1, np.float32),
        "zero": np.asarray(0, np.int8),
    }


class _Right(MeanMetric):
    """The share of right classes; `evaluators.task` may not be imported here."""

    name, unit, scale, bounds = "top1", "%", 100.0, (0.0, 1.0)

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns 1 where the largest output is the label's, else 0; 0 where outputs are not finite."""
        right = (outputs.argmax(axis=1) == labels) & np.isfinite(outputs).all(axis=1)
        return np.asarray(right.astype(np.float64))


def tiny_context(reference: Artifact | None = None, n: int = 32) -> EvaluationContext:
    """Returns a context with `n` random examples, this machine, and a device that lists every common dtype."""
    reference = tiny_model() if reference is None else reference
    split = RandomSplit(n)
    throughputs = {"float32": {"default": 1e9}, "int8": {"default": 4e9}}
    devices = {
        "host": Device("host", runtime="onnxruntime", measured=True),
        "board": Device("board", runtime="some", macs_per_s=throughputs, memory_bandwidth_bytes_per_s=1e9),
    }
    return EvaluationContext(
        split, _Right(), Reference(reference, reference_outputs(reference, split)), devices
    )


class EvaluatorConformance:
    """Inherit and implement `make_evaluator`; override `make_artifacts` and `make_context` if other inputs are needed."""

    def make_evaluator(self) -> Evaluator:
        """Returns the evaluator under test."""
        raise NotImplementedError

    def make_artifacts(self) -> list[Artifact]:
        """Returns models that the evaluator must be able to evaluate; the first is the reference."""
        return [tiny_model(), tiny_model(weight_bits=8), tiny_model(weight_bits=4)]

    def make_context(self) -> EvaluationContext:
        """Returns the context of the evaluations."""
        return tiny_context(self.make_artifacts()[0])

    def test_has_a_name(self) -> None:
        """The name becomes a column, `seconds.<name>`."""
        assert self.make_evaluator().name.isidentifier()

    def test_measurements_are_sound(self) -> None:
        """Values are finite numbers with a unit and a source, of a device of the study, no column twice."""
        context, evaluator = self.make_context(), self.make_evaluator()
        for artifact in self.make_artifacts():
            evaluation = evaluator.evaluate(artifact, context)
            measurements = evaluation.measurements
            assert measurements or evaluation.details[evaluator.name]["absent_because"]
            assert all(math.isfinite(m.value) for m in measurements)
            assert all(m.name and m.unit and m.source in get_args(Source) for m in measurements)
            assert all(m.device is None or m.device in context.devices for m in measurements)
            assert len({m.column for m in measurements}) == len(measurements)

    def test_columns_are_those_that_it_said_it_can_have(self) -> None:
        """Names in objectives are checked by `columns` before anything is measured, so none may be lacking there."""
        context, evaluator = self.make_context(), self.make_evaluator()
        outline = Outline((context.metric, *context.others), context.devices, context.agreement)
        told = evaluator.columns(outline)
        if told is None:
            return
        found = {m.column for a in self.make_artifacts() for m in evaluator.evaluate(a, context).measurements}
        assert found | evaluator.possible(context) <= told

    def test_details_are_json(self) -> None:
        """Details must survive a journal, a tracker and a report: plain JSON without NaN."""
        for artifact in self.make_artifacts():
            details = self.make_evaluator().evaluate(artifact, self.make_context()).details
            assert json.loads(json.dumps(details, allow_nan=False)) == details

    def test_repeated_evaluations_agree(self) -> None:
        """A repeatable evaluator returns equal results; a timing at least returns the same columns."""
        evaluator, artifact = self.make_evaluator(), self.make_artifacts()[-1]
        first = evaluator.evaluate(artifact, self.make_context())
        second = evaluator.evaluate(artifact, self.make_context())
        if evaluator.repeatable:
            assert first == second
        assert [m.column for m in first.measurements] == [m.column for m in second.measurements]

    def test_evaluator_and_evaluation_can_be_pickled(self) -> None:
        """Evaluators are sent to worker processes, evaluations are sent back."""
        evaluator = pickle.loads(pickle.dumps(self.make_evaluator()))  # noqa: S301 (our own bytes)
        evaluation = evaluator.evaluate(self.make_artifacts()[0], self.make_context())
        assert pickle.loads(pickle.dumps(evaluation)) == evaluation  # noqa: S301

    def test_artifact_and_context_are_not_modified(self) -> None:
        """Artifacts and contexts are shared by all evaluators of a trial."""
        artifact, context = self.make_artifacts()[-1], self.make_context()
        outputs = context.reference.outputs.copy()
        self.make_evaluator().evaluate(artifact, context)
        assert Artifact.onnx(artifact.onnx_bytes, artifact.input).digest == artifact.digest
        assert np.array_equal(context.reference.outputs, outputs)
