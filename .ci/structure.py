"""Prints every folder of the product with its files, lines and imports, and says what is wrong with the structure.

`python .ci/structure.py` exits with 1 if a folder has more than 15 Python files of its own, or if folders, or the modules
and sub-packages of one package, import each other in a circle. That no import runs against the order of the rooms is
`lint-imports`' part: the layers are in pyproject.toml.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("spaces", "evaluators", "search", "conf")
MOST_FILES = 15

Arrows = Mapping[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Returns every module of the product by its dotted name; a package stands for its `__init__.py`."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(file: Path, known: Mapping[str, Path]) -> set[str]:
    """Returns the product's modules that a file imports, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found |= {name} if name in known else {node.module} & known.keys()
    return found


def folder_of(module: str, known: Mapping[str, Path]) -> str:
    """Returns the package in whose folder a module's file lies."""
    return module if known[module].name == "__init__.py" else module.rpartition(".")[0]


def circles(arrows: Arrows) -> list[str]:
    """Returns a circle of imports, if there is one."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def siblings(package: str, edges: Iterable[tuple[str, str]]) -> Arrows:
    """Returns which parts of a package (its modules and sub-packages) import which."""
    arrows = defaultdict(set)
    start = f"{package}."
    for importer, imported in edges:
        if importer.startswith(start) and imported.startswith(start):
            one, other = (name[len(start) :].split(".")[0] for name in (importer, imported))
            if one != other:
                arrows[one].add(other)
    return arrows


def problems(known: Mapping[str, Path], edges: Iterable[tuple[str, str]], folders: Arrows) -> list[str]:
    """Returns what is wrong, one line each."""
    edges = list(edges)
    packages = [name for name, file in known.items() if file.name == "__init__.py"]
    counts = {name: len(list(known[name].parent.glob("*.py"))) for name in packages}
    found = [f"{name}: {n} files, more than {MOST_FILES}" for name, n in counts.items() if n > MOST_FILES]
    found += [f"circle of folders: {text}" for text in circles(folders)]
    for package in packages:
        found += [f"circle inside {package}: {text}" for text in circles(siblings(package, edges))]
    return found


def main() -> int:
    """Prints the table and the problems; returns the exit status."""
    known = modules(ROOT)
    edges = [(name, other) for name, file in known.items() for other in imports(file, known)]
    folders: dict[str, set[str]] = defaultdict(set)
    for name, other in edges:
        if folder_of(name, known) != folder_of(other, known):
            folders[folder_of(name, known)].add(folder_of(other, known))
    total = 0
    for package in sorted(name for name, file in known.items() if file.name == "__init__.py"):
        files = sorted(known[package].parent.glob("*.py"))
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        total += lines
        print(f"{package.replace('.', '/')}: {len(files)} files, {lines:,} lines")
        for other in sorted(folders.get(package, ())):
            print(f"    -> {other.replace('.', '/')}")
    print(f"{total:,} lines in all")
    found = problems(known, edges, folders)
    print("\n".join(found) if found else f"No folder over {MOST_FILES} files, no circle.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
