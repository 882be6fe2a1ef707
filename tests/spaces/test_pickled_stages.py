"""Pickling keeps the class and the arguments of a plug-in that extends a stage or an evaluator."""

import pickle

import pytest

from evaluators.task.robustness import RobustnessEvaluator
from spaces.pruning.iterative import IterativePruneStage
from spaces.pruning.prune import PruneStage
from spaces.pruning.sparsity.sparsify import SparsifyStage
from spaces.quantization.quantize import QuantizeStage
from spaces.recovery.recover import RecoverStage


class Marked:
    """A class with one argument of its own besides those of its base class."""

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
    "original",
    [
        MyQuantize("x"),
        MyPrune("x", threads=3),
        MyIterativePrune("x", threads=3),
        MyRecover("x", threads=3),
        MySparsify("x", threads=3),
        MyRobustness("x", threads=3),
    ],
    ids=lambda original: type(original).__name__,
)
def test_a_subclass_keeps_its_class_and_arguments(original):
    copy = pickle.loads(pickle.dumps(original))
    assert type(copy) is type(original)
    assert copy.mark == "x"
    if hasattr(original, "config"):
        assert copy.config() == original.config()
    if hasattr(original, "threads"):
        assert copy.threads == 3
