"""The code that a cluster's workers have to import, and how it gets there: by Ray's `runtime_env`."""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from spaces.code_digest import imports_of
from spaces.errors import ConfigError
from spaces.extras import PACKAGES

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_MOST_BYTES = 100 * 2**20
_EXCLUDED = ("__pycache__", ".git", ".venv", "*.pyc")


@dataclass(frozen=True)
class Code:
    """Packages and modules: their folders and files.

    Attributes:
        paths: Folder of each package, file of each module.
    """

    paths: tuple[Path, ...]

    @classmethod
    def of(cls, trusted_modules: Sequence[str]) -> "Code":
        """Returns the code of this product, of the modules that the user trusts, and of what those import.

        Modules in `site-packages` are left out: these are dependencies, which the cluster's image has. Imports by a computed
        name are not detected.

        Raises:
            ConfigError: A package is too large to be sent.
        """
        top = Path(str(resources.files("search"))).parent
        found = {name: [top / name] for name in PACKAGES}
        waiting = [name.partition(".")[0] for name in trusted_modules]
        while waiting:
            name = waiting.pop()
            if name in found or name in sys.stdlib_module_names:
                continue
            found[name] = [path for path in _located(name) if not _INSTALLED & set(path.parts)]
            for path in found[name]:
                _check_size(name, path)
                waiting += _imported(path)
        return cls(tuple(path for name in found for path in found[name]))

    def runtime_env(self) -> dict[str, Any]:
        """Returns the environment of workers: Ray sends each folder or file once per content, and workers import it first."""
        return {"py_modules": [str(path) for path in self.paths], "excludes": list(_EXCLUDED)}


def _located(name: str) -> list[Path]:
    """Returns the folders of a package (several for a namespace package) or the file of a module; empty if unknown."""
    spec = _spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [Path(folder) for folder in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _imported(path: Path) -> set[str]:
    """Returns the top names of all that a package or module imports."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    names = {name for file in files for name in imports_of(file.read_bytes(), path.stem)}
    return {name.partition(".")[0] for name in names}


def _check_size(name: str, path: Path) -> None:
    total = sum(size for size in _sizes(path))
    if total > _MOST_BYTES:
        raise ConfigError(
            f"trusted_modules: {path}, the package {name!r}, has {total / 2**20:.0f} MiB, too much to be sent to the nodes of a Ray "
            f"cluster (at most {_MOST_BYTES // 2**20} MiB): keep code and data apart, or install the package in the cluster's image"
        )


def _sizes(path: Path) -> Iterable[int]:
    files = path.rglob("*") if path.is_dir() else [path]
    return (f.stat().st_size for f in files if f.is_file() and not {*_EXCLUDED} & set(f.parts))
