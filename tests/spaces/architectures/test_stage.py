import pytest

from spaces.architectures.families.ds_cnn import DSCNN
from spaces.architectures.model import FamilyModel
from spaces.architectures.stage import ArchitectureStage
from spaces.candidate import Candidate
from spaces.errors import ConfigError, StageError
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.recovery.train import TrainStage
from spaces.space_config import read_space
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import StageContext
from spaces.stages.testing import StageConformance, noise_split
from spaces.stages.torch_artifact import module_digest

SHAPE, N_CLASSES = (1, 16, 16), 5


def model(tmp_path, **values):
    source = FamilyModel(DSCNN(), n_classes=N_CLASSES, input_shape=SHAPE, values=values)
    return source.load(LoadContext(None, tmp_path, trains=False))


def context():
    noise = noise_split(SHAPE)
    return StageContext(noise, Cache(), train=noise, accelerator="cpu")


class TestArchitectureStage(StageConformance):
    @pytest.fixture
    def stage(self):
        return ArchitectureStage(DSCNN(), N_CLASSES, values={"width": 8, "depth": 2})

    @pytest.fixture
    def artifact(self, tmp_path):
        return model(tmp_path, width=8, depth=2)

    @pytest.fixture
    def value_sets(self):
        return [
            {"halvings": 1, "growth": 2.0},
            {"depth": 4, "stem_stride": 1},
            {"width": 12},
            {"block": "full"},
            {"kernel": 5, "stem_kernel": 3},
        ]


def test_defaults_are_the_reference_network(tmp_path):
    reference = model(tmp_path, width=12)
    stage = ArchitectureStage(DSCNN(), N_CLASSES, values={"width": 12})
    made = stage.apply(reference, stage.defaults(), context())
    assert module_digest(made.model) == module_digest(reference.model)  # the same weights, from the same seed


def test_the_notes_have_counts_and_the_structure(tmp_path):
    start, stage = model(tmp_path), ArchitectureStage(DSCNN(), N_CLASSES)
    one, again, other = (
        stage.apply(start, {"width": w}, context()).notes["architecture"] for w in (8, 8, 12)
    )
    assert one == again
    assert one["structure"] != other["structure"]
    assert one["parameters"] < other["parameters"]
    assert one["parameters"] == DSCNN().counts({**stage.defaults(), "width": 8}, SHAPE, N_CLASSES).parameters


def test_what_exceeds_a_limit_is_never_built(tmp_path, monkeypatch):
    start = model(tmp_path)
    stage = ArchitectureStage(DSCNN(), N_CLASSES, limits={"parameters": 2000})
    monkeypatch.setattr(ArchitectureStage, "_built", lambda *_: pytest.fail("built"))
    with pytest.raises(StageError, match=r"the network has [\d,]+ parameters, more than the limit of 2,000"):
        stage.apply(start, {"width": 64}, context())


def test_a_later_study_finds_the_counts_in_the_cache(tmp_path, monkeypatch):
    start, shared = model(tmp_path), context()
    first, second = (
        ArchitectureStage(DSCNN(), N_CLASSES, limits={"parameters": most}) for most in (100_000, 2000)
    )
    first.canonical(start, {"width": 64}, shared)
    monkeypatch.setattr(DSCNN, "counts", lambda *_: pytest.fail("counted again"))
    with pytest.raises(StageError, match="more than the limit of 2,000"):
        second.canonical(start, {"width": 64}, shared)


def test_an_impossible_limit_is_refused_with_the_nearest_network(tmp_path):
    start = model(tmp_path)
    stage = ArchitectureStage(DSCNN(), N_CLASSES, limits={"parameters": 10})
    domains = {"width": (8, 16), "depth": (1, 2)}
    with pytest.raises(
        StageError, match=r"nearest found \(width=8, depth=1\) has \d+ parameters \(limit 10\)"
    ):
        stage.check(start, domains, context())


def test_a_space_without_a_valid_network_is_refused_with_the_reason(tmp_path):
    with pytest.raises(
        StageError, match=r"no combination of the knobs .*halvings=4 are more than the blocks"
    ):
        ArchitectureStage(DSCNN(), N_CLASSES).check(
            model(tmp_path), {"halvings": (4,), "depth": (1, 2)}, context()
        )


def test_the_space_says_which_share_is_possible(tmp_path):
    stage = ArchitectureStage(DSCNN(), N_CLASSES, limits={"parameters": 1000})
    (remark,) = stage.remarks(model(tmp_path), {"width": (8, 64), "depth": (1, 2)}, context())
    assert remark.startswith(
        "of 4 architectures 100% are valid networks, and 50% also have parameters of at most 1,000"
    )
    assert ArchitectureStage(DSCNN(), N_CLASSES).remarks(model(tmp_path), {"width": (8, 64)}, context()) == ()


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"flops": 1}, "limit 'flops'"), ({"macs": 0}, "above 0"), ({"macs": True}, "above 0"), ({"macs": "1 M"}, "above 0")],
)  # fmt: skip
def test_wrong_limits_are_refused(limits, message):
    with pytest.raises(ConfigError, match=message):
        ArchitectureStage(DSCNN(), N_CLASSES, limits=limits)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"widht": 8}, "widht"), ({"width": "8"}, "model.values.width must be"), ({"halvings": 3, "depth": 1}, "more than the blocks")],
)  # fmt: skip
def test_wrong_values_of_the_reference_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        FamilyModel(DSCNN(), n_classes=N_CLASSES, input_shape=SHAPE, values=values)


@pytest.fixture
def stages():
    return [
        ArchitectureStage(DSCNN(), N_CLASSES, values={"width": 8, "depth": 1}),
        TrainStage(1),
        ExportStage(),
    ]


def test_networks_are_not_built_for_canonical_values(tmp_path, stages, monkeypatch):
    """A sampler asks for the canonical values of thousands of candidates."""
    space = read_space({"architecture": {"width": [8, 12]}, "train": {"epochs": [1, 2]}}, stages)
    monkeypatch.setattr(ArchitectureStage, "apply", lambda *_: pytest.fail("built"))
    candidate = Candidate({"architecture.width": 12, "train.epochs": 2})
    values = Pipeline(stages).canonical(model(tmp_path), space, candidate, context())
    assert (values["architecture"]["width"], values["train"]["epochs"]) == (12, 2)


def test_the_network_that_is_trained_and_exported_is_the_candidates(tmp_path, stages):
    start = model(tmp_path, width=8, depth=1)
    made = Pipeline(stages).run(
        start, {"architecture": {"width": 12}, "train": {"epochs": 1, **_rest()}}, context()
    )
    shapes = {tuple(stored.dims) for stored in made.proto().graph.initializer}
    assert (12, 1, 5, 5) in shapes  # the first convolution
    assert made.notes["train"]["epochs"] == 1


def _rest():
    return {name: value for name, value in TrainStage(1).defaults().items() if name != "epochs"} | {
        "learning_rate": 0.01
    }


def test_candidates_share_a_training(tmp_path, stages):
    pipeline = Pipeline(stages)
    space = read_space({"architecture": {"width": [8, 12]}, "train": {"epochs": [0, 2]}}, stages)

    def key(width, epochs):
        candidate = Candidate({"architecture.width": width, "train.epochs": epochs})
        return pipeline.training(pipeline.canonical(model(tmp_path), space, candidate, context()))

    assert key(8, 2) == key(8, 2)
    assert key(8, 2)[1] == ("architecture", "train")
    assert key(8, 2)[0] != key(12, 2)[0]
    assert key(8, 0) == ("", ())
