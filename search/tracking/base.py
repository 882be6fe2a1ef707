"""The interface of trackers, which log a study to a service outside its folder."""

from abc import ABC, abstractmethod

from search.record.results import StudyRecord, TrialRecord


class Tracker(ABC):
    """Logs a study. The study calls it from one thread, in the order start, trial*, finish, close.

    A tracker whose server is slow or down must not stop the search: it queues, retries, and at last warns once.
    """

    @abstractmethod
    def start(self, results: StudyRecord) -> None:
        """Opens (or, on resume, reopens) the record of a study; `results.trials` has the trials so far.

        Raises:
            ConfigError: The tracker's settings are wrong (e.g. a URI that cannot exist).
        """

    @abstractmethod
    def trial(self, record: TrialRecord, results: StudyRecord) -> None:
        """Records one finished trial; `results` is the study including that trial."""

    @abstractmethod
    def finish(self, results: StudyRecord) -> None:
        """Records the end: front, picks, report and models (they are in `results.folder` by now)."""

    @abstractmethod
    def close(self) -> None:
        """Waits until everything is written; called also after an interruption."""

    def address(self) -> str:
        """Returns how to open the record, for the end of the terminal's output; empty if there is none."""
        return ""


class NoTracker(Tracker):
    """Logs nowhere (`tracker=none`)."""

    def start(self, results: StudyRecord) -> None:
        """Does nothing."""

    def trial(self, record: TrialRecord, results: StudyRecord) -> None:
        """Does nothing."""

    def finish(self, results: StudyRecord) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
