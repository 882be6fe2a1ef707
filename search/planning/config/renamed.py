"""Config keys that were renamed and classes that moved since earlier versions, for error messages."""

import re
from collections.abc import Mapping

from search.planning.config.shipped import shipped

RENAMED_KEYS: Mapping[str, str] = {"look_budget": "low_fidelity_budget"}
"""Old name of a config key to the new one."""

_TARGET = re.compile(r"_target_: *([\w.]+)")


def renamed_key(key: str) -> str:
    """Returns the end of an error message that gives a key's new name; empty if it was never renamed."""
    new = RENAMED_KEYS.get(key)
    return f" {key!r} is called {new!r} now." if new else ""


def moved_target(target: str) -> str:
    """Returns the end of an error message that says where a class is now; empty if `conf/` names none."""
    name = target.rpartition(".")[2]
    texts = (path.read_text() for path in sorted(shipped().rglob("*.yaml")))
    targets = {new for text in texts for new in _TARGET.findall(text) if new.endswith(f".{name}")}
    return f". It is {' or '.join(sorted(targets))} now" if targets else ""
