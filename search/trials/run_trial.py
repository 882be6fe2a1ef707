"""Runs a trial so that whatever its code raises or returns, the result is plain data."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from evaluators.base import Measurement
from search.trials.plain_data import kind_of, legible, plain, plain_measurements, plain_number
from search.trials.trial import TrialRequest, TrialResult, TrialRunner
from spaces.candidate import Candidate
from spaces.errors import EvaluationError

_OUTCOMES = ("measured", "failed", "duplicate", "pruned")


def run_trial(runner: TrialRunner, request: TrialRequest) -> TrialResult:
    """Runs one trial. Whatever the runner raises or returns, the result is a `TrialResult` of plain data.

    Only a KeyboardInterrupt is passed on: it ends the study.
    """
    try:
        result = runner.run(request)
        return _plain_result(result, request)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too, and whatever else code of others raises
        return TrialResult(request.id, request.candidate, "failed", reason=described(error))


def described(error: BaseException) -> str:
    """Returns an error's type and text."""
    try:
        text = str(error)
    except Exception:  # an error of a user's own, whose text cannot be made
        text = "its text cannot be shown"
    return legible(f"{type(error).__name__}: {text}")


def result_to_data(result: TrialResult) -> dict[str, Any]:
    """Returns a result as plain data, the inverse of `result_from_data`; the candidate is left out."""
    data = {name: value for name, value in vars(result).items() if name != "candidate"}
    return data | {"measurements": [list(asdict(m).values()) for m in result.measurements]}


def result_from_data(data: Mapping[str, Any], candidate: Candidate) -> TrialResult:
    """The inverse of `result_to_data`."""
    measurements = tuple(Measurement(*row) for row in data["measurements"])
    return TrialResult(**{**data, "candidate": candidate, "measurements": measurements})


def _plain_result(result: Any, request: TrialRequest) -> TrialResult:
    if not isinstance(result, TrialResult):
        raise EvaluationError(f"a trial must return a TrialResult, not {kind_of(result)}")
    if result.outcome not in _OUTCOMES:
        raise EvaluationError(
            f"a trial's outcome must be one of {', '.join(_OUTCOMES)}, not {result.outcome!r}"
        )
    if not (result.model is None or isinstance(result.model, bytes)):
        raise EvaluationError(f"a trial's model must be bytes, not {kind_of(result.model)}")
    seconds = plain(result.seconds, "a trial's seconds")
    return replace(
        result,
        id=request.id,
        candidate=request.candidate,
        reason=legible(str(result.reason)),
        same_as=None if result.same_as is None else int(result.same_as),
        measurements=plain_measurements(result.measurements, "a trial's measurements"),
        details=plain(result.details, "a trial's details"),
        seconds={step: plain_number(value, f"seconds of {step}") for step, value in seconds.items()},
        wall_s=plain_number(result.wall_s, "wall_s"),
        artifact_digest=plain(result.artifact_digest, "artifact_digest"),
    )
