"""Ctrl-C and SIGTERM: where they are heard, where they wait for a moment, and who leaves them to another process."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LATER = 5  # seconds; torchrun looks every 0.1 whether a process has ended


class Stopped(KeyboardInterrupt):
    """Someone asked to stop. ``code`` is the exit code that tells by which signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


@contextmanager
def stoppable(message: str, again: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """While it lasts, the first SIGINT or SIGTERM raises Stopped with a message, wherever the main thread is.

    What it gives raises Stopped once more, if one has come: whoever was interrupted may have made another error of it.
    Any further signal calls ``again`` with its number. Processes that are forked meanwhile ignore both. A signal that
    was ignored before stays ignored; outside the main thread, where no signal arrives, nothing is changed.
    """
    came: list[int] = []
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            return
        came.append(number)
        if len(came) > 1:
            again(number)
        raise Stopped(message, number)

    def stop_if_asked() -> None:
        if came:
            raise Stopped(message, came[0])

    with handled_by(stop):
        yield stop_if_asked


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts off what a SIGINT or SIGTERM does until it ends: for what takes a moment and must not be left half done.

    Whoever asks twice does not wait.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            _obey(came, before, frame)

    try:
        with handled_by(note) as before:
            yield
    finally:
        if len(came) == 1:
            signal.raise_signal(came[0])


def _obey(numbers: list[int], handlers: Mapping[int, Any], frame: FrameType | None) -> None:
    """Calls the handlers of signals, each also where the one before raises."""
    if numbers:
        handler = handlers[numbers[0]]
        try:
            if callable(handler):
                handler(numbers[0], frame)
            else:  # the system's own: the end
                os._exit(128 + numbers[0])
        finally:
            _obey(numbers[1:], handlers, frame)


def tell_torchrun(message: str, after_another: bool) -> None:
    """Has torchrun repeat, in the table that is the last thing it prints, with what words this process ends.

    It takes the process that ended first for the cause; so one that ends only ``after_another`` says a later time. By
    the file that torch.distributed.elastic.multiprocessing.errors describes; without torchrun there is none.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        when = {"py_callstack": message, "timestamp": str(int(time.time()) + LATER * after_another)}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": {"message": message, "extraInfo": when}}))


def end_at_once(code: int) -> None:
    """From here on SIGINT and SIGTERM end this process with an exit code: its work is done, it only tidies up."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(code))


def ignore() -> None:
    """From here on SIGINT and SIGTERM do nothing to this process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[Mapping[int, Any]]:
    """While it lasts, a handler gets SIGINT and SIGTERM, if they can be had and were not ignored; who got them before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: there for number, there in before.items() if there not in (None, signal.SIG_IGN)}
    with ExitStack() as stack:
        for number, there in before.items():
            stack.callback(_give_back, number, there)
            signal.signal(number, handler)
        yield before


def _give_back(number: int, handler: Any) -> None:
    """Sets a handler, although Python, asked to set one, first runs those of the signals that have come."""
    try:
        signal.signal(number, handler)
    except BaseException:
        signal.signal(number, handler)
        raise


def wait_for_the_parent(_: int = 0) -> None:
    """For a process that works for another: Ctrl-C and SIGTERM reach all of a group, and the one that began it decides.

    It ends the others when it ends; they end by themselves, too, once they find it gone, whatever else they are at.
    """
    ignore()
    threading.Thread(target=_end_with_the_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_the_parent(number: int) -> None:
    """Ends this process when that of a number, or whichever began this one, is gone."""
    parent = multiprocessing.parent_process()  # none where it was begun by other means
    while os.getppid() == number and (parent is None or parent.is_alive()):
        time.sleep(1.0)
    os._exit(1)


def how_it_ended(code: int) -> str:
    """In words, how a process ended whose exit code is that, or less than 0 by a signal: the signal, or the code."""
    try:
        return signal.Signals(-code).name
    except ValueError:  # an exit code, or a signal without a name
        return f"exit code {code}" if code >= 0 else f"signal {-code}"
