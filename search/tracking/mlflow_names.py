"""Converts names and values to ones that MLflow takes: it refuses some characters and cuts long values."""

import posixpath
import re
from collections.abc import Iterable

from spaces.digest import digest_of

MOST_PARAM_CHARS = 6000
MOST_TAG_CHARS = 8000
_MOST_NAME_CHARS = 250


def safe_name(name: str) -> str:
    """Returns a name for a metric, param or tag: `bits[/stem/conv]` becomes `bits/stem/conv`.

    MLflow allows letters, digits and `_-. /`, in a form that is a normalized relative path, and 250 characters.
    """
    text = re.sub(r"[^\w\-. /]", "_", name.replace("[", "/").replace("]", ""), flags=re.ASCII)
    text = posixpath.normpath("/".join(part for part in text.split("/") if part.strip(". ")) or "_")
    if len(text) > _MOST_NAME_CHARS:
        text = f"{text[: _MOST_NAME_CHARS - 17]}.{digest_of(name)}"
    return text


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """Maps names to safe ones that stay distinct: of those that would collide, all but the first get a digest."""
    safe_by_name: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        safe = safe_name(name)
        if safe in taken:
            safe = f"{safe[: _MOST_NAME_CHARS - 17]}.{digest_of(name)}"
        taken.add(safe)
        safe_by_name[name] = safe
    return safe_by_name


def clip(text: str, most: int, rest: str) -> str:
    """Returns `text`; if it is too long, cut to `most` characters that end with `rest`, a hint to the whole."""
    ending = f" … ({rest})"
    return text if len(text) <= most else text[: most - len(ending)] + ending
