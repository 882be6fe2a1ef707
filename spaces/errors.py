"""Every error that Paredown raises on purpose.

::

    ParedownError
    ├── ConfigError          a value in the config is wrong                  (exit status 2)
    │   ├── SpaceError       the search space is malformed or contradictory
    │   └── UntrustedTargetError   a `_target_` outside the allow-list
    ├── InputError           a model, checkpoint or data file is missing, damaged or does not fit  (exit status 2)
    ├── StudyError           the study folder cannot be used or resumed       (exit status 2)
    ├── StageError           a stage cannot be applied to an artifact         (the trial fails)
    ├── EvaluationError      an evaluator cannot evaluate an artifact         (the trial fails)
    ├── TimeLimitError       a trial ran longer than it may                   (the trial fails)
    └── StopTrialError       a trial is stopped early                         (the trial is pruned)

A message says what was wrong, where (config path, file, layer), and what would be right.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class ParedownError(Exception):
    """Base of every error that Paredown raises on purpose."""


class ConfigError(ParedownError):
    """A value in the config is wrong."""


class SpaceError(ConfigError):
    """The search space is malformed, empty or contradictory."""


class UntrustedTargetError(ConfigError):
    """A `_target_` or class name lies outside the allow-list of module prefixes."""


class InputError(ParedownError):
    """A model, checkpoint or data file is missing, damaged, foreign or does not fit."""


class StudyError(ParedownError):
    """The study folder cannot be written, or holds a study of another space, task or model."""


class StageError(ParedownError):
    """A stage cannot be applied to this artifact with these values."""


class EvaluationError(ParedownError):
    """An evaluator cannot evaluate this artifact, e.g. because its output is not finite."""


class TimeLimitError(ParedownError):
    """A trial ran longer than `study.trial_time_limit`."""


class StopTrialError(ParedownError):
    """A trial is stopped early because other trials were better after the same number of epochs."""


MOST_LISTED = 40  # names in a message; of more, only those like the unknown one are listed


def unknown_name(kind: str, name: object, known: Iterable[object], where: str = "") -> str:
    """Returns the message for an unknown name: names that begin so, or else the closest one, and all known names if they are few."""
    names, text = sorted(str(k) for k in known), str(name)
    begins = [n for n in names if len(text) > 1 and n.lower().startswith(text.lower())]
    near = begins or get_close_matches(text, names, n=1)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    place = f" in {where}" if where else ""
    listed = ", ".join(names) or "(none)"
    known_text = f" {len(names)} are known." if near and len(names) > MOST_LISTED else f" Known: {listed}."
    return f"Unknown {kind} {text!r}{place}.{hint}{known_text}"


def yaml_word(value: bool) -> str:
    """Returns how YAML comes to read a word as true or false, as the middle of a sentence."""
    words = "on, yes and true" if value else "off, no and false"
    return f"YAML reads {words} as {value}: write the word in quotes"
