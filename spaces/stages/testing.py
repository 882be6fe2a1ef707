"""Conformance tests of stages, to be inherited.

::

    class TestMyStage(StageConformance):
        @pytest.fixture
        def stage(self): return MyStage()

A stage that needs a certain network overrides the fixture `artifact` as well.
"""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from spaces.candidate import StageValue, Value
from spaces.errors import StageError
from spaces.knob_spec import KnobSpec
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec, Kind
from spaces.stages.cache import Cache
from spaces.stages.stage import Stage, StageContext

ValueSet = Mapping[str, StageValue]


def noise_split(shape: tuple[int, ...], n: int = 32, seed: int = 0) -> ArraySplit:
    """Returns `n` examples of normal noise, labelled 0."""
    inputs = np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)
    return ArraySplit(inputs, np.zeros(n, np.int64))


def content_of(artifact: Artifact) -> object:
    """Returns the current content of the artifact's model: the ONNX bytes, or a digest of the module."""
    if isinstance(artifact.model, bytes):
        return artifact.model
    from spaces.stages.torch_artifact import module_digest

    return module_digest(artifact.model)


_SHAPE, _N_FILTERS, _N_CLASSES = (3, 8, 8), 8, 5
_ONNX = f"""<ir_version: 10, opset_import: ["": 21]>
small (float[n,3,8,8] input) => (float[n,{_N_CLASSES}] output) {{
    filtered = Conv<kernel_shape = [3, 3]>(input, conv_weight, conv_bias)
    rectified = Relu(filtered)
    pooled = GlobalAveragePool(rectified)
    flat = Flatten(pooled)
    output = Gemm<transB = 1>(flat, linear_weight, linear_bias)
}}"""


def small_artifact(kind: Kind) -> Artifact:
    """Returns a network of a convolution, ReLU, average pooling and a linear layer, `(n, 3, 8, 8)` -> `(n, 5)`."""
    random = np.random.default_rng(7)
    filters = random.normal(size=(_N_FILTERS, 3, 3, 3)).astype(np.float32)
    linear = random.normal(size=(_N_CLASSES, _N_FILTERS)).astype(np.float32)
    return _small_onnx(filters, linear) if kind == "onnx" else _small_torch(filters, linear)


def _small_onnx(filters: NDArray[np.float32], linear: NDArray[np.float32]) -> Artifact:
    from onnx import numpy_helper, parser

    model = parser.parse_model(_ONNX)
    weights = {"conv_weight": filters, "linear_weight": linear}
    biases = {name.replace("weight", "bias"): np.zeros(len(w), np.float32) for name, w in weights.items()}
    stored = {**weights, **biases}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    return Artifact.onnx(model, InputSpec(_SHAPE, "input"))


def _small_torch(filters: NDArray[np.float32], linear: NDArray[np.float32]) -> Artifact:
    import torch
    from torch import nn

    from spaces.stages.torch_artifact import torch_artifact

    conv, last = nn.Conv2d(3, _N_FILTERS, 3), nn.Linear(_N_FILTERS, _N_CLASSES)
    for layer, weight in ((conv, filters), (last, linear)):
        zeros = torch.zeros(len(weight))
        layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": zeros})
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    return torch_artifact(network.eval(), InputSpec(_SHAPE))


