"""Files that are whole or not there, and outputs that one process writes at a time."""

import ctypes
import errno
import os
import platform
import re
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path

from .errors import DeconvnetError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"  # the file that says who writes in its folder
_BEGUN = re.compile(r"\.[0-9a-f]{8}-\d+-\d+\.part")  # what a process and thread had not yet finished when it was killed


def write_whole(path: Path, content: bytes, flush: bool = True, previous: Path | None = None) -> None:
    """Puts the whole content under its final name, or nothing: written beside, flushed to the disk, then renamed.

    ``previous`` is where the file goes that had the name before; between the two renamings that is the only one there
    is. Who writes thousands may flush them all at once, with ``flush_all``, before it says that they are there. Raises
    DeconvnetError, naming the file, where that is not possible; what was there before is then still there.
    """
    beside = path.with_name(f".{_mark(path)}-{os.getpid()}-{threading.get_ident()}.part")
    try:
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                if flush:
                    os.fsync(file.fileno())
            if previous is not None:
                with suppress(FileNotFoundError):
                    path.replace(previous)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise DeconvnetError(f"{path} cannot be written: {error.strerror or error}") from error
    if flush:
        _flush_names(path.parent)


def _mark(path: Path) -> str:
    """Eight letters for the name of a file: short, however long that is."""
    return sha256(os.fsencode(path.name)).hexdigest()[:8]


def _flush_names(folder: Path) -> None:
    """Flushes the names in a folder to the disk, where the system can do that."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hex; it is read piece by piece."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def made_folder(path: Path) -> Path:
    """The folder, made if need be in one that is there. Raises DeconvnetError, naming it, where it cannot be made."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise DeconvnetError(f"{path} cannot be made: {error.strerror or error}") from error
    return path


def begun(path: Path) -> bool:
    """Whether ``write_whole`` had begun to write this file, or somebody put it there who writes in its folder."""
    return _BEGUN.fullmatch(path.name) is not None or path.name == LOCK


def sweep(folder: Path) -> None:
    """Removes what ``write_whole`` had begun in a folder and below; nothing may be writing there."""
    for path in folder.rglob("*.part"):
        if begun(path):
            path.unlink(missing_ok=True)


def flush_all(folder: Path) -> None:
    """Flushes whatever was written to the disk that holds a folder: one call instead of one for each of many files.

    On Linux that disk alone; elsewhere all of them, where the system can do that. Raises DeconvnetError where it fails.
    """
    if not sys.platform.startswith("linux"):
        getattr(os, "sync", lambda: None)()
        return
    try:
        number = os.open(folder, os.O_RDONLY)
        try:
            _flush_disk(number)
        finally:
            os.close(number)
    except OSError as error:
        raise DeconvnetError(f"{folder} cannot be written: {error.strerror}") from error


def _flush_disk(number: int) -> None:
    """Flushes the disk of an open file, which Python's os has no call for. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).syncfs(number):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


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


# ---- one process at a time ----

_held: set[int] = set()  # descriptors of the locks of this process


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """While it lasts, nobody else who asks for the same may write this file, or in this folder.

    Raises DeconvnetError, saying which process on which computer and since when, where somebody does. The lock is the
    operating system's, upon a small file in the folder or beside the file; so a process that is killed leaves nothing
    that blocks, and the small file goes with the lock. What this process forks does not hold it. What killed ones had
    begun to write for this one file is removed; in a folder, ``sweep`` does that.
    """
    place = path / LOCK if path.is_dir() else path.with_name(f".{_mark(path)}{LOCK}")
    number = _taken(place, path)
    try:
        _sign(number)
        for part in path.parent.glob(f".{_mark(path)}-*.part"):
            part.unlink(missing_ok=True)
        yield
    finally:
        if number in _held:  # not in what was forked
            _held.discard(number)
            with suppress(OSError):  # Windows: it is open
                place.unlink()
            os.close(number)


def _taken(place: Path, path: Path) -> int:
    """The descriptor of a lock that this process now has."""
    while True:
        try:
            number = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise DeconvnetError(f"{path} cannot be written: {error.strerror or error}") from error
        _held.add(number)
        try:
            _lock(number)
        except OSError as error:
            _drop(number)
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise DeconvnetError(f"{path} is being written by {_holder(place)}: wait for it, or choose another "
                                     "place to write to") from error
            raise DeconvnetError(f"{path} cannot be locked: {error.strerror or error}") from error
        with suppress(OSError):
            if os.path.samestat(os.fstat(number), place.stat()):
                return number
        _drop(number)  # whoever had it has removed the file meanwhile


def _sign(number: int) -> None:
    """Says in a lock's file who has it, for ``_holder``; on a full disk it stays unsaid."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError):
        os.ftruncate(number, 0)
        os.write(number, f"process {os.getpid()} on {platform.node()} since {since}\n".encode())


def _lock(number: int) -> None:
    """Locks an open file, or raises OSError at once."""
    if sys.platform == "win32":
        os.lseek(number, 1 << 30, os.SEEK_SET)  # far from the text, which others shall read
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        os.lseek(number, 0, os.SEEK_SET)
        return
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        warnings.warn("This file system has no locks: see to it that no other process has the same --out", stacklevel=2)


def _drop(number: int) -> None:
    _held.discard(number)
    os.close(number)


def _holder(place: Path) -> str:
    """Who says in a lock's file that he has it; he may not have come to write it yet."""
    for _ in range(20):
        with suppress(OSError):
            text = place.read_text(encoding="utf-8", errors="replace")
            if text.endswith("\n"):
                return text.strip()
        time.sleep(0.05)
    return "another process"


def _not_in_a_fork() -> None:
    """Closes in a process just forked the locks of the one that forked it, which else would outlive that one."""
    for number in _held:
        os.close(number)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_not_in_a_fork)
