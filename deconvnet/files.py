"""Files that are whole or not there."""

import os
import re
import tempfile
import threading
from pathlib import Path

from .errors import DeconvnetError

_BEGUN = re.compile(r"\.\d+-\d+\.part")  # what a process and thread had not yet finished when it was killed


def write_whole(path: Path, content: bytes, flush: bool = True) -> None:
    """Puts the whole content under its final name, or nothing: written beside, flushed to the disk, then renamed.

    Who writes thousands may flush them all at once, with ``flush_all``, before it says that they are there. Raises
    DeconvnetError, naming the file, where that is not possible; what was there before is then still there.
    """
    beside = path.with_name(f".{os.getpid()}-{threading.get_ident()}.part")  # short, whatever the file is called
    try:
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                if flush:
                    os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise DeconvnetError(f"{path} cannot be written: {error.strerror or error}") from error


def made_folder(path: Path) -> Path:
    """The folder, made if need be in one that is there. Raises DeconvnetError, naming it, where it cannot be made."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise DeconvnetError(f"{path} cannot be made: {error.strerror or error}") from error
    return path


def begun(path: Path) -> bool:
    """Whether ``write_whole`` had begun to write this file and was killed, or is still at it."""
    return _BEGUN.fullmatch(path.name) is not None


def sweep(folder: Path) -> None:
    """Removes what ``write_whole`` had begun in a folder and below; nothing may be writing there."""
    for path in folder.rglob("*.part"):
        if begun(path):
            path.unlink(missing_ok=True)


def flush_all() -> None:
    """Flushes to the disk whatever was written, where the system can do that at once."""
    if hasattr(os, "sync"):
        os.sync()


def writable_folder(path: str | Path) -> Path:
    """The folder, made if need be. DeconvnetError, before any work, where nothing can be written in it.

    Several processes may try at the same time.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise DeconvnetError(f"Cannot write in {folder}: {error.strerror}. Choose another with --out.") from error
