"""Removes secrets from reports and run records, which users share."""

import re
from collections.abc import Mapping
from typing import Any

_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/\s@'\"]+@", re.IGNORECASE)
_SECRET_KEY = re.compile(
    r"(^|[._-])(password|passwd|secret|(auth|access|api)_?token|api_?key|credentials?)$", re.IGNORECASE
)
_SECRET_OVERRIDE = re.compile(
    r"(?P<key>[\w.+-]*(?:password|passwd|secret|(?:auth|access|api)_?token|api_?key|credentials?)=)(?P<value>'[^']*'|\"[^\"]*\"|\S+)",
    re.IGNORECASE,
)


def redact_text(text: str) -> str:
    """Replaces user and password of URLs, and values of `...password=...`, by `***`."""
    return _SECRET_OVERRIDE.sub(r"\g<key>***", _CREDENTIALS.sub(r"\g<scheme>***@", text))


def redact(value: Any, key: str = "") -> Any:
    """Returns a nested config with strings redacted; one under a key that names a secret becomes `***`."""
    if isinstance(value, Mapping):
        return {str(k): redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(v, key) for v in value]
    if isinstance(value, str):
        return "***" if value and _SECRET_KEY.search(key) else redact_text(value)
    return value
