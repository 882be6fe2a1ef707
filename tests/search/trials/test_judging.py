from evaluators.base import Evaluation, Evaluator, Measurement
from evaluators.testing import tiny_context, tiny_model
from search.trials.judging import Judging


class Counting(Evaluator):
    """Measures how many measurements precede its own, and says what decided the value."""

    def __init__(self, name, because):
        self.name, self._because = name, because

    def evaluate(self, artifact, context):
        details = {self.name: {}, **({"because": self._because} if self._because else {})}
        return Evaluation((Measurement(self.name, len(context.measured), "", "measured"),), details)


def judged(*evaluators):
    judging = Judging(tiny_model(), tiny_context())
    for evaluator in evaluators:
        judging.run(evaluator, None)
    return judging


def test_the_reasons_of_all_evaluators_are_merged():
    judging = judged(
        Counting("a", {"metric.a": "first"}), Counting("b", {}), Counting("c", {"metric.c": "third"})
    )
    assert judging.details["because"] == {"metric.a": "first", "metric.c": "third"}
    assert {"a", "b", "c"} <= set(judging.details)


def test_there_are_no_reasons_where_no_evaluator_gives_one():
    assert "because" not in judged(Counting("a", {}), Counting("b", {})).details


def test_an_evaluator_receives_the_measurements_of_those_before_it():
    assert [m.value for m in judged(Counting("a", {}), Counting("b", {})).measurements] == [0, 1]
