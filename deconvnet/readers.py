"""Processes that read images: what they hand over, and what becomes of an image at which one of them dies or hangs.

Of torch's DataLoader one worker that dies ends the run, and one that hangs holds it.
"""

import multiprocessing
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .errors import DeconvnetError
from .stopping import how_it_ended, uninterrupted, wait_for_the_parent

AHEAD = 2          # chunks that a process is asked for before its first is wanted
PATIENCE = 60.0    # seconds until a process that hands nothing over is taken to hang
BEGINNING = 600.0  # and until it reads: where it is not forked, it loads torch from a disk that may be slow
SOON = 10          # among what multiprocessing does as a program ends: before it waits for the processes
MOST_IN_A_ROW = 10  # images at which processes died or hung, and none between: that is not the images' fault


class Item(NamedTuple):
    """An image as it was handed over, or why there is none."""

    number: int
    image: Any = None  # (3, H, W), or (H, W, 3) of Pixels
    label: Any = None
    unreadable: tuple[str, str] | None = None  # its name, and the reason


class Readable(Protocol):
    """Images by number. Where processes are spawned and not forked, it must survive being pickled."""

    def read(self, number: int) -> Item:
        """One image."""

    def name(self, number: int) -> str:
        """What to call it where it cannot be read."""


def read(images: Readable, chunks: Sequence[Sequence[int]], processes: int) -> Generator[list[Item]]:
    """The images of each chunk, in order; read here, or by so many processes, which end when this is closed.

    An image at which a process dies, for a decoder may crash or memory be short, is read once more by another, and so
    is one that takes more than ``PATIENCE`` seconds; the second time it is unreadable. Raises DeconvnetError where
    that is so of ``MOST_IN_A_ROW`` images, one after the other, or of two processes that have not come to read any; and
    whatever the images themselves raise.
    """
    if not processes:
        yield from ([images.read(number) for number in chunk] for chunk in chunks)
        return
    row = _Row()
    readers = [_Reader(images, row) for _ in range(min(processes, len(chunks)))]
    asked = 0
    try:
        for place, chunk in enumerate(chunks):
            while asked < min(place + AHEAD * len(readers), len(chunks)):
                readers[asked % len(readers)].ask(chunks[asked])
                asked += 1
            reader = readers[place % len(readers)]
            yield [reader.next() for _ in chunk]
    finally:
        for reader in readers:
            reader.end()


class _Lost(Exception):
    """A process is gone that still had images to read: what became of it, and what that says of the image."""

    def __init__(self, fate: str, reason: str) -> None:
        super().__init__(fate)
        self.reason = reason


@dataclass
class _Row:
    """How many images in a row were given up."""

    length: int = 0


