"""Sentences for the user that say which earlier studies were learned from, and why others were not."""

from collections import Counter
from collections.abc import Sequence

from search.knowledge.base import Refused
from search.knowledge.learn import Learned

_MOST_NAMES = 3


def learned_note(learned: Sequence[Learned]) -> str:
    """Returns a sentence that names the studies that were learned from; empty if there are none."""
    if not learned:
        return ""
    rows = sum(len(each.rows) for each in learned)
    counts = Counter(each.label for each in learned)
    names = [f"{label}{f', {n} times' if n > 1 else ''}" for label, n in counts.most_common()]
    more = len(names) - 2 * _MOST_NAMES
    listed = ", ".join(names[: 2 * _MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    same = sum(len(each.rows) for each in learned if each.rows[0].same_model)
    own = f"; {same} of the trials are of this very model" if same else ""
    return f"learned from {_count(rows, 'trial')} of {_count(len(learned), 'earlier study')}: {listed}{own}"


def weight_note(weights: Sequence[float]) -> str:
    """Returns a sentence that says how much earlier studies counted; empty if there are none.

    Args:
        weights: By proposal, the probability that they resemble this study.
    """
    if not weights:
        return ""
    first, last = (f"{100 * weight:.0f} %" for weight in (weights[0], weights[-1]))
    return (
        f"that the earlier studies resemble this one counted as {first} probable in the first proposal and {last} in the last, by how "
        "well they predicted the order of the trials"
    )


def refused_note(refused: Sequence[Refused]) -> tuple[str, ...]:
    """Returns one sentence per reason, with the names of the first studies to which it applies."""
    by_reason: dict[str, list[str]] = {}
    for each in refused:
        by_reason.setdefault(each.why, []).append(each.name)
    notes = []
    for why, names in by_reason.items():
        more = len(names) - _MOST_NAMES
        listed = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        notes.append(f"not learned from {listed}: {why}")
    if len(notes) > 2 * _MOST_NAMES:
        left = len(notes) - 2 * _MOST_NAMES
        notes = [*notes[: 2 * _MOST_NAMES], f"not learned from others either, for {left} further reasons"]
    return tuple(notes)


def unread_note(seconds: float, n_read: int) -> str:
    """Returns the sentence that reports that the time limit ended the reading."""
    return f"reading earlier studies was stopped after {seconds:g} s (knowledge.seconds), with {_count(n_read, 'study')} read"


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
