"""Why a job failed on a Ray cluster, in one line of text."""

import re

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ADVICE = re.compile(
    r"\s*(Some common causes include|To troubleshoot the problem|Check python-core-worker).*", re.DOTALL
)
_EXIT = re.compile(r"Worker exit detail: (.*)", re.DOTALL)
_LOST = "connection error code 2"  # what Ray says of every process that is gone
_MOST_CHARACTERS = 500


def cause_of(error: BaseException) -> str:
    """Returns what happened, without Ray's colours, tracebacks, ids and advice.

    Args:
        error: What `ray.get` raised, or any other error.

    Returns:
        `KIND: text` where Python code raised; Ray's own sentence where a process or a node was lost.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException) and not _is_of_ray(cause):
        return _cut(f"{type(cause).__name__}: {cause}")
    text = _ANSI.sub("", str(error))
    raised = _raised(text)
    if raised:
        return _cut(raised)
    if not _is_of_ray(error):
        return _cut(f"{type(error).__name__}: {text}")
    return _cut(_sentence(text) or type(error).__name__)


def is_lost_node(error: BaseException) -> bool:
    """Returns whether the machine is gone on which an actor ran, or that actor was moved away from it."""
    return bool(getattr(error, "preempted", False)) or "its node has died" in str(error)


def is_unreachable(error: BaseException) -> bool:
    """Returns whether the connection to an actor is lost, and it is not known yet whether it, or its machine, is gone."""
    return type(error).__name__ == "ActorUnavailableError"


def is_of_start(error: BaseException) -> bool:
    """Returns whether an actor could not be made: code that it cannot import, a runner that it cannot load."""
    return bool(getattr(error, "_actor_init_failed", False)) or type(error).__name__ == "RuntimeEnvSetupError"


def _is_of_ray(error: BaseException) -> bool:
    return type(error).__module__.startswith("ray.")


def _raised(text: str) -> str:
    """Returns the error at the end of a traceback in the text; empty if it has none."""
    lines = text.rstrip().splitlines()
    frames = [n for n, line in enumerate(lines) if re.match(r"\s+(File \"|\^)", line)]
    if not frames:
        return ""
    below = lines[frames[-1] + 1 :]
    # a frame's source line follows it, indented
    return " ".join(line.strip() for line in below if line[:1].strip())


def _sentence(text: str) -> str:
    """Returns the sentence that says why a worker, an actor or a node was lost."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\t")]
    because = [line for line in lines if re.search(r"because|killed|due to|has died", line)]
    if _LOST in text:
        return "the worker process died: it was killed, ran out of memory or crashed in native code"
    found = _EXIT.search(text)
    if found:
        return _ADVICE.sub("", found[1])
    return _ADVICE.sub("", " ".join((because or lines)[:2]))


def _cut(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _MOST_CHARACTERS else f"{one_line[: _MOST_CHARACTERS - 3]}..."
