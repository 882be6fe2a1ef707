"""Stages with the same settings share a constructor."""

import pickle
from functools import cached_property

import pytest

from spaces.errors import ConfigError
from spaces.pruning.iterative import IterativePruneStage
from spaces.pruning.prune import PruneStage
from spaces.pruning.sparsity.sparsify import SparsifyStage
from spaces.recovery.recover import RecoverStage

CUTTING, TRAINING = (PruneStage, IterativePruneStage), (SparsifyStage, RecoverStage)


@pytest.mark.parametrize("stages", [CUTTING, TRAINING])
def test_stages_share_a_constructor(stages):
    assert len({stage.__init__ for stage in stages}) == len({stage.config for stage in stages}) == 1


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        *(
            (s, {name: wrong})
            for s in CUTTING
            for name in ("min_channels", "n_examples")
            for wrong in (0, True)
        ),
        *((s, {"threads": wrong}) for s in (*CUTTING, *TRAINING) for wrong in (0, 1.5, True)),
        *((s, {"block_measure": "cosin"}) for s in CUTTING),
    ],
)
def test_an_error_names_the_configured_stage(stage, settings):
    with pytest.raises(ConfigError, match=rf"stage\.{stage.name}\.{next(iter(settings))}\b"):
        stage(**settings)


@pytest.mark.parametrize("stage", CUTTING)
def test_pruning_settings_survive_pickling(stage):
    settings = {"device": "a", "min_channels": 2, "n_examples": 3, "block_measure": "cosine", "threads": 5}
    assert pickle.loads(pickle.dumps(stage(**settings))).config() == settings


@pytest.mark.parametrize("stage", TRAINING)
def test_training_settings_survive_pickling(stage):
    assert pickle.loads(pickle.dumps(stage(threads=5))).config() == {"threads": 5}


class Own(PruneStage):
    """A user's stage with a further argument and a cached property that cannot be pickled."""

    def __init__(self, extra, threads=2):
        super().__init__(threads=threads)
        self.extra = extra

    @cached_property
    def found(self):
        return lambda: self.extra


def test_a_users_stage_keeps_its_class_and_arguments():
    stage = Own("x", threads=3)
    assert stage.found() == "x"
    state = stage.__getstate__()  # pickle cannot import classes of a test
    arrived = Own.__new__(Own)
    arrived.__dict__.update(state)
    assert (arrived.extra, arrived.threads, arrived.found()) == ("x", 3, "x")
    assert "found" not in state


def test_pruning_and_training_of_the_iterations_get_their_settings():
    stage = IterativePruneStage(device="a", min_channels=2, threads=5)
    assert stage._prune.config() == stage.config()
    assert stage._recover.config() == {"threads": 5}


class Passing(PruneStage):
    def __init__(self, mark, **settings):
        super().__init__(**settings)
        self.mark = mark
        self.n_applied = 0


def test_config_includes_arguments_passed_to_the_base_class_but_no_counters():
    assert Passing("x", threads=3).config() == {"mark": "x", **PruneStage(threads=3).config()}
    assert PruneStage(threads=3).config() == {
        "device": None, "min_channels": 4, "n_examples": 256, "block_measure": "output_change", "threads": 3
    }  # fmt: skip
