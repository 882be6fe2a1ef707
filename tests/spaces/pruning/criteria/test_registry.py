"""Criteria of a user's own beside the built-in ones."""

import pickle

import pytest
import torch

from spaces.errors import ConfigError
from spaces.pruning.criteria.criterion import Criterion
from spaces.pruning.criteria.registry import BUILT_IN, Criteria
from spaces.pruning.iterative import IterativePruneStage
from spaces.pruning.prune import PruneStage

STAGES = (PruneStage, IterativePruneStage)


class ByPosition(Criterion):
    """Scores a channel by its position, first or last ones lowest."""

    name = "by_position"

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def scores(self, evidence):
        return {g.name: self.sign * torch.arange(g.n_channels, dtype=torch.float64) for g in evidence.groups}


def allowed(stage):
    return next(knob.allowed for knob in stage.knobs if knob.name == "criterion")


@pytest.mark.parametrize("kind", STAGES)
def test_the_knob_admits_it_and_only_in_that_stage(kind):
    assert allowed(kind(criteria={"by_position": ByPosition()})) == (*BUILT_IN, "by_position")
    assert allowed(kind()) == tuple(BUILT_IN)


@pytest.mark.parametrize("kind", STAGES)
def test_a_worker_gets_it(kind):
    sent = pickle.loads(pickle.dumps(kind(criteria={"by_position": ByPosition(-1.0)})))
    assert sent.criteria["by_position"].sign == -1.0
    assert allowed(sent) == (*BUILT_IN, "by_position")


def test_a_built_in_name_is_refused():
    with pytest.raises(ConfigError, match=r"criterion\.fpgm: a built-in criterion has this name"):
        PruneStage(criteria={"fpgm": ByPosition()})


@pytest.mark.parametrize("kind", STAGES)
def test_its_arguments_are_part_of_the_stages_key(kind):
    one, other, none = kind(criteria={"own": ByPosition()}), kind(criteria={"own": ByPosition(-1.0)}), kind()
    assert len({repr(stage.config()) for stage in (one, other, none)}) == 3


def test_its_code_is_part_of_the_stages_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    kinds = []
    for at, factor in enumerate((1.0, -1.0)):
        source = f"from {__name__} import ByPosition\n\n\nclass Own(ByPosition):\n    factor = {factor}\n"
        (tmp_path / f"criterion_{at}.py").write_text(source)
        kinds.append(__import__(f"criterion_{at}").Own)
    digests = [Criteria({"own": kind()}).digest("own") for kind in kinds]
    assert digests[0] != digests[1]
