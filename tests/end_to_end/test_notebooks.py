"""The notebooks: they run, and the outputs that they are stored with are those of their code."""

import re
import runpy
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCRIPT = runpy.run_path(str(ROOT / ".ci/notebooks.py"), run_name="notebooks")
MOST_BYTES = 150_000
ALWAYS_RUN = "quickstart"  # the others train networks, or search longer

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


# the kernel's sockets are closed by its own thread, some after the client is gone
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == ALWAYS_RUN else [pytest.mark.slow])
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    SCRIPT["execute"](nbformat.read(path, as_version=4), tmp_path)
    assert list(tmp_path.glob("outputs/*/report.html"))


@every_notebook
def test_stored_outputs_are_those_of_the_code(path):
    notebook = nbformat.read(path, as_version=4)
    known = notebook.metadata.get("paredown", {}).get("code")
    assert known == SCRIPT["digest"](notebook), f"run {SCRIPT['COMMAND']} {path.stem}"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) > len(code) / 2
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]


@every_notebook
def test_a_notebook_is_small_and_says_nothing_of_the_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users)/\S*|site-packages|stderr", text)


def test_changed_code_is_told_from_its_outputs():
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    before = SCRIPT["digest"](notebook)
    notebook.cells[0].source += " Other words."
    assert notebook.cells[0].cell_type == "markdown"
    assert SCRIPT["digest"](notebook) == before
    next(cell for cell in notebook.cells if cell.cell_type == "code").source += "\n1 + 1"
    assert SCRIPT["digest"](notebook) != before


def test_what_says_nothing_of_the_study_is_not_stored():
    streams = [nbformat.v4.new_output("stream", name=name, text=name) for name in ("stdout", "stderr")]
    shown = [
        nbformat.v4.new_output("display_data", {"text/plain": text}, metadata={"some": "thing"})
        for text in ("waiting for another study's timing", "1/6 trials")
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[*streams, *shown])])
    SCRIPT["tidy"](notebook)
    assert notebook.cells[0].outputs == [
        streams[0],
        nbformat.v4.new_output("display_data", {"text/plain": "1/6 trials"}),
    ]
