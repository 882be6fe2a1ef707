"""Conformance tests of families, to be inherited.

::

    class TestMyFamily(FamilyConformance):
        @pytest.fixture
        def family(self): return MyFamily()

A family that needs other inputs than small images overrides the fixture `input_shape` as well.
"""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pytest

from spaces.architectures.counting import counts_of
from spaces.architectures.family import Family, Shape
from spaces.architectures.stage import ArchitectureStage
from spaces.code_digest import code_digest
from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

N_OUTPUTS = 5


class FamilyConformance:
    """Tests that every family must pass. Inherit it, and define at least the fixture `family`."""

    tolerance: ClassVar[float] = (
        1e-4  # of the ONNX file's outputs from torch's, relative to the largest output
    )
    # values that make the network small that is exported and that knobs are changed of; by default the reference network
    small: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def family(self) -> Family:
        """The family under test."""
        raise NotImplementedError("define a fixture named `family`")

    @pytest.fixture
    def input_shape(self) -> Shape:
        """Shape of one example."""
        return (3, 32, 32)

    @pytest.fixture
    def value_sets(self, family: Family) -> list[dict[str, Any]]:
        """Values to try: the defaults, and every knob's other values or bounds that build a network, one at a time."""
        return []

    @pytest.fixture
    def networks(
        self, family: Family, input_shape: Shape, value_sets: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """All values to try that build a network."""
        single = [{**self.small, knob.name: value} for knob in family.knobs for value in _others(knob)]
        whole = [{**family.defaults(), **values} for values in ({}, *value_sets, *single)]
        return [values for values in whole if family.broken(values, input_shape) is None]

    def test_counts_equal_those_of_the_built_network(
        self, family: Family, input_shape: Shape, networks: list[dict[str, Any]]
    ) -> None:
        """What is counted without weights is what a network with weights has."""
        for values in networks:
            module = family.build(values, input_shape, N_OUTPUTS)
            assert family.counts(values, input_shape, N_OUTPUTS) == counts_of(
                module, input_shape, _dtype(family)
            ), values

    def test_every_knob_changes_the_network(
        self,
        family: Family,
        input_shape: Shape,
        value_sets: list[dict[str, Any]],
        networks: list[dict[str, Any]],
    ) -> None:
        """A knob that changes nothing at the other knobs' defaults must do so in one of the value sets."""
        for knob in family.knobs:
            changed = [
                family.canonical({**base, knob.name: value})
                for base in networks
                for value in _others(knob)
                if family.broken({**base, knob.name: value}, input_shape) is None
            ]
            assert any(values[knob.name] != knob.default for values in changed), knob.name

    def test_canonical_values_build_the_same_network(
        self, family: Family, input_shape: Shape, networks: list[dict[str, Any]]
    ) -> None:
        """Canonical values are settled, and their network has the same layers."""
        for values in networks:
            canonical = family.canonical(values)
            assert family.canonical(canonical) == canonical
            assert _text(family, values, input_shape) == _text(family, canonical, input_shape)

    def test_broken_values_are_refused_with_the_reason(self, family: Family, input_shape: Shape) -> None:
        """Values that build no network are refused by the stage, with the family's reason."""
        stage = ArchitectureStage(family, N_OUTPUTS)
        start, context = _start(family, input_shape), _context(family, input_shape)
        for knob in family.knobs:
            for value in _others(knob):
                values = {**family.defaults(), knob.name: value}
                if (why := family.broken(family.canonical(values), input_shape)) is not None:
                    with pytest.raises(StageError, match=r".") as caught:
                        stage.canonical(start, values, context)
                    assert why in str(caught.value)

    def test_the_onnx_file_computes_what_torch_does(self, family: Family, input_shape: Shape) -> None:
        """The exported file gives the outputs of the torch network."""
        start = _start(family, input_shape, self.small)
        inputs = start.input.noise(4, seed=1)
        context = _context(family, input_shape)
        wanted = _torch(start, inputs)
        for each in (context, replace(context, draft=True)):
            found = _run(ExportStage().apply(start, {}, each), inputs)
            assert np.abs(found - wanted).max() <= self.tolerance * max(1.0, np.abs(wanted).max())

    def test_8_bits_run_in_onnxruntime(self, family: Family, input_shape: Shape) -> None:
        """The quantized file runs in plain onnxruntime."""
        start, context = _start(family, input_shape, self.small), _context(family, input_shape)
        stage = QuantizeStage()
        exported = ExportStage().apply(start, {}, context)
        values = stage.canonical(exported, stage.defaults() | {"calibration_images": 8}, context)
        outputs = _run(stage.apply(exported, values, context), start.input.noise(4, seed=1))
        assert outputs.shape == _torch(start, start.input.noise(4, seed=1)).shape
        assert np.isfinite(outputs).all()

    def test_pickled_it_builds_the_same(self, family: Family, input_shape: Shape) -> None:
        """A family that was shipped to a worker builds the same networks."""
        other = pickle.loads(pickle.dumps(family))  # noqa: S301 - our own object, as an executor ships it
        assert other.settings() == family.settings()
        assert _text(other, family.defaults(), input_shape) == _text(family, family.defaults(), input_shape)
        assert code_digest(type(other)) == code_digest(type(family))


def _others(knob: Any) -> list[Any]:
    """Returns the values of a knob besides the default: all that are listed, else the bounds."""
    listed = knob.allowed if knob.allowed is not None else (knob.low, *_between(knob), *knob.words)
    return [value for value in listed if value is not None and value != knob.default]


def _between(knob: Any) -> list[Any]:
    """Returns a value near the default, instead of an upper bound that makes a huge network."""
    if knob.high is None:
        return []
    step = 1 if isinstance(knob.default, int) else (knob.high - (knob.low or 0.0)) / 8
    return [min(knob.high, knob.default + step)]


def _text(family: Family, values: Any, input_shape: Shape) -> str:
    import torch

    with torch.device("meta"):
        return str(family.build(values, input_shape, N_OUTPUTS))


def _spec(family: Family, input_shape: Shape) -> InputSpec:
    return InputSpec(input_shape, dtype=family.input_dtype)


def _dtype(family: Family) -> Any:
    import torch

    return getattr(torch, family.input_dtype)


def _start(family: Family, input_shape: Shape, values: Mapping[str, Any] = MappingProxyType({})) -> Artifact:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = family.build({**family.defaults(), **values}, input_shape, N_OUTPUTS)
    return torch_artifact(module.eval(), _spec(family, input_shape))


def _context(family: Family, input_shape: Shape) -> StageContext:
    inputs = _spec(family, input_shape).noise(32)
    assert isinstance(inputs, np.ndarray)
    return StageContext(ArraySplit(inputs, np.zeros(32, np.int64)), Cache(), accelerator="cpu")


def _torch(artifact: Artifact, inputs: Any) -> Any:
    import torch

    assert isinstance(artifact.model, torch.nn.Module)
    with torch.no_grad():
        return artifact.model(torch.from_numpy(inputs)).numpy()


def _run(artifact: Artifact, inputs: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(artifact.onnx_bytes, providers=["CPUExecutionProvider"])
    return session.run(None, {artifact.input.name: inputs})[0]
