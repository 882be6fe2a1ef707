"""A plug-in that extends a stage, or an evaluator, arrives in another process as what it is."""

import pickle

import pytest

from evaluators.task.robustness import RobustnessEvaluator
from spaces.pruning.iterative import IterativePruneStage
from spaces.pruning.prune import PruneStage
from spaces.pruning.sparsity.sparsify import SparsifyStage
from spaces.quantization.quantize import QuantizeStage
from spaces.recovery.recover import RecoverStage


class Marked:
    """Takes one argument of its own and one of the class that it extends."""

    def __init__(self, mark, **arguments):
        super().__init__(**arguments)
        self.mark = mark


class MyQuantize(Marked, QuantizeStage):
    name = "my_quantize"


class MyPrune(Marked, PruneStage):
    pass


class MyIterativePrune(Marked, IterativePruneStage):
    pass


class MyRecover(Marked, RecoverStage):
    pass


class MySparsify(Marked, SparsifyStage):
    pass


class MyRobustness(Marked, RobustnessEvaluator):
    pass


@pytest.mark.parametrize(
    "made",
    [
        MyQuantize("x"),
        MyPrune("x", threads=3),
        MyIterativePrune("x", threads=3),
        MyRecover("x", threads=3),
        MySparsify("x", threads=3),
        MyRobustness("x", threads=3),
    ],
    ids=lambda made: type(made).__name__,
)
def test_a_subclass_stays_what_it_is(made):
    copy = pickle.loads(pickle.dumps(made))
    assert type(copy) is type(made)
    assert copy.mark == "x"
    if hasattr(made, "config"):
        assert copy.config() == made.config()
    if hasattr(made, "threads"):
        assert copy.threads == 3
