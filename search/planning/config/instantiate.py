"""Makes objects from config sections with `_target_`, within an allow-list, checking names and types first."""

import inspect
import types
import typing
from collections import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.planning.config.renamed import moved_target, renamed_key
from spaces.errors import ConfigError, InputError, ParedownError, UntrustedTargetError, unknown_name
from spaces.extras import missing
from spaces.models.trust import TRUSTED, check_trusted, import_trusted

TRUST_KEY = "trusted_modules"
PARTS = ("evaluators.task.",)
"""Where those of our own classes are that may fill a parameter without a type, e.g. a metric."""

_NO_KIND = (
    Any,
    object,
    type(None),
    int,
    float,
    bool,
    str,
    Path,
    list,
    tuple,
    dict,
    abc.Sequence,
    abc.Mapping,
)
_PLAIN: Mapping[Any, Any] = {
    "int": int, "float": float, "bool": bool, "str": str,
    "int | None": int | None, "float | None": float | None, "str | None": str | None, "bool | None": bool | None,
}  # fmt: skip


def check_targets(config: Any, trusted: Sequence[str], where: str = "") -> None:
    """Raises UntrustedTargetError if a `_target_` anywhere in the config lies outside the allow-list."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            path = f"{where}.{key}" if where else str(key)
            if key == "_target_":
                check_trusted(str(value), trusted, path)
            else:
                check_targets(value, trusted, path)
    elif isinstance(config, list | tuple):
        for position, value in enumerate(config):
            check_targets(value, trusted, f"{where}[{position}]")


def instantiate(
    section: Any, where: str, trusted: Sequence[str], kinds: Sequence[type] = (), **extra: Any
) -> Any:
    """Calls the section's `_target_` with its other keys.

    Args:
        section: A mapping with `_target_`; such mappings within it are replaced by their objects first.
        where: Its config path, for messages.
        trusted: Module prefixes that the user trusts, besides our own.
        kinds: What the target must make, checked before it is called; empty admits every public class.
        **extra: Arguments that are passed if the target takes them and the section lacks them.

    Raises:
        ConfigError: The target does not exist or makes something else, or a key is unknown, missing or of the wrong type.
        UntrustedTargetError: The target lies outside the allow-list.
    """
    factory = factory_of(section, where, trusted, kinds)
    target = str(section["_target_"])
    given = {str(key): value for key, value in section.items() if key not in ("_target_", TRUST_KEY)}
    parameters = parameters_of(factory)
    given |= {key: value for key, value in extra.items() if key in parameters and key not in given}
    _check_names(given, parameters, where)
    hints = _hints(factory)
    arguments = {
        key: _argument(value, hints.get(key, Any), f"{where}.{key}", trusted, extra)
        for key, value in given.items()
    }
    try:
        return factory(**arguments)
    except ImportError as error:  # a package that this target needs and no other does
        text = missing(error.name, f"{where}: {target}") if error.name else f"{where}: {target}: {error}"
        raise ConfigError(text) from error
    except (TypeError, ValueError) as error:  # from another package: our classes raise ParedownError
        raise ConfigError(f"{where}: {target} does not take these values: {error}") from error
    except Exception as error:
        if isinstance(error, ParedownError) or target.startswith(TRUSTED):
            raise
        raise ConfigError(f"{where}: {target} raises {type(error).__name__}: {error}") from error


def check_section(section: Any, where: str, trusted: Sequence[str], kinds: Sequence[type]) -> None:
    """Checks what a section names, and its keys, without calling anything.

    Raises:
        ConfigError: The target does not exist or makes something else, or a key is unknown.
        UntrustedTargetError: The target lies outside the allow-list.
    """
    known = parameters_of(factory_of(section, where, trusted, kinds))
    for key in section:
        if key not in known and key not in ("_target_", TRUST_KEY):
            raise ConfigError(unknown_name("key", key, known, where) + renamed_key(str(key)))


def factory_of(section: Any, where: str, trusted: Sequence[str], kinds: Sequence[type]) -> Any:
    """Returns what the section's `_target_` names, without calling it.

    Raises:
        ConfigError: The target does not exist or makes something else.
        UntrustedTargetError: The target lies outside the allow-list.
    """
    if not isinstance(section, Mapping) or "_target_" not in section:
        raise ConfigError(f"{where} must name a class in `_target_`, but got {section!r}")
    target = str(section["_target_"])
    try:
        return import_trusted(target, trusted, f"{where}._target_", kinds, plain_functions=not kinds)
    except InputError as error:
        raise type(error)(f"{error}{moved_target(target)}") from error


def _argument(value: Any, hint: Any, where: str, trusted: Sequence[str], extra: Mapping[str, Any]) -> Any:
    """Returns what a parameter with this annotation gets."""
    return _fitted(_made(value, where, trusted, _kinds(hint), extra), hint, where)


def _made(
    value: Any, where: str, trusted: Sequence[str], kinds: Sequence[type], extra: Mapping[str, Any]
) -> Any:
    """Returns an argument; a mapping with `_target_`, also in a list, is replaced by the object that it describes."""
    if isinstance(value, Mapping) and "_target_" in value:
        if not kinds:
            _check_part(str(value["_target_"]), f"{where}._target_")
        return instantiate(value, where, trusted, kinds, **extra)
    if isinstance(value, list | tuple):
        return [_made(item, f"{where}[{i}]", trusted, kinds, extra) for i, item in enumerate(value)]
    return value


def _check_part(target: str, where: str) -> None:
    """Raises UntrustedTargetError if a target of Paredown itself is none that a parameter without a type may get."""
    if target.startswith(TRUSTED) and not target.startswith(PARTS):
        rooms = ", ".join(part.rstrip(".") for part in PARTS)
        raise UntrustedTargetError(f"{where}: {target!r} is no part of a task, as those of {rooms} are")


def _kinds(hint: Any) -> list[type]:
    """Returns the classes that an annotation names, also within a union or a list; none if it names no class of objects."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [kind for option in typing.get_args(hint) for kind in _kinds(option)]
    if typing.get_origin(hint) in (list, tuple, abc.Sequence, abc.Iterable):
        return [kind for item in typing.get_args(hint)[:1] for kind in _kinds(item)]
    return [hint] if inspect.isclass(hint) and hint not in _NO_KIND else []


