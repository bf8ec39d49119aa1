"""A program: makes an atlas in processes that are killed, again and again, until it is there; prints how often.

It has imported everything, so that a life costs a fork: python killed.py SCAN PHOTOGRAPHS FOLDER KILLS
"""

import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import tiny
import torch
from PIL import Image

import deconvnet
from deconvnet.atlas import pages

LAYERS = ("conv3",)


class Point:
    """Kills this process before the n-th thing that it does to the disk."""

    def __init__(self, number: int) -> None:
        self.left = number
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink")):
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


def live(act: Callable[[], object], seconds: float = 0, point: int | None = None) -> int:
    """The exit code of a process that acts, minus the signal if it was killed: after so many seconds of computing, if
    any are given, or before the so-manieth thing that it does to the disk. The timer's signal kills as SIGKILL does.
    """
    pid = os.fork()
    if not pid:
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            if point is not None:
                Point(point)
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check(folder: Path) -> int:
    """Whatever bears its final name is whole; how many files do."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part"]
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".webp":
            Image.open(path).load()
        else:
            assert path.read_text().rstrip().endswith(("</html>", "}", ";")), path
    return len(files)


def main() -> None:
    torch.set_num_threads(1)
    os.fsync, os.sync = lambda file: None, lambda: None  # the power is not cut
    pages.environment = cache(pages.environment)
    for name in ("overview", "layer", "unit"):
        pages.environment().get_template(f"{name}.html")
    net, folder, kills = tiny.Tiny(), Path(sys.argv[3]), int(sys.argv[4])
    top, images = deconvnet.read_scan(sys.argv[1]), tiny.open_images(Path(sys.argv[2]), net)
    rng, seen = random.Random(0), {"kills": 0, "atlases": 0, "files": []}
    while seen["kills"] < kills:
        out, code = folder / str(seen["atlases"]), -1
        while code:
            how = {} if seen["kills"] >= kills else {"seconds": rng.uniform(0.001, 0.15)} if seen["kills"] % 3 == 0 \
                else {"point": int(2 ** rng.uniform(0, 6.7)) - 1}
            code = live(lambda: tiny.make(out, net, top, images, LAYERS), **how)  # noqa: B023
            assert code in (0, -signal.SIGPROF, -signal.SIGKILL), code
            seen["kills"] += code != 0
            seen["files"].append(check(out) if out.exists() else 0)
        seen["atlases"] += 1
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
