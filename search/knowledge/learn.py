"""Converts an earlier study's trials into rows for the sampler, or says why the study cannot be used."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.column import Column
from search.knowledge.base import PastStudy, PastTrial, Refused
from search.knowledge.matching import Matcher, MisfitError, base_of
from search.knowledge.normalise import relative
from search.record.metadata import StudyMetadata
from search.record.results import Objective
from search.record.suggest import params_of
from search.samplers.candidates.context import KnowledgeRow, key_of
from spaces.space import Space

_MOST_SHARE = 1.0  # scores that never exceed it are taken as fractions, not per cent


@dataclass(frozen=True)
class Learned:
    """The rows learned from one study.

    Attributes:
        label: The study's model and task, as text.
        rows: The rows, at least one.
    """

    label: str
    rows: tuple[KnowledgeRow, ...]


class Learner:
    """Converts earlier studies into rows for the current one.

    Args:
        metadata: The current study's metadata.
        space: The current study's space.
        objectives: The current study's objectives; an earlier study must have measured the first one.
        most_rows: Most rows to take from all studies together.
    """

    def __init__(
        self, metadata: StudyMetadata, space: Space, objectives: Sequence[Objective], most_rows: int
    ) -> None:
        self._metadata, self._space, self._objectives = metadata, space, tuple(objectives)
        self._matcher = Matcher(space, metadata.defaults)
        self._left = most_rows
        self._tasks: dict[tuple[str, str], str] = {}  # model and data to the task's name
        self._known: set[tuple[str, frozenset[object], float]] = (
            set()
        )  # task, candidate and value of each row

    def learn(self, study: PastStudy) -> Learned | Refused:
        """Returns the study's rows, or why it cannot be used."""
        why = self._difference(study)
        if why:
            return Refused(study.name, why)
        rows: list[KnowledgeRow] = []
        misfits: Counter[str] = Counter()
        comparable = [not self._other_measure(study, objective) for objective in self._objectives]
        for trial in study.trials:
            try:
                row = self._row(study, trial, comparable)
            except MisfitError as error:
                misfits[str(error)] += 1
                continue
            if row is not None and len(rows) < self._left:
                rows.append(row)
        if not rows:
            return Refused(study.name, _no_rows(misfits))
        self._left -= len(rows)
        return Learned(study.metadata.label, tuple(rows))

    # -- the study as a whole ----------------------------------------------------------------------------------

    def _difference(self, study: PastStudy) -> str:
        """Returns why the study as a whole cannot be used, or an empty text."""
        knobs = dict.fromkeys(name for trial in study.trials for name in trial.knobs)
        if not self._matcher.shares_knobs(list(knobs)):
            theirs = ", ".join(dict.fromkeys(map(base_of, knobs))) or "none"
            return f"another space: its knobs are {theirs}; here they are {', '.join(sorted(self._matcher.bases))}"
        if self._left <= 0:
            return "enough trials of later studies were read"
        return self._other_measure(study, self._objectives[0])

    def _other_measure(self, study: PastStudy, objective: Objective) -> str:
        """Returns how a study's values of an objective differ from ours in kind, or an empty text."""
        column, metadata = objective.column, study.metadata
        values = [trial.values[column] for trial in study.trials if column in trial.values]
        if not values:
            metrics = (c for t in study.trials for c in t.values if not Column.parse(c).is_cost)
            return f"it did not measure {column}, but {next(metrics, 'no metric')}"
        direction = self._direction(metadata.directions, column)
        if direction not in ("", objective.direction):
            return (
                f"other direction: it wants to {direction} {column}, this study to {objective.direction} it"
            )
        ours, theirs = self._metadata.units.get(column), metadata.units.get(column)
        if ours is not None and theirs is not None and ours != theirs:
            return f"other unit: {column} is in {theirs or 'no unit'} there, in {ours or 'no unit'} here"
        if theirs is None and ours == "%" and max(map(abs, values)) <= _MOST_SHARE < abs(self._own(column)):
            return f"other unit: {column} looks like a share there (at most {max(values):g}), but is in {ours} here"
        return ""

    def _direction(self, directions: Mapping[str, str], column: str) -> str:
        """Returns an earlier study's direction of a column; empty if unknown.

        A study that recorded no metadata has it by the bare name, or by `metric` for the task's own metric.
        """
        of = Column.parse(column)
        names = [column, of.name, *([] if of.is_cost or _amount(of.name) else ["metric"])]
        return next((directions[name] for name in names if name in directions), "")

    def _own(self, column: str) -> float:
        return self._metadata.baseline.get(column, math.inf)

    # -- its trials --------------------------------------------------------------------------------------------

    def _row(self, study: PastStudy, trial: PastTrial, comparable: Sequence[bool]) -> KnowledgeRow | None:
        """Returns the trial's row; None if the trial lacks the first objective or repeats a row.

        Raises:
            MisfitError: The trial's candidate is not in this space.
        """
        first, metadata = self._objectives[0].column, study.metadata
        if first not in trial.values:
            return None
        params = params_of(self._space, self._matcher.candidate(trial.knobs, metadata.defaults))
        task = self._task(study)
        key = (task, key_of(params), trial.values[first])
        if key in self._known:
            return None
        self._known.add(key)
        baseline = {**metadata.baseline, **trial.baseline}
        return KnowledgeRow(
            task,
            params,
            trial.values[first],
            metadata.descriptors,
            baseline.get(first),
            tuple(
                self._relative(metadata, trial, baseline, objective.column) if fits else math.nan
                for objective, fits in zip(self._objectives, comparable, strict=True)
            ),
            self._is_same(metadata),
        )

    def _relative(
        self, metadata: StudyMetadata, trial: PastTrial, baseline: Mapping[str, float], column: str
    ) -> float:
        if column not in trial.values or column not in baseline:
            return math.nan
        if column in self._metadata.measured and metadata.machine != self._metadata.machine:
            return math.nan  # a time on another machine
        return relative(column, self._metadata.units.get(column), trial.values[column], baseline[column])

    def _is_same(self, metadata: StudyMetadata) -> bool:
        ours = (self._metadata.model_digest, self._metadata.task_digest)
        return all(ours) and ours == (metadata.model_digest, metadata.task_digest)

    def _task(self, study: PastStudy) -> str:
        """Returns a name of the study's model and data: equal for studies of the same, else different."""
        metadata = study.metadata
        known = bool(metadata.model_digest and metadata.task_digest)
        identity = (metadata.model_digest, metadata.task_digest) if known else (study.name, metadata.label)
        if identity not in self._tasks:
            taken = metadata.label in self._tasks.values()
            self._tasks[identity] = f"{metadata.label}, {study.name}" if taken else metadata.label
        return self._tasks[identity]


def _amount(name: str) -> bool:
    return name.endswith(("_bytes", "_ms"))


def _no_rows(misfits: Counter[str]) -> str:
    if not misfits:
        return "its trials are known from another study"
    why, count = misfits.most_common(1)[0]
    return f"none of its trials is a candidate of this space: {why} ({count} of them)"
