"""Executes notebooks and stores them with their outputs.

`python .ci/notebooks.py [NAME ...]` runs `notebooks/NAME.ipynb`, all of them by default, each in an empty folder, offline. What differs from
machine to machine without a meaning is left out of the outputs: metadata of the execution, the wait for other studies' timings, and warnings,
which hold paths of this machine.
"""

import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
COMMAND = "python .ci/notebooks.py"
_WAITED = "waiting for another study's"


def digest(notebook: NotebookNode) -> str:
    """Returns a digest of the code cells, by which outputs are told from those of other code."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return sha256("\0".join(code).encode()).hexdigest()[:16]


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Runs all cells in a folder; their outputs are in the notebook then."""
    NotebookClient(
        notebook, timeout=600, coalesce_streams=True, resources={"metadata": {"path": str(folder)}}
    ).execute()


def tidy(notebook: NotebookNode) -> None:
    """Leaves out what says nothing, and notes which code the outputs are of."""
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _says_something(output)]
            for output in cell.outputs:
                if output.output_type != "stream":
                    output.metadata = NotebookNode()
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(kernel),
        language_info=NotebookNode(name="python"),
        paredown={"code": digest(notebook)},
    )


def _says_something(output: NotebookNode) -> bool:
    if output.output_type == "stream":
        return bool(output.name == "stdout")
    return not output.data.get("text/plain", "").startswith(_WAITED)


def main(names: Sequence[str]) -> int:
    """Executes the named notebooks; returns the exit status."""
    known = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    if unknown := [name for name in names if name not in known]:
        print(f"no notebook {', '.join(unknown)}; there are {', '.join(known)}")
        return 2
    for path in [known[name] for name in names or known]:
        notebook = nbformat.read(path, as_version=4)
        with TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        tidy(notebook)
        nbformat.validate(notebook)
        path.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main([name.removesuffix(".ipynb") for name in sys.argv[1:]]))
