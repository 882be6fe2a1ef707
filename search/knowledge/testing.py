"""What every source of knowledge has to keep to, as tests to inherit.

::

    class TestMyKnowledge(KnowledgeConformance):
        @pytest.fixture
        def source(self): return MyKnowledge()
"""

import math
from pathlib import Path

import pytest

from evaluators.column import Column
from search.knowledge.base import Deadline, KnowledgeSource, Own, PastStudy, Refused


class KnowledgeConformance:
    """Inherit, and give the fixture `source`."""

    @pytest.fixture
    def source(self) -> KnowledgeSource:
        """The source under test, with at least one study to yield."""
        raise NotImplementedError("give a fixture named `source`")

    @pytest.fixture
    def own(self, tmp_path: Path) -> Own:
        """The study that asks: in an empty folder, which stays as it is."""
        return Own("asking", tmp_path / "asking")

    @pytest.fixture
    def found(self, source: KnowledgeSource, own: Own) -> list[PastStudy | Refused]:
        """What the source yields within its own time."""
        return list(source.studies(own, Deadline(60.0)))

    def test_says_what_it_knows_or_why_it_does_not(self, found: list[PastStudy | Refused]) -> None:
        """Every study has a name, and either trials or a reason why it cannot be used."""
        assert found
        assert all(study.name for study in found)
        assert all(study.why if isinstance(study, Refused) else study.trials for study in found)

    def test_columns_and_values_are_those_of_trials(self, found: list[PastStudy | Refused]) -> None:
        """Columns are spelled as in trials.csv, and every value is finite."""
        trials = [trial for study in found if isinstance(study, PastStudy) for trial in study.trials]
        assert [c for trial in trials for c in trial.values if Column.find(c) is None] == []
        assert all(math.isfinite(value) for trial in trials for value in trial.values.values())

    def test_yields_the_same_again_and_writes_nothing(
        self, source: KnowledgeSource, own: Own, found: list[PastStudy | Refused], tmp_path: Path
    ) -> None:
        """Reading changes nothing."""
        before = sorted(tmp_path.rglob("*"))
        assert [s.name for s in source.studies(own, Deadline(60.0))] == [s.name for s in found]
        assert sorted(tmp_path.rglob("*")) == before

    def test_ends_soon_after_the_deadline(self, source: KnowledgeSource, own: Own) -> None:
        """Without time it may yield what it has at hand, but comes to an end without an error."""
        assert len(list(source.studies(own, Deadline(0.0)))) >= 0
