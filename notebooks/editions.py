"""Writes the notebooks, for students and for teachers, from one source each.

    python notebooks/editions.py            writes notebooks/*.ipynb and notebooks/teacher/*.ipynb
    python notebooks/editions.py --check    writes nothing, and fails where one of them is not what its source makes

A source is a Python file of cells (jupytext's ``py:percent``). In a cell with the tag ``exercise`` the solution stands
between ``# solution: HINT`` and ``# end of solution``: the student gets ``raise NotImplementedError("HINT")`` in place
of these lines, the teacher the solution without the two marks. The next cell has the tag ``check``.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).parent
SOURCE, TEACHER = HERE / "source", HERE / "teacher"
SOLUTION = re.compile(r"^( *)# solution: (\S.*)\n((?:.*\n)+?)\1# end of solution$", re.MULTILINE)
MARK = re.compile(r"# *(end of )?solution\b")


class Malformed(ValueError):
    """A source that is not written as the editions need it; the message names the file and the cell."""


def student(cell: str) -> str:
    """An exercise with the hint in place of its solution."""
    def hint(match: re.Match) -> str:
        return f"{match[1]}raise NotImplementedError({json.dumps(match[2], ensure_ascii=False)})"
    return SOLUTION.sub(hint, cell)


def teacher(cell: str) -> str:
    """An exercise with its solution, without the marks."""
    return SOLUTION.sub(lambda match: match[3].removesuffix("\n"), cell)


def edition(source: Path, write=student) -> str:
    """The text of a notebook, made from a source by ``student`` or ``teacher``: no outputs, always the same bytes."""
    cells = jupytext.read(source, fmt="py:percent").cells
    _check(source, cells)
    return nbformat.writes(nbformat.v4.new_notebook(
        cells=[_cell(number, cell, write) for number, cell in enumerate(cells, 1)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                  "language_info": {"name": "python"}})) + "\n"


def editions() -> Iterator[tuple[Path, str]]:
    """Every notebook, and the text that belongs in it."""
    for source in sorted(SOURCE.glob("*.py")):
        yield HERE / f"{source.stem}.ipynb", edition(source, student)
        yield TEACHER / f"{source.stem}.ipynb", edition(source, teacher)


def stale() -> list[Path]:
    """The notebooks that are missing, differ from what their source makes, or have no source."""
    made = dict(editions())
    differ = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return differ + [path for path in sorted([*HERE.glob("*.ipynb"), *TEACHER.glob("*.ipynb")]) if path not in made]


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _cell(number: int, cell: NotebookNode, write) -> NotebookNode:
    exercise = "exercise" in _tags(cell)
    make = nbformat.v4.new_markdown_cell if cell.cell_type == "markdown" else nbformat.v4.new_code_cell
    metadata = {"tags": _tags(cell)} if _tags(cell) else {}
    return make(write(cell.source) if exercise else cell.source, id=f"cell-{number:02}", metadata=metadata)


def _check(source: Path, cells: list[NotebookNode]) -> None:
    """Raises Malformed where a mark is missing, stands outside an exercise, or an exercise has no check."""
    for number, cell in enumerate(cells, 1):
        where, exercise = f"{source.name}, cell {number}", "exercise" in _tags(cell)
        if bool(MARK.search(teacher(cell.source))) or exercise != bool(SOLUTION.search(cell.source)):
            raise Malformed(f"{where}: '# solution: HINT' and '# end of solution' belong in an exercise, each once, "
                            "with the same indentation")
        if exercise and (number == len(cells) or "check" not in _tags(cells[number])):
            raise Malformed(f"{where}: the cell after an exercise is its check")


def main(words: list[str]) -> int:
    """Writes or checks the editions; the exit code."""
    if words == ["--check"]:
        late = stale()
        print("\n".join(f"stale: {path.relative_to(HERE)}; run python notebooks/editions.py" for path in late)
              or "every notebook is what its source makes")
        return bool(late)
    if words:
        print(__doc__)
        return 2
    TEACHER.mkdir(exist_ok=True)
    for path, text in editions():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
