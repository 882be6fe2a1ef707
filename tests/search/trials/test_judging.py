from evaluators.base import Evaluation, Evaluator, Measurement
from evaluators.testing import tiny_context, tiny_model
from search.trials.judging import Judging


class Telling(Evaluator):
    """Says one number, and what decided it."""

    def __init__(self, name, because):
        self.name, self._because = name, because

    def evaluate(self, artifact, context):
        details = {self.name: {}, **({"because": self._because} if self._because else {})}
        return Evaluation((Measurement(self.name, len(context.measured), "", "measured"),), details)


def judged(*tellers):
    judging = Judging(tiny_model(), tiny_context())
    for teller in tellers:
        judging.run(teller, None)
    return judging


def test_every_evaluator_may_say_what_decided_its_columns():
    judging = judged(
        Telling("a", {"metric.a": "first"}), Telling("b", {}), Telling("c", {"metric.c": "third"})
    )
    assert judging.details["because"] == {"metric.a": "first", "metric.c": "third"}
    assert {"a", "b", "c"} <= set(judging.details)


def test_nothing_is_said_where_nobody_says_anything():
    assert "because" not in judged(Telling("a", {}), Telling("b", {})).details


def test_an_evaluator_hears_what_those_before_it_said():
    assert [m.value for m in judged(Telling("a", {}), Telling("b", {})).measurements] == [0, 1]
