"""Lives that end early: processes that are killed after a time, or before something that they do to the disk."""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

WRITES = ((os, "fsync"), (Path, "replace"))
DEEDS = (*WRITES, (Path, "mkdir"), (Path, "unlink"))
"""What is done to the disk, beside the opening of a file to write it."""

ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
"""The environment of a program of tests that imports this module."""


class Point:
    """Kills this process before its n-th deed."""

    def __init__(self, number: int, deeds=DEEDS) -> None:
        self.left = number
        for owner, name in deeds:
            setattr(owner, name, self.around(getattr(owner, name)))
        real, writing = Path.open, self.around(Path.open)
        Path.open = lambda path, mode="r", *rest, **named: (  # type: ignore[method-assign, assignment]
            writing if mode == "wb" else real)(path, mode, *rest, **named)

    def around(self, real: Callable) -> Callable:
        def operation(*args, **options):
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        return operation


def live(act: Callable[[], object], seconds: float = 0, point: int | None = None, deeds=DEEDS) -> int:
    """The exit code of a process that acts, minus the signal if it was killed.

    It is after so many seconds of computing, if any are given: on a busy machine it gets as far as on another; the
    signal of the timer has no handler, so that it kills as SIGKILL does. Or before the so-manieth of its deeds.
    """
    pid = os.fork()
    if not pid:
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            if point is not None:
                Point(point, deeds)
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Full:
    """A file of which half arrives on the disk before that is full."""

    def __init__(self, file, error) -> None:
        self.file, self.error = file, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[:len(content) // 2])
        raise self.error
