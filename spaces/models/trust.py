"""The allow-list of packages that a config may name: nothing outside them is imported or called."""

import inspect
import sys
import types
import typing
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from spaces.errors import ConfigError, InputError, UntrustedTargetError

TRUSTED = ("spaces.", "evaluators.", "search.", "optuna.samplers.", "optuna.pruners.", "torch.nn.")
_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy"}


def check_trusted(name: str, trusted: Sequence[str], where: str) -> None:
    """Checks that a dotted name lies under an allow-listed package, before anything is imported.

    Whole components are compared: `spaces.` admits `spaces.models.zoo.X`, not `spaces_of_mine.X`. Of the packages that
    are trusted without the user's word, private names are refused.

    Args:
        name: Dotted name of a class or function.
        trusted: Packages that the user adds to the allow-list, e.g. `["my_package", "timm.models"]`.
        where: Config path of the name, for the message.

    Raises:
        UntrustedTargetError: The name lies outside the list, is private, or is not a dotted name.
    """
    if name == "???":
        raise ConfigError(
            f"{where} must be given: the dotted name of a class, e.g. 'my_package.models.MyNet'"
        )
    parts = name.split(".") if isinstance(name, str) else []
    if len(parts) < 2 or not all(p.isidentifier() and not p.startswith("__") for p in parts):
        raise UntrustedTargetError(
            f"{where}: {name!r} is not a dotted name such as 'my_package.models.MyNet'"
        )
    if not _admitting(name, (*TRUSTED, *trusted)):
        allowed = ", ".join(p.rstrip(".") for p in (*TRUSTED, *trusted))
        raise UntrustedTargetError(
            f"{where}: {name!r} is outside the trusted packages ({allowed}). {_how_to_trust(parts[0])}"
        )
    if _admitting(name, TRUSTED) and any(part.startswith("_") for part in parts):
        raise UntrustedTargetError(f"{where}: {name!r} is private; name a public class")


def import_trusted(
    name: str,
    trusted: Sequence[str],
    where: str,
    kinds: Sequence[type] = (),
    *,
    plain_functions: bool = False,
) -> Any:
    """Imports the class, or the factory function, of a dotted name, and checks it without calling it.

    The object must be defined in the trusted package that the name begins with, not merely be imported there, as `os` is
    in `spaces.stages.cache.os.replace`. A function must say in its annotation what it returns.

    Args:
        name: Dotted name of a module and a class or function in it.
        trusted: Packages that the user adds to the allow-list.
        where: Config path of the name, for the message.
        kinds: The class, or what a function says that it returns, must derive from one of them; empty admits every class.
        plain_functions: Whether a function of the user's own packages, not of Python's or torch, may lack the annotation.

    Raises:
        UntrustedTargetError: The name, or the module that defines the object, is outside the list.
        ConfigError: The object is of another kind.
        InputError: There is no such module or attribute.
    """
    check_trusted(name, trusted, where)
    found, direct = _resolve(name, where)
    home = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"
    prefixes = _admitting(name, (*TRUSTED, *trusted))
    if not direct or not callable(found) or not _admitting(home, prefixes):
        elsewhere = _admitting(home, (*TRUSTED, *trusted))
        raise UntrustedTargetError(
            f"{where}: {name!r} is not a class or function of a trusted package (it is {home}). "
            + ("Name it by its own module" if elsewhere else _how_to_trust(home.split(".")[0]))
        )
    if not _is_admissible(found, kinds, plain_functions):
        wanted = " or ".join(kind.__name__ for kind in kinds) or "class"
        hint = "" if inspect.isclass(found) else "; a function needs the annotation of what it returns"
        raise ConfigError(f"{where}: {name!r} is no {wanted}{hint}")
    return found


def _how_to_trust(package: str) -> str:
    return f"If you trust it, add its package on the command line: trusted_modules=[{package}]"


def _admitting(name: str, prefixes: Sequence[str]) -> list[str]:
    """Returns the prefixes that a name lies under."""
    cleaned = [p.rstrip(".") for p in prefixes]
    return [p for p in cleaned if p and (name + ".").startswith(p + ".")]


def _is_admissible(found: Any, kinds: Sequence[type], plain_functions: bool) -> bool:
    if inspect.isclass(found):
        return not kinds or any(is_kind(found, kind) for kind in kinds)
    home = str(getattr(found, "__module__", ""))
    of_users = not _admitting(home, TRUSTED) and home.split(".")[0] not in _LIBRARIES
    plain = plain_functions and of_users and isinstance(found, types.FunctionType)
    if not kinds:
        return plain
    try:
        returned = typing.get_type_hints(found).get("return", inspect.Signature.empty)
    except Exception:  # names that exist for type checkers only
        return False
    if returned is inspect.Signature.empty:
        return plain
    return inspect.isclass(returned) and any(is_kind(returned, kind) for kind in kinds)


def is_kind(found: type, kind: type) -> bool:
    """Whether a class derives from another one, or has the methods of a protocol."""
    if getattr(kind, "_is_protocol", False):
        methods = [
            name
            for base in kind.__mro__
            if getattr(base, "_is_protocol", False)
            for name, value in vars(base).items()
            if isinstance(value, types.FunctionType) and not name.startswith("_")
        ]
        return all(callable(getattr(found, name, None)) for name in methods)
    return issubclass(found, kind)


def _resolve(name: str, where: str) -> tuple[Any, bool]:
    """Returns the object, and whether it is an attribute of a module itself."""
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:n])
        try:
            found = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name + ".").startswith(error.name + "."):
                raise InputError(
                    f"{where}: {module_name} needs {error.name!r}, which is not installed"
                ) from error
            continue
        return _follow(found, parts[n:], name, where), n == len(parts) - 1
    raise InputError(f"{where}: there is no module {parts[0]!r}. Install it, or put its folder on PYTHONPATH")


def _follow(found: Any, attributes: list[str], name: str, where: str) -> Any:
    for attribute in attributes:
        if not hasattr(found, attribute):
            raise InputError(f"{where}: {name!r} does not exist: {found!r} has no {attribute!r}")
        found = getattr(found, attribute)
    return found