def parameters_of(factory: Any) -> dict[str, inspect.Parameter]:
    """Returns the parameters that can be given by name; those of base classes, too, to which `**` arguments are passed on."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found: dict[str, inspect.Parameter] = {}
    for function in _functions(factory):
        parameters = [*inspect.signature(function).parameters.values()]
        is_method = inspect.isclass(factory)
        found = {p.name: p for p in parameters[is_method:] if p.kind in kinds} | found
    return found


def _functions(factory: Any) -> list[Any]:
    """Returns what is called: of a class its initializer, and the next one while `**` arguments are passed on."""
    if not inspect.isclass(factory):
        return [factory]
    found = []
    for kind in factory.__mro__:
        if "__init__" not in vars(kind):
            continue
        initializer = vars(kind)["__init__"]
        found.append(initializer)
        parameters = inspect.signature(initializer).parameters.values()
        if kind is object or all(p.kind != inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return found


def _hints(factory: Any) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for function in _functions(factory):
        try:
            hints = typing.get_type_hints(function) | hints
        except (NameError, TypeError):  # some names exist for type checkers only: use the plain types
            texts = getattr(function, "__annotations__", {})
            hints = {name: _PLAIN[text] for name, text in texts.items() if text in _PLAIN} | hints
    return hints


def _check_names(given: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], where: str) -> None:
    for key in given:
        if key not in parameters:
            raise ConfigError(unknown_name("key", key, parameters, where) + renamed_key(key))
    for key, value in given.items():
        if value == "???":
            raise ConfigError(f"{where}.{key} must be given, e.g. {where}.{key}=VALUE on the command line")
    empty = inspect.Parameter.empty
    missing = [name for name, p in parameters.items() if p.default is empty and name not in given]
    if missing:
        raise ConfigError(f"{where}.{missing[0]} must be given")


def _fitted(value: Any, hint: Any, where: str) -> Any:
    """Returns the value, converted where needed (int to float, string to Path); checks plain types only."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if any(_fits(value, option) for option in options):
        return float(value) if float in options and int not in options and isinstance(value, int) else value
    if Path in options and isinstance(value, str):
        return Path(value)
    names = " or ".join(_type_name(option) for option in options)
    raise ConfigError(f"{where} must be {names}, not {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    if hint is type(None):
        return value is None
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is bool:
        return isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is str:
        return isinstance(value, str)
    if origin is Path:
        return False
    if origin in (list, tuple) or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        return isinstance(value, list | tuple)
    if origin is dict or (inspect.isclass(origin) and issubclass(origin, Mapping)):
        return isinstance(value, Mapping)
    return True


def _type_name(hint: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        str: "a string",
        bool: "true or false",
        type(None): "null",
    }
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    origin = typing.get_origin(hint) or hint
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "a mapping"
    if inspect.isclass(origin) and issubclass(origin, Sequence) and origin is not str:
        return "a list"
    return names.get(hint, getattr(hint, "__name__", str(hint)))
