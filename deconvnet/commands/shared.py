"""What several commands print, and the places where they write."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import DeconvnetError, UsageError
from ..files import sole_writer, writable_folder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..network import Network


ENDLESS = 9999  # characters in a line: more than any table has
COMMAND = re.compile(r".{40,} --\w")  # in a cell of a table: a long command to type, which its files hold whole


def mirrored(net: "Network", chosen: dict[str, list[int]], asked: bool) -> dict[str, list[int]]:
    """The layers that can be projected from. An error, before any picture, if others are asked for or none is left."""
    from ..describe import obstacles

    blocked = obstacles(net, list(chosen), (net.preprocess.size,) * 2, net.preprocess.channels)
    if blocked and (asked or len(blocked) == len(chosen)):
        raise DeconvnetError(next(iter(blocked.values())))
    for layer, obstacle in blocked.items():
        print(f"{layer} is left out. {obstacle}")
    return {layer: numbers for layer, numbers in chosen.items() if layer not in blocked}


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 320)


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str] = ()) -> None:
    """A table on the screen, the first two columns to the left; what has no room goes on below, but long commands.

    On a narrow screen the ``spare`` columns are left out instead, as many as need be, and that is said.
    """
    console = _console()
    for count in range(len(spare) + 1):
        left = spare[:count]
        shown = [place for place, head in enumerate(heads) if head not in left]
        table = _table(title, heads, rows, shown, console.width)
        if console.measure(table, options=console.options.update(width=ENDLESS)).maximum <= console.width:
            break
    console.print(table, markup=False)
    if left:
        console.print(f"The window is too narrow for: {', '.join(left)}. A wider one shows them, and so does a file: "
                      "> FILE", markup=False)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], shown: Sequence[int], width: int
           ) -> "Table":
    """The columns that are shown, for a screen of so many characters across."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for number in shown:
        justify: Literal["left", "right"] = "left" if number < 2 else "right"
        if any(COMMAND.match(row[number]) for row in rows):  # nobody would read it letter by letter
            table.add_column(heads[number], justify=justify, no_wrap=True, overflow="ellipsis", max_width=width // 3)
        else:
            table.add_column(heads[number], justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(row[number] for number in shown))
    return table


def print_written(caption: str, folder: Path, files: Sequence[Path]) -> None:
    """What a figure or table shows, and where its files lie."""
    print(caption)
    print(f"In {folder}: {', '.join(file.name for file in files)}")


def sole_file(path: str | Path, first: bool) -> AbstractContextManager[Path]:
    """The file's path, while no other command writes it. DeconvnetError or UsageError where it cannot be written.

    Of processes that write together the ``first`` sees to that. As with ``sole_folder``, no empty folder is left.
    """
    file = Path(path)
    if file.is_dir():
        raise UsageError(f"{file} is a folder; --out takes the name of a file, such as {file / 'scan.safetensors'}")
    return _sole(file, file.parent, first)


def sole_folder(path: str | Path) -> AbstractContextManager[Path]:
    """The folder, made if need be, while no other command writes in it. DeconvnetError where that cannot be.

    Those that were made, and in which nothing came to be written, are removed again.
    """
    return _sole(Path(path), Path(path), os.environ.get("RANK", "0") == "0")


@contextmanager
def _sole(path: Path, folder: Path, first: bool) -> Iterator[Path]:
    """The path, in or of a folder that is made if need be, while no other command writes there."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    writable_folder(folder)
    try:
        with sole_writer(path) if first else nullcontext():
            yield path
    finally:
        with suppress(OSError):  # there is something in it
            for empty in new if first else []:
                empty.rmdir()


def names_in(text: str | None) -> list[str] | None:
    """The names in a list with commas between; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",")]
