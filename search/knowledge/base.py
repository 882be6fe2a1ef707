"""The interface of knowledge sources, which yield earlier studies, or the reasons why some cannot be used."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from search.record.metadata import StudyMetadata
from spaces.candidate import Value

MOST_TRIALS = 5000  # of all studies together; a surrogate gains little from more


@dataclass(frozen=True)
class PastTrial:
    """One measured candidate of another study.

    Attributes:
        knobs: Knob path to its value, or to the value's text (`value_text`). Inactive knobs are left out.
        values: Column (`metric.top1`, `cost.host.latency_ms`) to finite value.
        baseline: Column to the uncompressed model's value, where the source has it for each row (a table).
    """

    knobs: Mapping[str, Value]
    values: Mapping[str, float]
    baseline: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PastStudy:
    """An earlier study, finished or not.

    Attributes:
        name: Its name, for messages.
        metadata: What it recorded about its model, task and baseline.
        trials: Its measured trials.
    """

    name: str
    metadata: StudyMetadata
    trials: tuple[PastTrial, ...]


@dataclass(frozen=True)
class Refused:
    """A study, or a whole source, that cannot be used.

    Attributes:
        name: Its name, for messages.
        why: What differs or is damaged.
    """

    name: str
    why: str


@dataclass(frozen=True)
class Own:
    """The current study, which a source leaves out.

    Attributes:
        name: `study.name`.
        folder: `study.dir`.
        sweep: Common prefix of the names of its sweep's studies; empty for a single study.
    """

    name: str
    folder: Path
    sweep: str = ""

    def is_sibling(self, name: str, folder: Path | None = None) -> bool:
        """Returns whether another study belongs to the same sweep, in this run of it or an earlier one.

        Studies of a sweep that learned from each other would depend on their order, so that they could not be
        compared.

        Args:
            name: The other study's `study.name`, or the name of its folder.
            folder: The other study's folder, if it is known.
        """
        if not self.sweep:
            return False
        beside = folder is not None and folder.parent == self.folder.resolve().parent
        # study.dir/SUFFIX: the parent folder contains the studies of this sweep only
        only_sweep = not self.folder.name.startswith(f"{self.sweep}-")
        return name.startswith(f"{self.sweep}-") or (beside and only_sweep)


def siblings_left_out(n: int) -> Refused:
    """Returns the entry that reports `n` studies of the same sweep as left out."""
    names = "1 study of this sweep" if n == 1 else f"{n} studies of this sweep"
    return Refused(names, "siblings start with the same knowledge, so that they can be compared")


class Deadline:
    """The time at which reading has to end.

    Args:
        seconds: Seconds from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Remaining seconds, at least 0."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.left_s == 0


class KnowledgeSource(ABC):
    """A source of earlier studies.

    Attributes:
        seconds: Most seconds that reading may take in all.
    """

    seconds: float = 5.0

    @abstractmethod
    def studies(self, own: Own, deadline: Deadline) -> Iterator[PastStudy | Refused]:
        """Yields earlier studies, the newest first, without the current one; ends soon after the deadline.

        A damaged study is yielded as `Refused`; no error is raised and nothing is written.
        """


class NoKnowledge(KnowledgeSource):
    """A source without studies (`knowledge=none`)."""

    def studies(self, own: Own, deadline: Deadline) -> Iterator[PastStudy | Refused]:
        """Yields nothing."""
        del own, deadline
        return iter(())