class _Reader:
    """A process that reads images in the order in which it is asked for them, and its successors, where it is lost."""

    def __init__(self, images: Readable, row: _Row) -> None:
        self.images, self.row = images, row
        self.waiting: deque[int] = deque()  # the images that were asked for and have not been taken
        self._process: Any = None
        self._reads = False  # whether the present process, or the last one, has come so far

    def ask(self, numbers: Sequence[int]) -> None:
        """Says which images to read next."""
        self.waiting += numbers
        if self._process is None:
            self._begin()
        else:
            self._tell(numbers)

    def next(self) -> Item:
        """The next of the images that were asked for."""
        number = self.waiting[0]
        try:
            item = self._take()
        except _Lost as lost:
            warnings.warn(f"A process that read images {lost}: what it still had is read again, one by one, by another",
                          stacklevel=2)
            item = self._once_more(number)
        self.waiting.popleft()
        return item

    def end(self) -> None:
        """Ends the process, whatever it is at."""
        if self._process is not None:
            self._close()
            self._process.join()
            self._process = None

    def _once_more(self, number: int) -> Item:
        """The image at which a process was lost, from another one, unless that is lost as well."""
        try:
            return self._take()
        except _Lost as lost:
            if not self._reads:
                raise DeconvnetError(
                    f"Processes that read images end before they read any; the last one {lost}: see what it said. In a "
                    'script of your own, put what scans under if __name__ == "__main__":, for a process that is not '
                    "forked runs the script, too; or scan with workers=0") from lost
            name, self.row.length = self.images.name(number), self.row.length + 1
            if self.row.length >= MOST_IN_A_ROW:
                raise DeconvnetError(
                    f"{self.row.length} images in a row could not be read, at last {name}: {lost.reason}. That is not "
                    "the images' fault: see whether there is memory enough (fewer --workers need less), whether the "
                    "disk answers, and whether Pillow is whole (pip install --force-reinstall pillow). The same "
                    "command goes on where it is now") from lost
            return Item(number, unreadable=(name, lost.reason))

    def _take(self) -> Item:
        """The next image from the process. Raises _Lost, the process having ended, where nothing comes."""
        if self._process is None:
            self._begin()
        if not self._reads:
            self._hear(BEGINNING)
            self._reads = True
        found = self._hear(PATIENCE)
        if isinstance(found, Exception):
            raise found
        self.row.length = 0
        return found

    def _hear(self, seconds: float) -> Any:
        """What comes next from the process, within a time; else as ``_take``."""
        try:
            found = self._inbox.get(timeout=seconds)
        except Empty:
            self.end()
            raise _Lost(f"gave no answer for {seconds:g} seconds",
                        f"decoding it takes more than {seconds:g} seconds") from None
        if found is None:
            process = self._process
            process.join(1.0)
            self.end()
            how = how_it_ended(process.exitcode)
            raise _Lost(f"died ({how})", f"whatever decodes it dies of it ({how})")
        return found

    def _begin(self) -> None:
        """Begins a process, which is asked for all that is waited for."""
        try:
            with uninterrupted():
                self._connection, there = multiprocessing.Pipe()
                process = multiprocessing.Process(target=_work, args=(self.images, there), daemon=True)
                process.start()
                self._inbox: SimpleQueue = SimpleQueue()
                collector = threading.Thread(target=_collect, args=(self._connection, self._inbox), daemon=True)
                # where nobody closes what ``read`` gave, it is done when the program ends
                self._close = Finalize(self, _end_both, (process, collector), exitpriority=SOON)
                self._process, self._reads = process, False
        except OSError as error:
            raise DeconvnetError(f"No process that reads images can be begun: {error.strerror}. Try fewer --workers, "
                                 "or none") from error
        there.close()  # so that its end shows here
        collector.start()
        self._tell(list(self.waiting))

    def _tell(self, numbers: Sequence[int]) -> None:
        with suppress(OSError):  # it is gone, which shows when the next image is wanted
            self._connection.send(numbers)


# ---- from process to process ----


def _collect(connection: Connection, inbox: SimpleQueue) -> None:
    """Puts what comes from a process where it can be waited for, and None when that is all.

    A process that hands something over waits until it is taken: a thread takes it while the network computes.
    """
    try:
        while True:
            item, dtype, shape = connection.recv()
            if dtype:
                image = torch.empty(shape, dtype=dtype)
                connection.recv_bytes_into(_bytes(image))
                item = item._replace(image=image)
            inbox.put(item)
    except (EOFError, OSError):
        inbox.put(None)
    except Exception as error:  # a label that cannot be put together again
        inbox.put(error)


def _end_both(process: Any, collector: threading.Thread) -> None:
    """Ends a process and the thread that listens to it.

    A thread that lets go of a tensor while Python ends aborts: ``terminate called without an active exception``.
    """
    process.kill()
    if collector.ident not in (None, threading.get_ident()):  # it has begun, and is not who does this
        collector.join(2.0)  # a process of the process may hold the pipe open: then it waits on, which harms nobody


def _work(images: Readable, connection: Connection) -> None:
    """What a process does: it says that it is there, reads what it is asked for, and hands it over image by image."""
    wait_for_the_parent()
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        connection.send((Item(-1), None, None))
        while True:
            for number in connection.recv():
                _hand_over(connection, images, number)


def _hand_over(connection: Connection, images: Readable, number: int) -> None:
    """Reads an image, and sends it or the error that this raises."""
    try:
        messages = _messages(images.read(number))
    except Exception as error:
        messages = [ForkingPickler.dumps((_portable(error), None, None))]
    for message in messages:
        connection.send_bytes(message)


def _messages(item: Item) -> list[Any]:
    """What is said of an image, then its values as bytes: no shared memory, of which there may be little."""
    if not isinstance(item.image, Tensor):
        return [ForkingPickler.dumps((item, None, None))]
    label = item.label.item() if isinstance(item.label, Tensor) and item.label.numel() == 1 else item.label
    image = item.image.detach().cpu().contiguous()
    return [ForkingPickler.dumps((item._replace(image=None, label=label), image.dtype, image.shape)), _bytes(image)]


def _portable(error: Exception) -> Exception:
    """What reading an image raised, with its traceback as a note; as text, where it cannot go to another process."""
    error.add_note(f"In a process that read images:\n{traceback.format_exc()}")
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error


def _bytes(tensor: Tensor) -> Any:
    """The values of a contiguous tensor, as they lie in memory."""
    return tensor.flatten().view(torch.uint8).numpy()
