"""Stopping between two steps: the first Ctrl-C or SIGTERM is a request, the second is obeyed at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, and did after saving. ``code`` is the exit code that tells by which signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


class Request:
    """Whether someone asked to stop: ``number`` is the signal, 0 while there was none."""

    number = 0


@contextmanager
def requests_to_stop() -> Iterator[Request]:
    """While it lasts, SIGINT and SIGTERM are noted in what is yielded. A second one raises KeyboardInterrupt."""
    request, owner = Request(), os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a process that cuts views: the one that started it decides
            if number == signal.SIGTERM:
                os._exit(128 + number)
        elif request.number:
            raise KeyboardInterrupt("stopped at once; the same command goes on from the last checkpoint")
        else:
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
