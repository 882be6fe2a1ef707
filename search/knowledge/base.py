"""What a source of knowledge is: it yields the studies that came before, or says why one cannot be used."""

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
        knobs: Knob path to its value, or to the text of it (`value_text`). Inactive knobs are left out.
        values: Column (`metric.top1`, `cost.host.latency_ms`) to finite value.
        baseline: Column to the uncompressed model's value, where it is known row by row (a table).
    """

    knobs: Mapping[str, Value]
    values: Mapping[str, float]
    baseline: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PastStudy:
    """A study that came before, finished or not.

    Attributes:
        name: What people call it.
        metadata: What it recorded about its model, task and baseline.
        trials: What it measured.
    """

    name: str
    metadata: StudyMetadata
    trials: tuple[PastTrial, ...]


@dataclass(frozen=True)
class Refused:
    """A study, or a whole source, that cannot be used.

    Attributes:
        name: What people call it.
        why: What differs or is damaged.
    """

    name: str
    why: str


@dataclass(frozen=True)
class Own:
    """The study that asks, so that a source leaves it out.

    Attributes:
        name: `study.name`.
        folder: `study.dir`.
        sweep: The name that the studies of its sweep have in common; empty for a study on its own.
    """

    name: str
    folder: Path
    sweep: str = ""

    def is_sibling(self, name: str, folder: Path | None = None) -> bool:
        """Whether another study is of the same sweep, this time or an earlier one.

        Siblings would teach each other in the order in which they run, so that a sweep could compare nothing.

        Args:
            name: Its `study.name`, or its folder's.
            folder: Where it is, if that is known.
        """
        if not self.sweep:
            return False
        beside = folder is not None and folder.parent == self.folder.resolve().parent
        own_place = not self.folder.name.startswith(
            f"{self.sweep}-"
        )  # study.dir/SUFFIX holds the sweep alone
        return name.startswith(f"{self.sweep}-") or (beside and own_place)


def siblings_left_out(n: int) -> Refused:
    """Returns that so many studies of the same sweep were left out."""
    names = "1 study of this sweep" if n == 1 else f"{n} studies of this sweep"
    return Refused(names, "siblings start with the same knowledge, so that they can be compared")


class Deadline:
    """When reading has to end.

    Args:
        seconds: Seconds from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left_s == 0


class KnowledgeSource(ABC):
    """Where earlier studies are found.

    Attributes:
        seconds: How long reading may take in all.
    """

    seconds: float = 5.0

    @abstractmethod
    def studies(self, own: Own, deadline: Deadline) -> Iterator[PastStudy | Refused]:
        """Yields what there is, the newest first, without the study that asks; ends soon after the deadline.

        Whatever is damaged is yielded as `Refused`, never raised. Nothing is written anywhere.
        """


class NoKnowledge(KnowledgeSource):
    """Knows nothing (`knowledge=none`)."""

    def studies(self, own: Own, deadline: Deadline) -> Iterator[PastStudy | Refused]:
        """Yields nothing."""
        del own, deadline
        return iter(())
