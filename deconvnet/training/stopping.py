"""Stopping: between two steps the first Ctrl-C or SIGTERM is a request; any other is obeyed at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..stopping import Stopped, wait_for_the_parent

__all__ = ["Request", "Stopped", "requests_to_stop", "wait_for_the_parent"]


class Request:
    """Whether someone asked to stop.

    Attributes:
        number: of the signal that came, 0 while there was none.
        heeded: whether a signal may wait, because someone looks here again and again; otherwise it stops at once.
    """

    number = 0
    heeded = False


@contextmanager
def requests_to_stop() -> Iterator[Request]:
    """While it lasts, SIGINT and SIGTERM are noted in what is yielded, or raise Stopped: the second one always does."""
    request, owner = Request(), os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a process that cuts views, just started: the one that started it decides
            return
        if request.number or not request.heeded:
            raise Stopped("stopped at once; the same command goes on from the last checkpoint", number)
        request.number = number

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield request
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

