"""The solutions of the notebooks, as their sources give them, and what a wrong answer must meet."""

from functools import cache
from pathlib import Path

import jupytext
import pytest

from deconvnet.course import Wrong

SOURCES = Path(__file__).parents[2] / "notebooks" / "source"


@cache
def answers(name):
    """The functions that the exercises of a notebook ask for, solved, by name; imports of the notebook included."""
    cells = [cell for cell in jupytext.read(SOURCES / f"{name}.py", fmt="py:percent").cells if cell.cell_type == "code"]
    given = "\n".join(line for cell in cells for line in cell.source.splitlines()
                      if line.startswith(("import ", "from ")))
    solved = [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", [])]
    found = {}
    exec(compile("\n\n".join([given, *solved]), f"{name}.py", "exec"), found)
    return found


def refused(check, wrong, words):
    """The check rejects a wrong answer, and its message has these words."""
    with pytest.raises(Wrong, match=words):
        check(wrong)
