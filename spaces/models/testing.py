"""Conformance tests of model sources: inherit the class and define the fixture `source`."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from spaces.models.base import LoadContext, ModelSource
from spaces.models.export import ExportStage
from spaces.models.layers import QUANTIZABLE, layers
from spaces.models.onnx.opset import run
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.inputs import Inputs, packed
from spaces.stages.stage import StageContext


class ModelSourceConformance:
    """Inherit it in a test module::

        class TestMyModel(ModelSourceConformance):
            @pytest.fixture
            def source(self) -> ModelSource:
                return MyModel(...)

    A source that trains overrides the `context` fixture, too.
    """

    @pytest.fixture
    def source(self) -> ModelSource:
        """Returns the source under test."""
        raise NotImplementedError("define a fixture `source` that returns the model source")

    @pytest.fixture
    def context(self, tmp_path: Path) -> LoadContext:
        """Returns the context that the source is loaded with."""
        return LoadContext(train=None, cache_dir=tmp_path)

    def test_loading_is_deterministic(self, source: ModelSource, context: LoadContext) -> None:
        """The same file (or seed) gives the same digest, and torch's global random state does not change."""
        import torch

        before = torch.random.get_rng_state()
        assert source.load(context).digest == source.load(context).digest
        assert torch.equal(before, torch.random.get_rng_state())

    def test_artifact_survives_pickling(self, source: ModelSource, context: LoadContext) -> None:
        """A pickled and unpickled network computes the same outputs."""
        artifact = source.load(context)
        copy = pickle.loads(pickle.dumps(artifact))  # noqa: S301 (our own bytes)
        x = artifact.input.noise(2)
        np.testing.assert_array_equal(outputs_of(copy, x), outputs_of(artifact, x))

    def test_export_agrees_with_the_network(self, source: ModelSource, context: LoadContext) -> None:
        """The exported file gives the same outputs for batches of 1 and 7, and has the expected form."""
        artifact = source.load(context)
        exported = ExportStage().apply(artifact, {}, StageContext(None, Cache()))
        assert [t.shape for t in exported.input.tensors] == [t.shape for t in artifact.input.tensors]
        assert_exported_form(exported)
        for n in (1, 7):
            x = artifact.input.noise(n)
            expected, actual = outputs_of(artifact, x), outputs_of(exported, x)
            assert actual.shape == expected.shape
            assert len(actual) == n
            assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
        if not isinstance(artifact.model, bytes):
            assert {layer.name for layer in layers(exported.proto())} <= set(artifact.model.state_dict())


def assert_exported_form(artifact: Artifact) -> None:
    """Asserts the form that `ExportStage` guarantees: valid, unique node names, constants as initializers."""
    import onnx

    proto = artifact.proto()
    onnx.checker.check_model(proto, full_check=True)
    names = [node.name for node in proto.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    kinds = [node.op_type for node in proto.graph.node]
    assert not {"Constant", "Identity", "Dropout"} & set(kinds)
    initializers = {i.name for i in proto.graph.initializer}
    assert not initializers & {i.name for i in proto.graph.input}
    constant = {n.op_type: n for n in proto.graph.node if n.input and set(n.input) <= initializers}
    assert not constant, f"not folded: {list(constant)}"
    weighted = sum(kind in QUANTIZABLE for kind in kinds)
    assert len(layers(proto)) <= weighted  # a MatMul of two activations has no weight
    assert not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value, "the batch axis is not dynamic"


def outputs_of(artifact: Artifact, x: Inputs) -> NDArray[np.float32]:
    """Returns the outputs `(n, ...)` of a torch or ONNX artifact on a batch of inputs."""
    if isinstance(artifact.model, bytes):
        return run(artifact.proto(), artifact.input, x)
    import torch

    assert not artifact.model.training
    with torch.no_grad():
        result: NDArray[np.float32] = artifact.model(torch.from_numpy(packed(x))).numpy()
    return result
