"""Files that are whole or not there."""

import os
import tempfile
import threading
from pathlib import Path

from .errors import DeconvnetError


def write_whole(path: Path, content: bytes) -> None:
    """Puts the whole content under its final name, or nothing: written beside, flushed to the disk, then renamed.

    Raises DeconvnetError, naming the file, where that is not possible; what was there before is then still there.
    """
    beside = path.with_name(f".{os.getpid()}-{threading.get_ident()}.part")  # short, whatever the file is called
    try:
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise DeconvnetError(f"{path} cannot be written: {error.strerror or error}") from error


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
