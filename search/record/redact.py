"""Removes secrets from what users share or see: reports, run records, recorded commands, errors, logs.

What is secret: the user and password of a URL, and what stands under a key whose last word is one of `_SECRET_WORDS`
(`db.password`, `apiKey`, `hub_token`). Words are what `_`, `-`, `.` and capitals divide, so that `monkey`, `n_tokens` and
`task.key_points` are not keys of secrets, nor are `ms_per_token` and `state_dict_key`. `token` and `key` as the whole of a name are also names of knobs: there a decimal
fraction and what is shorter than four characters stay (`prune.token=0.5`). Text has no structure to go by, so in doubt it
loses too much rather than too little, e.g. everything from `http://host:` to a later `@`.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Any

_HIDDEN = "***"
_SECRET_WORDS = {
    "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "key", "credential",
    "credentials", "authorization", "apikey", "apitoken", "authtoken", "accesskey", "accesstoken", "secretkey",
    "privatekey",
}  # fmt: skip
_ORDINARY = {"per", "next", "dict", "sort", "group", "primary", "foreign"}  # `ms_per_token`, `state_dict_key`
_QUERY_WORDS = {"sig", "signature", "auth", "sas"}  # secrets in the query of a URL, besides
_AMBIGUOUS = {"token", "key"}
_KNOB = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?|.{0,3}", re.IGNORECASE | re.DOTALL)
_WORDS = re.compile(r"[^\W_]+")
_CAPITALS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_NEXT = re.compile(
    r"\s+(?=[+~]*[\w.+/~@-]+=|[a-z][a-z0-9+.-]*://)", re.IGNORECASE
)  # where another value begins
_PORT = re.compile(r"\d{1,5}(?=[/\s'\",;)\]}?#]|$)")
_KEY = r"(?<![\w.+/@-])[\w.+/@-]*[\w+-]"
_ASSIGNMENT = re.compile(rf"(?P<quote>['\"]?)(?P<key>{_KEY})(?P<equals>=(?!=))")
_ENTRY = re.compile(rf"(?P<before>[{{,]\s*|)(?P<quote>\\?['\"]|)(?P<key>{_KEY})(?P=quote)\s*:(?!/)\s*")
_HEADER = re.compile(
    r"(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token)\s+)?)[^\s'\"]+", re.IGNORECASE
)


def redact_text(text: str) -> str:
    """Replaces user and password of URLs, and the values of keys of secrets, by `***`."""
    return _without_keys(_urls(text))


def redact_command(command: str) -> str:
    """Replaces the secrets in a command line that is quoted for a shell, word by word."""
    try:
        words = shlex.split(command)
    except ValueError:  # not quoted as a shell would: a text as any other
        return redact_text(command)
    return shlex.join(map(_word, words))


def redact(value: Any, key: str = "") -> Any:
    """Returns a nested config without secrets.

    Args:
        value: The config: mappings, lists and scalars.
        key: The key that it stands under.
    """
    secret = is_secret(key)
    if isinstance(value, Mapping):
        # `token: {reduction: 0.5}` is a section; everything in `credentials: {...}` is secret
        below = key if secret and _last(key) not in _AMBIGUOUS else ""
        return {
            str(k): redact(v, below if below and not is_secret(str(k)) else str(k)) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(v, key) for v in value]
    if value is None or isinstance(value, bool):
        return value
    if secret and str(value) and not _is_knob(key, str(value)):
        return _HIDDEN
    return _value(value) if isinstance(value, str) else value


def is_secret(key: str) -> bool:
    """Whether what stands under a key, e.g. `study.db_password`, is secret."""
    words = _words(key)
    if not words or words[-1] not in _SECRET_WORDS:
        return False
    return words[-1] not in _AMBIGUOUS or not _ORDINARY & set(words[-2:-1])


def _words(key: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(_CAPITALS.sub("_", key))]


def _last(key: str) -> str:
    """Returns the last part of a path: `api_key` of `hub.api_key`."""
    return re.split(r"[./]", key)[-1].lstrip("+~-_").lower()


def _is_knob(key: str, value: str) -> bool:
    return _last(key) in _AMBIGUOUS and _KNOB.fullmatch(value.strip("'\"")) is not None


def _word(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[\w.+/~@-]+", key):
        return _value(word)
    if is_secret(key):
        return word if not value or _is_knob(key, value) else f"{key}={_HIDDEN}"
    return f"{key}={_value(value)}"


def _value(value: str) -> str:
    """Redacts a text that is known to be one value, so that a URL at its start is no shorter than it."""
    return _without_keys(_urls(value, is_one=_SCHEME.match(value) is not None))


def _without_keys(text: str) -> str:
    return _HEADER.sub(rf"\g<1>{_HIDDEN}", _entries(_assignments(text)))


# -- URLs ------------------------------------------------------------------------------------------------------


def _urls(text: str, is_one: bool = False) -> str:
    """Hides what stands between the scheme and the `@` of each URL, whatever characters the password has.

    Args:
        text: The text.
        is_one: Whether the whole text is one URL.
    """
    parts, at = [], 0
    while (scheme := _SCHEME.search(text, at)) is not None:
        parts.append(text[at : scheme.end()])
        at = scheme.end()
        end = _end_of_credentials(text, at, is_one)
        if end is not None:
            parts.append(f"{_HIDDEN}@")
            at = end + 1
    return "".join([*parts, text[at:]])


def _end_of_credentials(text: str, at: int, is_one: bool) -> int | None:
    """Returns the position of the `@` that ends the credentials which begin at `at`; None if there are none."""
    user = re.compile(r"[^\s/:@'\"]*").match(text, at)
    assert user is not None
    follows = text[user.end() : user.end() + 1]
    if follows not in (":", "@"):
        return None
    end = len(text) if is_one else _segment_end(text, at)
    last = text.rfind("@", at, end)
    if follows == "@" or last >= 0:
        return last
    if _PORT.match(text, user.end() + 1) is not None:
        return None  # http://host:5000
    while last < 0 and end < len(text):  # a password with a space in it
        end = _segment_end(text, end + 1)
        last = text.rfind("@", at, end)
    return last if last >= 0 else None


def _segment_end(text: str, at: int) -> int:
    following = _NEXT.search(text, at)
    return len(text) if following is None else following.start()


# -- keys and values in text -----------------------------------------------------------------------------------


def _assignments(text: str) -> str:
    """Hides the values of `...password=...`, in command lines, connection strings and the queries of URLs."""
    parts, at = [], 0
    while (found := _ASSIGNMENT.search(text, at)) is not None:
        key, start = found["key"], found.end()
        before = text[found.start("key") - 1] if found.start("key") else ""
        in_query = before in ("?", "&")
        words = _words(key)
        secret = is_secret(key) or (in_query and bool(words) and words[-1] in _QUERY_WORDS)
        end = _value_end(text, start, found["quote"], in_query)
        value = text[start:end]
        if secret and value and not (_is_knob(key, value) and not in_query):
            parts.append(text[at:start] + _HIDDEN)
            at = end
        else:
            parts.append(text[at:start])
            at = start
    return "".join([*parts, text[at:]])


def _entries(text: str) -> str:
    """Hides the values of `{"password": ...}` in JSON, in the texts of Python's dicts and in Hydra's dicts."""
    parts, at = [], 0
    while (found := _ENTRY.search(text, at)) is not None:
        start = found.end()
        end = _value_end(text, start, "", False, stop=r"[,}\]\n]")
        value = text[start:end]
        marked = found["before"] or found["quote"]  # in prose, `wrong key: model.x` names a key
        if (
            marked
            and is_secret(found["key"])
            and value[:1] not in ("", "{")
            and not _is_knob(found["key"], value)
        ):
            quote = value[0] if value[0] in "'\"" else ""
            hidden = value if value in ("None", "null", "True", "False", "true", "false") else _HIDDEN
            parts.append(f"{text[at:start]}{quote}{hidden}{quote}")
            at = end
        else:
            parts.append(text[at:start])
            at = start
    return "".join([*parts, text[at:]])


def _value_end(text: str, start: int, opened: str, in_query: bool, stop: str = r"\s") -> int:
    """Returns where a value ends: at the quote that opened it or its key's, at a stop, or in a query at `&`."""
    quote = text[start : start + 1]
    if quote in ("'", '"'):
        start, opened = start + 1, quote
    if opened:
        closing = re.compile(rf"(?:\\.|[^\\{opened}])*{opened}", re.DOTALL).match(text, start)
        if closing is not None:
            return closing.end() - (quote != opened)
        return len(text)
    ending = re.compile(r"[&\s#'\"]" if in_query else stop).search(text, start)
    return len(text) if ending is None else ending.start()
