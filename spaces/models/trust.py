"""The allow-list of packages that a config may name: nothing outside them is imported or called."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from spaces.errors import ConfigError, InputError, UntrustedTargetError

TRUSTED = ("spaces.", "evaluators.", "search.", "optuna.samplers.", "optuna.pruners.", "torch.nn.")


def check_trusted(name: str, trusted: Sequence[str], where: str) -> None:
    """Checks that a dotted name lies under an allow-listed package, before anything is imported.

    Whole components are compared: `spaces.` admits `spaces.models.zoo.X`, not `spaces_of_mine.X`.

    Args:
        name: Dotted name of a class or function.
        trusted: Packages that the user adds to the allow-list, e.g. `["my_package", "timm.models"]`.
        where: Config path of the name, for the message.

    Raises:
        UntrustedTargetError: The name lies outside the list, or is not a dotted name.
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
    if not _admits(name, trusted):
        allowed = ", ".join(p.rstrip(".") for p in (*TRUSTED, *trusted))
        raise UntrustedTargetError(
            f"{where}: {name!r} is outside the trusted packages ({allowed}). If you trust it, add its package: "
            f"trusted_modules=[{parts[0]}]"
        )


def import_trusted(name: str, trusted: Sequence[str], where: str) -> Any:
    """Imports the class or function of a dotted name, and checks that its defining module is trusted, too.

    The second check refuses a name that a trusted module merely imports, e.g.
    `spaces.stages.cache.os.replace`.

    Args:
        name: Dotted name of a class or function.
        trusted: Packages that the user adds to the allow-list.
        where: Config path of the name, for the message.

    Raises:
        UntrustedTargetError: The name, or the module that defines the object, is outside the list.
        InputError: There is no such module or attribute.
    """
    check_trusted(name, trusted, where)
    found = _resolve(name, where)
    home = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"
    if not callable(found) or not _admits(home, trusted):
        raise UntrustedTargetError(
            f"{where}: {name!r} is not a class or function of a trusted package (it is {home}). If you trust it, "
            f"add its package: trusted_modules=[{home.split('.')[0]}]"
        )
    return found


def _admits(name: str, trusted: Sequence[str]) -> bool:
    prefixes = [p.rstrip(".") for p in (*TRUSTED, *trusted)]
    return any(p and (name + ".").startswith(p + ".") for p in prefixes)


def _resolve(name: str, where: str) -> Any:
    """Imports the longest part of the name that is a module, then follows attributes."""
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
        return _follow(found, parts[n:], name, where)
    raise InputError(f"{where}: there is no module {parts[0]!r}. Install it, or put its folder on PYTHONPATH")


def _follow(found: Any, attributes: list[str], name: str, where: str) -> Any:
    for attribute in attributes:
        if not hasattr(found, attribute):
            raise InputError(f"{where}: {name!r} does not exist: {found!r} has no {attribute!r}")
        found = getattr(found, attribute)
    return found
