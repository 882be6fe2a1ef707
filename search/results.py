"""What a study found, as notebooks and scripts ask for it: tables, and the model to ship."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search.record.results import BASELINE, StudyRecord, TrialRecord
from search.record.trial_records import rows
from search.report.findings.health import checks
from search.report.picture import front_picture
from spaces.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Picture:
    """A picture that a notebook shows.

    Attributes:
        svg: It as SVG, a file of its own.
    """

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg


@dataclass(frozen=True)
class Results:
    """The answers of a study.

    Attributes:
        record: All that the study knows, e.g. `record.best_why` and `record.folder`.
    """

    record: StudyRecord

    @property
    def folder(self) -> Path:
        """The study's folder, with its files."""
        return self.record.folder

    def to_dataframe(self) -> "pd.DataFrame":
        """Returns a row per trial, by number, with the columns and units of trials.csv; NaN where nothing was measured.

        >>> results.to_dataframe().set_index("knob.bits")["metric.top1"].to_dict()
        {8: 97.0, 4: 91.5}
        """
        return self._table([t.number for t in self.record.trials])

    def front(self) -> "pd.DataFrame":
        """Returns the rows of the Pareto front, the best by the first objective first; the float model's number is `baseline`.

        >>> results.front()["number"].tolist()
        [0]
        """
        return self._table(list(self.record.front))

    def best(self, device: str | None = None) -> TrialRecord:
        """Returns the trial to ship to a device; without one, that for all devices.

        >>> results.best().candidate["bits"]
        8

        Raises:
            StudyError: No trial met the constraints, or nothing was picked for that device.
        """
        record = self.record
        chosen = {pick.device: pick.number for pick in record.picks}
        number = record.best if device is None else chosen.get(device)
        if number is None:
            wanted = "" if device is None else f" for device {device!r}"
            known = ", ".join(chosen) or "none"
            raise StudyError(
                f"study {record.name!r} has no best trial{wanted}: devices with a pick are {known}; "
                f"{len(record.front)} trials are on the front"
            )
        return record.trial(number)

    def model(self, device: str | None = None) -> Path:
        """Returns where the ONNX file of `best(device)` is.

        A study of a table has trials and no files. Of any other, onnxruntime loads the file as it is.

        >>> results.model().name
        'trial_0.onnx'

        Raises:
            StudyError: As `best` does.
        """
        return self.record.model_path(self.best(device).number)

    def checks(self) -> "pd.DataFrame":
        """Returns what makes the advice doubtful, and what to do about it: a row for each health check of the report.

        `status` is `ok`, `warning`, or `unknown` where it cannot be told.

        >>> results.checks().columns.tolist()
        ['name', 'status', 'message', 'next_step']
        """
        import pandas as pd

        found = [(c.name, c.status, c.text, c.next_step) for c in checks(self.record)]
        return pd.DataFrame(found, columns=["name", "status", "message", "next_step"])

    def picture(self) -> Picture:
        """Returns the front: the metric over each cost that is an objective; a notebook shows it.

        Raises:
            StudyError: The objectives are not a metric and costs.
        """
        drawn = front_picture(self.record)
        if drawn is None:
            named = ", ".join(o.column for o in self.record.objectives)
            raise StudyError(
                f"study {self.record.name!r} has no picture of its front: that needs a metric and a cost as objectives, not {named}"
            )
        return Picture(drawn)

    def _table(self, numbers: list[int]) -> "pd.DataFrame":
        import pandas as pd

        columns, _ = rows(self.record.trials, self.record.knobs)
        return pd.DataFrame([_row(self.record.trial(number)) for number in numbers], columns=columns)


def _row(trial: TrialRecord) -> dict[str, object]:
    return {
        "number": trial.label if trial.number == BASELINE else trial.number, "state": trial.state, "reason": trial.reason,
        **{f"knob.{path}": value for path, value in trial.candidate.items()},
        **trial.values(),
        **{f"seconds.{step}": seconds for step, seconds in trial.seconds.items()},
        "wall_s": trial.wall_s,
    }  # fmt: skip
