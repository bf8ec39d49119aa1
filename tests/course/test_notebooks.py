"""Every notebook runs from top to bottom in a fresh kernel, without a network and within 2 GB.

The teacher's edition meets no error; the student's meets only what has not been written yet, at each of its checks.
"""

import warnings
from pathlib import Path

import nbformat
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Jupyter's own parts say of each other is not ours
    from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
STUDENT, TEACHER = sorted(FOLDER.glob("*.ipynb")), sorted((FOLDER / "teacher").glob("*.ipynb"))
FIRST = """
import socket
def refuse(*_, **__): raise OSError("the notebook went to the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""
LAST = """
import pathlib
status = pathlib.Path("/proc/self/status")
print(int(status.read_text().partition("VmHWM:")[2].split()[0]) // 1024 if status.exists() else 0)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the cells of a notebook; comes back with them, and the peak of memory in MiB."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONWARNINGS", "default")

    def run(notebook, errors):
        first, last = map(nbformat.v4.new_code_cell, (FIRST, LAST))
        notebook.cells = [first, *notebook.cells, last]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            NotebookClient(notebook, timeout=300, allow_errors=errors, kernel_name="python3",
                           resources={"metadata": {"path": str(tmp_path)}}).execute()
        return notebook.cells[1:-1], int(last.outputs[0].text)
    return run


def stopped(cells):
    """The cells that stopped, each with the name of its error."""
    return [(cell, output.ename) for cell in cells if cell.cell_type == "code"
            for output in cell.outputs if output.output_type == "error"]


def said(cells):
    """What the cells said aside: warnings, most of all."""
    return [output.text for cell in cells if cell.cell_type == "code"
            for output in cell.outputs if output.output_type == "stream" and output.name == "stderr"]


@pytest.mark.parametrize("path", TEACHER, ids=lambda path: path.stem)
def test_the_teachers_edition_runs(path, run):
    cells, peak = run(nbformat.read(path, as_version=4), errors=False)
    checks = [cell for cell in cells if "check" in cell.metadata.get("tags", [])]
    assert all("Right: " in cell.outputs[0].text for cell in checks)
    assert said(cells) == [] and peak < 2048


@pytest.mark.parametrize("path", STUDENT, ids=lambda path: path.stem)
def test_the_students_edition_stops_only_where_something_is_to_be_written(path, run):
    cells, peak = run(nbformat.read(path, as_version=4), errors=True)
    found = stopped(cells)
    assert {error for _, error in found} <= {"NotImplementedError"}
    checks = [cell for cell in cells if "check" in cell.metadata.get("tags", [])]
    assert [cell for cell in checks if cell not in [cell for cell, _ in found]] == [], "a check that checks nothing"
    shown = ["".join(output.traceback) for cell in checks for output in cell.outputs if output.output_type == "error"]
    assert all(text.startswith("Your turn: ") for text in shown), "the lines of a check give the answer away"
    assert said(cells) == [] and peak < 2048


def test_a_notebook_that_goes_to_the_network_or_stops_is_seen(run):
    code = "import urllib.request; urllib.request.urlopen('http://localhost:9')"
    cells, peak = run(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), errors=True)
    assert [error for _, error in stopped(cells)] == ["URLError"] and peak > 10
    assert "went to the network" in cells[0].outputs[0].evalue
