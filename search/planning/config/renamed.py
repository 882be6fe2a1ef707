"""What a config of an earlier version calls otherwise: keys that were renamed, classes that moved."""

import re
from collections.abc import Mapping

from search.planning.config.shipped import shipped

RENAMED_KEYS: Mapping[str, str] = {"look_budget": "low_fidelity_budget"}
"""Old name of a config key to the new one."""

_TARGET = re.compile(r"_target_: *([\w.]+)")


def renamed_key(key: str) -> str:
    """Returns what to add to a message about an unknown key: its new name; empty if it never was a key."""
    new = RENAMED_KEYS.get(key)
    return f" {key!r} is called {new!r} now." if new else ""


def moved_target(target: str) -> str:
    """Returns what to add to a message about a `_target_` that does not exist: where a class of that name is now."""
    name = target.rpartition(".")[2]
    texts = (path.read_text() for path in sorted(shipped().rglob("*.yaml")))
    found = {new for text in texts for new in _TARGET.findall(text) if new.endswith(f".{name}")}
    return f". It is {' or '.join(sorted(found))} now" if found else ""
