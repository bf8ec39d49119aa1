"""Exhibits: what a figure or table of the paper leaves in a folder, with the numbers in it and where it comes from."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import write_whole
from .layout import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 144  # of figures as PNG


@dataclass(frozen=True)
class Exhibit:
    """A figure: the drawing, the numbers in it as data for JSON, a caption, and what it was made from.

    ``caption`` says which network, which images, which settings, and everything in which it departs from the paper.
    ``pages`` are further drawings by name, which get files of their own beside the first. ``table`` is the same in
    words and numbers, which gets a CSV and a Markdown file.
    """

    drawing: "Sheet | Figure"
    numbers: Mapping[str, Any]
    caption: str
    origin: Mapping[str, Any]
    pages: Mapping[str, "Sheet | Figure"] = field(default_factory=dict)
    table: "Table | None" = None

    def write(self, folder: Path, name: str) -> list[Path]:
        """Writes NAME.png, NAME.pdf, NAME.json and NAME.txt, and what pages and table there are; the files' paths."""
        about = json.dumps(self.origin)
        text = json.dumps({"caption": self.caption, "numbers": self.numbers, "provenance": self.origin}, indent=1)
        drawings = {name: self.drawing, **{f"{name}_{page}": drawing for page, drawing in self.pages.items()}}
        content = {f"{name}.json": text.encode(), f"{name}.txt": (self.caption + "\n").encode()}
        for title, drawing in drawings.items():
            content[f"{title}.png"] = png(drawing, {"Software": "deconvnet", "Provenance": about})
            content[f"{title}.pdf"] = pdf(drawing, {"Title": title, "Subject": about})
        if self.table is not None:
            content[f"{name}.csv"] = self.table.csv().encode()
            content[f"{name}.md"] = self.table.markdown().encode()
        for file, data in content.items():
            write_whole(folder / file, data)
        return [folder / file for file in content]


def png(drawing: "Sheet | Figure", metadata: Mapping[str, str]) -> bytes:
    """A drawing as a PNG file; the same bytes every time."""
    if isinstance(drawing, Sheet):
        return drawing.png(metadata)
    file = io.BytesIO()
    drawing.savefig(file, format="png", dpi=DPI, metadata=dict(metadata))
    return file.getvalue()


def pdf(drawing: "Sheet | Figure", metadata: Mapping[str, str]) -> bytes:
    """A drawing as a PDF file whose text is text and whose pictures keep their pixels; the same bytes every time."""
    if isinstance(drawing, Sheet):
        return drawing.pdf(metadata)
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType: text that is text
        drawing.savefig(file, format="pdf", metadata={**metadata, "CreationDate": None})
    return file.getvalue()


Row = Sequence[str | float | int | None]


@dataclass(frozen=True)
class Table:
    """A table of the paper: heads, rows, a caption, and what it was made from. None is a cell with nothing in it."""

    heads: Sequence[str]
    rows: Sequence[Row]
    caption: str
    origin: Mapping[str, Any]
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, name: str) -> list[Path]:
        """Writes NAME.csv, NAME.md, NAME.tex and NAME.json; the files' paths."""
        text = json.dumps({"caption": self.caption, "heads": list(self.heads), "rows": [list(r) for r in self.rows],
                           "numbers": self.numbers, "provenance": self.origin}, indent=1)
        content = {"csv": self.csv(), "md": self.markdown(), "tex": self.latex(), "json": text}
        for ending, words in content.items():
            write_whole(folder / f"{name}.{ending}", words.encode("utf-8"))
        return [folder / f"{name}.{ending}" for ending in content]

    def cells(self) -> list[list[str]]:
        """The rows as text: numbers that are no whole ones with one digit after the point, nothing as a dash."""
        return [[_cell(value) for value in row] for row in self.rows]

    def csv(self) -> str:
        """The table with all digits, for programs."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.heads)
        writer.writerows(["" if value is None else value for value in row] for row in self.rows)
        return file.getvalue()

    def markdown(self) -> str:
        """The table as Markdown, with its caption below."""
        lines = [self.heads, ["---"] * len(self.heads), *self.cells()]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) \
            + f"\n\n{self.caption}\n"

    def latex(self) -> str:
        """The table as LaTeX, for the package booktabs."""
        def line(cells: Sequence[str]) -> str:
            return " & ".join(_latex(cell) for cell in cells) + r" \\"

        rows = "\n".join(line(row) for row in self.cells())
        return "\n".join([
            r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{l{'r' * (len(self.heads) - 1)}}}", r"\toprule",
            line(self.heads), r"\midrule", rows, r"\bottomrule", r"\end{tabular}",
            rf"\caption{{{_latex(self.caption)}}}", r"\end{table}", ""])


def _cell(value: str | float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
            "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "–": "--",
            "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$"}


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
