"""Stopping: between two steps the first Ctrl-C or SIGTERM is a request; any other is obeyed at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..stopping import Stopped, handled_by, wait_for_the_parent

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
    """While it lasts, SIGINT and SIGTERM are noted in what is yielded, or raise Stopped: the second one always does.

    A signal that was ignored before stays ignored; outside the main thread nothing is changed.
    """
    request, owner = Request(), os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a process that cuts views, just started: the one that started it decides
            return
        if request.number or not request.heeded:
            raise Stopped("stopped at once; the same command goes on from the last checkpoint", number)
        request.number = number

    with handled_by(note):
        yield request