class StageConformance:
    """Tests that every stage must pass. Inherit it, and define at least the fixture `stage`."""

    @pytest.fixture
    def stage(self) -> Stage:
        """The stage under test."""
        raise NotImplementedError("define a fixture named `stage`")

    @pytest.fixture
    def artifact(self, stage: Stage) -> Artifact:
        """A small model that the stage can take."""
        return small_artifact(stage.consumes[0])

    @pytest.fixture
    def context(self, artifact: Artifact) -> StageContext:
        """A context with noise of the artifact's input shape as data; a torch network is its own teacher."""
        noise = noise_split(artifact.input.shape)
        teacher = artifact if artifact.kind == "torch" else None
        return StageContext(noise, Cache(), train=noise, teacher=teacher, accelerator="cpu")

    @pytest.fixture
    def value_sets(self) -> list[ValueSet]:
        """Values to try besides the defaults; knobs that are not named keep their defaults.

        A knob that has an effect only with certain values of others needs a set with these values.
        """
        return []

    @pytest.fixture
    def bases(self, stage: Stage, value_sets: list[ValueSet]) -> list[dict[str, StageValue]]:
        """The defaults and the value sets, with a value for every knob."""
        return [stage.defaults() | dict(values) for values in ({}, *value_sets)]

    def alternatives(self, knob: KnobSpec) -> tuple[Value, ...]:
        """Returns values of a knob to try besides its default."""
        if knob.allowed is not None:
            return tuple(value for value in knob.allowed if value != knob.default)
        if knob.list_of_globs:
            return (("*",),)
        if knob.shares:
            return ((0.25, 0.75),)
        ends = [kind for kind in (knob.low, knob.high) if kind is not None]
        values = [int(end) if isinstance(knob.default, int) else float(end) for end in ends]
        others = tuple(value for value in values if value != knob.default)
        if not others and isinstance(knob.default, int) and knob.high is None:
            return (knob.default + 1,)
        return others

    def test_takes_what_it_consumes(self, stage: Stage, artifact: Artifact) -> None:
        """The artifact of the test is of a kind that the stage consumes."""
        assert artifact.kind in stage.consumes

    def test_defaults_are_allowed(self, stage: Stage) -> None:
        """Every knob's default passes the knob's own check, and names are unique."""
        assert {knob.name: knob.problem(knob.default) for knob in stage.knobs} == dict.fromkeys(
            stage.defaults()
        )
        assert len(stage.defaults()) == len(stage.knobs)

    def test_describes_its_knobs(self, stage: Stage) -> None:
        """Every knob has a description."""
        assert [knob.name for knob in stage.knobs if not knob.description] == []

    def test_is_pure(
        self, stage: Stage, artifact: Artifact, context: StageContext, bases: list[dict[str, StageValue]]
    ) -> None:
        """Repeated calls, also of an unpickled copy of the stage, give the same file and keep the input."""
        before = content_of(artifact)
        copy = pickle.loads(pickle.dumps(stage))  # noqa: S301 - our own object, as an executor ships it
        assert type(copy) is type(stage)
        fresh = replace(context, cache=Cache())
        for values in bases:
            first = stage.apply(artifact, values, context)
            assert first.kind == stage.produces
            assert stage.apply(artifact, values, context).digest == first.digest
            assert copy.apply(artifact, values, fresh).digest == first.digest
        assert content_of(artifact) == before

    def test_adds_one_step_of_provenance(
        self, stage: Stage, artifact: Artifact, context: StageContext
    ) -> None:
        """The result's provenance is the input's, followed by one step of this stage."""
        result = stage.apply(artifact, stage.defaults(), context)
        assert result.provenance[:-1] == artifact.provenance
        assert result.provenance[-1].stage == stage.name

    def test_canonical_is_idempotent(
        self, stage: Stage, artifact: Artifact, context: StageContext, bases: list[dict[str, StageValue]]
    ) -> None:
        """A canonical setting is its own canonical setting, and has a value for every knob."""
        for values in bases:
            once = stage.canonical(artifact, values, context)
            assert stage.canonical(artifact, once, context) == once
            assert set(once) == {knob.name for knob in stage.knobs}

    def test_canonical_values_mean_the_same_file(
        self, stage: Stage, artifact: Artifact, context: StageContext, bases: list[dict[str, StageValue]]
    ) -> None:
        """Settings with equal canonical values give the same file."""
        for values in bases:
            digest = stage.apply(artifact, values, context).digest
            for changed in self._changed(stage, values):
                once = self._canonical(stage, artifact, changed, context)
                if once == stage.canonical(artifact, values, context):
                    assert stage.apply(artifact, changed, context).digest == digest
            assert stage.apply(artifact, stage.canonical(artifact, values, context), context).digest == digest

    def test_every_knob_matters(
        self, stage: Stage, artifact: Artifact, context: StageContext, bases: list[dict[str, StageValue]]
    ) -> None:
        """Each knob changes the file for some values of the others, or is listed in `empty_knobs`."""
        domains = {knob.name: (knob.default, *self.alternatives(knob)) for knob in stage.knobs}
        empty = stage.empty_knobs(artifact, domains, context)
        assert [name for name, reason in empty.items() if name not in domains or not reason] == []
        for knob in stage.knobs:
            matters = any(self._matters(stage, artifact, context, values, knob) for values in bases)
            assert matters or knob.name in empty, f"knob {knob.name!r} never changes the file"
            assert not (matters and knob.name in empty), (
                f"knob {knob.name!r} is listed as empty, but has an effect"
            )

    def _matters(
        self,
        stage: Stage,
        artifact: Artifact,
        context: StageContext,
        values: dict[str, StageValue],
        knob: KnobSpec,
    ) -> bool:
        digest = stage.apply(artifact, values, context).digest
        for alternative in self.alternatives(knob):
            changed = values | {knob.name: alternative}
            if self._canonical(stage, artifact, changed, context) is None:
                continue
            if stage.apply(artifact, changed, context).digest != digest:
                return True
        return False

    def _changed(self, stage: Stage, values: dict[str, StageValue]) -> Iterator[dict[str, StageValue]]:
        for knob in stage.knobs:
            for alternative in self.alternatives(knob):
                yield values | {knob.name: alternative}

    def _canonical(
        self, stage: Stage, artifact: Artifact, values: ValueSet, context: StageContext
    ) -> dict[str, StageValue] | None:
        """Returns the canonical values; None if the stage raises StageError for the combination."""
        try:
            return stage.canonical(artifact, values, context)
        except StageError:
            return None
