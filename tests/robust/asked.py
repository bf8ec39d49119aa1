"""A program: commands that are asked to stop at a moment that it chooses; prints how each of them ended, as JSON.

It has imported everything, so that a command costs a fork: python asked.py FOLDER CASES, in JSON. A case has ``words``,
typed in a folder of its own; ``hangs``, (module, name, call) each: the call of that function from which nothing
returns (or soon, where a number of seconds comes last), which is when the next of the ``signals`` is sent, to the whole
``group`` or to the command alone; and ``save``, where the state is saved after every batch. Instead of hanging it may
be asked ``after`` so many seconds.
"""

import importlib
import json
import os
import re
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deconvnet import cli, gallery, scan  # noqa: F401  (imported before the forks)
from deconvnet.resume import Checkpoint
from deconvnet.scanned import decode

NETWORK = """
from collections import OrderedDict
import torch
from torch import nn
from deconvnet.images import Preprocess

def build():
    torch.manual_seed(0)
    net = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 6, 5, 2), relu1=nn.ReLU(), pool1=nn.MaxPool2d(3, 2),
                                    conv2=nn.Conv2d(6, 12, 3, padding=1), relu2=nn.ReLU()))
    net.preprocess = Preprocess(32, 32)
    return net.eval()
"""
OUT = "out/top.safetensors"


def prepare(folder: Path) -> None:
    """A network, photographs of noise in a folder whose name must be quoted, and what a scan of them finds."""
    (folder / "mine.py").write_text(NETWORK)
    (folder / "my photos").mkdir()
    noise = np.random.default_rng(0)
    for n in range(40):
        Image.fromarray(noise.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / "my photos" / f"{n:02}.png")


def hanging(mark: Path, module: str, name: str, call: int, seconds: float = 1e6) -> None:
    """Has a function leave a mark in its so-manieth call, in whatever process that is, and go on long after."""
    owner = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), iter(range(10**6))

    def function(*args, **options):
        if next(calls) == call:
            mark.touch()
            time.sleep(seconds)
        return real(*args, **options)

    setattr(owner, name, function)


def begin(case: dict, folder: Path) -> int:
    """The number of a process, in a group of its own, that runs the case's command."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    os.chdir(folder)
    said = os.open("said.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["/some where/bin/deconvnet", *case["words"]]
    if case.get("save"):  # the state, after every batch
        Checkpoint.save_if_due = Checkpoint._save
    for number, hang in enumerate(case.get("hangs", [])):
        hanging(folder / f"mark{number}", *hang)
    cli.program()
    raise AssertionError


def until(true, seconds: float = 60.0) -> bool:
    """Whether something comes true."""
    for _ in range(int(seconds / 0.01)):
        if true():
            return True
        time.sleep(0.01)
    return False


def gone(group: int) -> bool:
    """Whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def ended(pid: int) -> int | None:
    """The exit code of a process, minus the signal if it was killed; None while it is there."""
    there, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if there else None


def ask(case: dict, folder: Path) -> dict:
    """How a command ends that is asked to stop."""
    pid = begin(case, folder)
    for number, sent in enumerate(case["signals"]):
        if "hangs" in case:
            assert until((folder / f"mark{number}").exists), (folder / "said.txt").read_text()
        time.sleep(case.get("after", 0.3))
        asked = time.monotonic()
        with suppress(ProcessLookupError):  # it was through before
            (os.killpg if case["group"] else os.kill)(pid, sent)
    code = None
    while code is None and time.monotonic() < asked + 30:
        code = ended(pid)
        time.sleep(0.01)
    seconds = time.monotonic() - asked
    alone = until(lambda: gone(pid), 3.0)
    if not alone:
        os.killpg(pid, signal.SIGKILL)
    text = (folder / "said.txt").read_text()
    return {"code": code, "seconds": seconds, "alone": alone, "text": text,
            "lines": [line for line in re.split(r"[\r\n]", text) if line.startswith("deconvnet")],
            "left": sorted(path.name for path in folder.rglob("*") if path.suffix in (".part", ".lock")),
            "seen": seen(folder / f"{OUT}.partial")}


def seen(state: Path) -> int:
    """How many images a state has seen; 0 where there is none."""
    return decode(state.read_bytes(), state)[1]["count"] if state.exists() else 0


def main() -> None:
    torch.set_num_threads(1)
    folder, results = Path(sys.argv[1]), {}
    prepare(folder)
    words = ["scan", "--model", "mine.py:build", "--images", "my photos", "--out", OUT, "--batch-size", "4"]
    assert os.waitpid(begin({"words": words}, folder), 0)[1] == 0, (folder / "said.txt").read_text()
    whole = (folder / OUT).read_bytes()
    for name, case in json.loads(Path(sys.argv[2]).read_text()).items():
        own = folder / name
        own.mkdir()
        shutil.copy(folder / "mine.py", own)
        (own / "my photos").symlink_to(folder / "my photos")
        if case["words"][0] != "scan":
            (own / "top.safetensors").write_bytes(whole)
        results[name] = ask(case, own)
        if case["words"][0] == "scan":
            os.waitpid(begin({"words": case["words"]}, own), 0)
            results[name]["same"] = [path.name for path in (own / "out").iterdir()] == ["top.safetensors"] and \
                (own / OUT).read_bytes() == whole
    print(json.dumps(results))


if __name__ == "__main__":
    main()
