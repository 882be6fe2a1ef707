"""Digests of the code behind a class or function: of the files that define it and all that these import.

Imports of source files that may be edited in place are followed recursively. An installed package contributes
its version instead of its files, since that changes with its code. The standard library, `LIBRARIES` and
`spaces` are left out: a caller that keeps results across versions of these must add their versions to its own
key, as the cache of the stages does. Imports by a computed name are not detected.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType
from typing import NamedTuple

from spaces.digest import digest_of

LIBRARIES = ("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "torch")
_ROOM = __name__.partition(".")[0]
_LEFT_OUT = frozenset({*sys.stdlib_module_names, *LIBRARIES, _ROOM}) - {"__main__"}
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def code_digest(code: object) -> str:
    """Returns 16 hex digits over the code behind a class (its base classes included) or a function.

    The digest is computed once per class: editing a file of a loaded module does not change the code that
    runs, and reloading the module makes new classes.
    """
    return _digest(code)


@lru_cache(maxsize=1024)
def _digest(code: object) -> str:
    origins = [k for k in getattr(code, "__mro__", (code,)) if _top(_home(k)) not in _LEFT_OUT - {_ROOM}]
    without_file = sorted(repr(_functions(k)) for k in origins if _located(_home(k)).file is None)
    name = f"{_home(code)}.{getattr(code, '__qualname__', '')}"
    return digest_of(name, without_file, *_closure({_home(origin) for origin in origins}))


def version_of(package: str) -> str:
    """Returns the version of an installed package; empty if it has none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # its distribution has another name
        return str(getattr(sys.modules.get(package), "__version__", ""))


def bytecode(code: CodeType) -> tuple[object, ...]:
    """Returns a code object as nested tuples, equal in every process of one Python version."""
    constants = [_constant(value) for value in code.co_consts]
    return (code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants)


def _constant(value: object) -> object:
    if isinstance(value, CodeType):
        return bytecode(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value  # a set's order is random


def _functions(origin: object) -> list[tuple[object, ...]]:
    """Returns the bytecode of a function, or of a class's methods, that have no source file."""
    values = [origin, *getattr(origin, "__dict__", {}).values()]
    return [
        bytecode(value.__code__) for value in values if isinstance(getattr(value, "__code__", None), CodeType)
    ]


class _Located(NamedTuple):
    """The location of a module: its file, and the folders of its submodules."""

    file: Path | None
    folders: tuple[str, ...] = ()


def _closure(modules: set[str]) -> list[tuple[str, str]]:
    """Returns `(name, file digest or package version)` of every module that is reached, sorted by name."""
    found: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        name = waiting.pop()
        file, folders = _located(name)
        if name in found or file is None:
            continue
        content = file.read_bytes()
        found[name] = sha256(content).hexdigest()
        if _INSTALLED & set(file.parts):
            found[_top(name)] = f"{found.get(_top(name), '')} {version_of(_top(name))}"
        elif _top(name) != _ROOM and file.suffix == ".py":
            package = name if folders else name.rpartition(".")[0]
            waiting += [other for other in imports_of(content, package) if _top(other) not in _LEFT_OUT]
    return sorted(found.items())


@lru_cache(maxsize=1024)
def imports_of(source: bytes, package: str) -> frozenset[str]:
    """Returns the dotted names that a source file of the package imports, with all their parent packages."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):  # edited since it was imported
        return frozenset()
    names = {name for node in nodes for name in _named(node, package)}
    return frozenset(".".join(name.split(".")[: n + 1]) for name in names for n in range(name.count(".") + 1))


def _named(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*around, *([node.module] if node.module else [])])
        # Each name is a module, or an attribute of the module `base`.
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _located(name: str) -> _Located:
    """Finds a module without importing it."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return _Located(Path(file) if file else None, tuple(getattr(loaded, "__path__", ())))
    parent, _, last = name.rpartition(".")
    around = _located(parent).folders if parent else ()
    try:
        spec = PathFinder.find_spec(name, around) if parent else importlib.util.find_spec(name)
    except KeyError:  # a folder without __init__.py; to make its path, the finder wants the package around it to be imported
        return _Located(
            None, tuple(str(Path(folder, last)) for folder in around if Path(folder, last).is_dir())
        )
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return _Located(None)
    file = Path(spec.origin) if spec.has_location and spec.origin else None
    return _Located(file, tuple(spec.submodule_search_locations or ()))


def _home(code: object) -> str:
    return str(getattr(code, "__module__", None) or "builtins")


def _top(name: str) -> str:
    return name.partition(".")[0]
