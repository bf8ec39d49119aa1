"""A program: scans as several processes that find each other as torchrun's do, and that are killed.

    sharing.py FOLDER            prints, as JSON, what came of everything that test_ranks.py asks for
    sharing.py FOLDER extended   with kills at every moment there is
"""

import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from test_scan import Pictures, small_net
from torch import nn

from deconvnet.describe import fingerprint
from deconvnet.parts import Parts, scan_together
from deconvnet.processes import Here, processes
from deconvnet.scan import scan
from deconvnet.scanned import Scan, decode, read_scan

IMAGES, BROKEN = 23, (2, 5, 17)
ORIGIN = {"model": "small"}


class Noted(Pictures):
    """Pictures that note in a file which of them were read, one by each process."""

    notes: Path | None = None

    def __getitem__(self, index: int) -> Any:
        if self.notes is not None:
            with self.notes.open("a") as file:
                file.write(f"{index} ")
        return super().__getitem__(index)


def pictures(count: int = IMAGES, broken: tuple[int, ...] = BROKEN) -> Noted:
    """Images with ties within and across parts, zeros, labels, classes of which one has no image, and broken ones."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 3, 6, 6, generator=generator)
    images[count // 2:] = images[:count - count // 2].clone()  # each twice: in other parts, and tied
    images[3::7] = 0
    found = Noted(images, [index % 4 - 1 for index in range(count)], broken, [f"{index}.png" for index in range(count)])
    found.classes = ["a", "b", "c", "no image"]
    return found


# ---- processes ----

def together(world: int, act: Callable[[Here], object], seconds: float = 60) -> dict[str, Any]:
    """Forks so many processes; gives for each its exit code and what it said, and how long they took to end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, pids = [os.pipe() for _ in range(world)], []
    for rank in range(world):
        pids.append(os.fork())
        if not pids[-1]:
            signal.alarm(int(seconds))
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1",
                              MASTER_PORT=str(port))
            code, said = _result(act)
            os.write(pipes[rank][1], said.encode())
            os._exit(code)
        os.close(pipes[rank][1])
    codes, begun = {}, time.monotonic()
    while len(codes) < world:
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
    said = [os.read(reader, 65536).decode() for reader, _ in pipes]
    for reader, _ in pipes:
        os.close(reader)
    return {"codes": [codes[pid] for pid in pids], "said": said, "seconds": time.monotonic() - begun}


def _result(act: Callable[[Here], object]) -> tuple[int, str]:
    try:
        with processes("cpu") as here:
            return 0, json.dumps(act(here))
    except BaseException as error:
        return 1, f"{type(error).__name__}: {error}"


def share(out: Path, first: Callable[[Here], object] = lambda here: None, data: Noted | None = None,
          net: nn.Module | None = None, **changes: Any) -> Callable[[Here], object]:
    """What a process does: ``first``, and then it takes its part; gives how many images the whole has."""
    def act(here: Here) -> int | None:
        images = data or pictures()
        images.notes = out.with_name(f"{out.name}.read.{here.rank}")
        first(here)
        options = {"k": 5, "per_image": 2, "batch_size": 4, "every": 0.0, "provenance": ORIGIN, **changes}
        used = net or small_net()
        found = scan_together(used, images, out, here, weights=fingerprint(used), **options)
        return None if found is None else found.count
    return act


# ---- kills ----

def moments(happen: Callable[[int], None]) -> None:
    """From now on ``happen`` is called with 0, 1, 2 … before each image, write, flush, renaming, merge and removal."""
    count = iter(range(1_000_000))

    def watched(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def instead(*arguments: Any, **options: Any) -> Any:
            happen(next(count))
            return real(*arguments, **options)

        setattr(owner, name, instead)

    for owner, name in ((Noted, "__getitem__"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "rmdir"),
                        (Path, "open"), (Path, "mkdir"), (Scan, "merge")):
        watched(owner, name)


def kill(rank: int, moment: int) -> Callable[[Here], None]:
    """One of the processes kills itself at a moment."""
    def at(number: int) -> None:
        if number == moment:
            os.kill(os.getpid(), signal.SIGKILL)
    return lambda here: moments(at) if here.rank == rank else None


def moments_of(world: int, folder: Path) -> list[int]:
    """How many moments each process has."""
    def counted(here: Here) -> int:
        seen: list[int] = []
        share(folder / f"counted{world}", lambda _: moments(seen.append))(here)
        return len(seen)

    return [json.loads(text) for text in together(world, counted)["said"]]


def killed(world: int, rank: int, moment: int, out: Path) -> dict[str, Any]:
    """A scan in which a process is killed, and the same once more: what each said, read and left."""
    first = together(world, share(out, kill(rank, moment)))
    stood = state(out)
    parts = Parts(out, world)
    whole = [over(parts.file(other)) for other in range(world)]
    read = [readings(out, other) for other in range(world)]
    again = together(world, share(out))
    return {"world": world, "rank": rank, "moment": moment, "first": first, "again": again, "between": stood,
            "after": state(out), "whole": whole, "read": read,
            "reread": [readings(out, other)[len(read[other]):] for other in range(world)]}


def over(part: Path) -> bool:
    """Whether a part is there that its process is through with."""
    return part.exists() and decode(part.read_bytes(), part)[1]["over"]


def readings(out: Path, rank: int) -> list[int]:
    notes = out.with_name(f"{out.name}.read.{rank}")
    return [int(word) for word in notes.read_text().split()] if notes.exists() else []


def state(out: Path) -> dict[str, Any]:
    """What lies there: the SHA-256 of the result, if there is one, and the names of all that is not notes."""
    names = sorted(str(path.relative_to(out.parent)) for path in out.parent.rglob(f"{out.name}*")
                   if ".read." not in path.name)
    if out.exists():
        read_scan(out)  # whole
    return {"sha256": sha256(out.read_bytes()).hexdigest() if out.exists() else None, "names": names,
            "parts": sorted(path.name for path in Parts(out, 2).folder.glob("*"))}


def kills(folder: Path, extended: bool) -> Iterator[dict[str, Any]]:
    """Each process of each number of them killed: at one moment, the first at one more, or at every moment."""
    rng = random.Random(7)
    for world in (1, 2, 3, 4):
        for rank, count in enumerate(moments_of(world, folder)):
            late = [] if rank else [count - 2]  # the first, which puts together
            for moment in range(count) if extended else [rng.randrange(count), *late]:
                out = folder / f"killed-{world}-{rank}-{moment}"
                yield killed(world, rank, moment, out)


# ---- what is asked ----

def alone(out: Path, data: Noted | None = None, **changes: Any) -> str:
    """The SHA-256 of what one process finds, without any of ours around it."""
    options = {"k": 5, "per_image": 2, "batch_size": 4, "provenance": ORIGIN, **changes}
    scan(small_net(), data or pictures(), out=out, **options)
    return sha256(out.read_bytes()).hexdigest()


def scenarios(folder: Path, extended: bool) -> dict[str, Any]:
    """Everything that is asked, one after the other."""
    told: dict[str, Any] = {"alone": alone(folder / "alone"), "kills": list(kills(folder, extended))}
    if extended:
        return told
    few, none = pictures(3, ()), pictures(8, tuple(range(8)))
    told["alone few"] = alone(folder / "alone few", few)
    for world in (1, 2, 3, 4):
        whole, small = folder / f"whole{world}", folder / f"few{world}"
        told[f"whole {world}"] = together(world, share(whole)) | state(whole)
        told[f"few {world}"] = together(world, share(small, data=few)) | state(small)
        told[f"read {world}"] = sorted(chain(*(readings(whole, rank) for rank in range(world))))
    told["unreadable"] = together(3, share(folder / "unreadable", data=none)) | state(folder / "unreadable")
    told["mended"] = together(3, share(folder / "unreadable", data=pictures(8, ()))) | state(folder / "unreadable")
    told["strict"] = together(2, share(folder / "strict", strict=True)) | state(folder / "strict")
    other = folder / "number"
    told["number"] = [together(3, share(other, kill(1, 9))), list(Parts(other, 2).notes()), together(2, share(other)),
                      state(other), list(Parts(other, 3).notes())]
    changed = folder / "changed"
    told["changed"] = [together(2, share(changed, kill(0, 9))), together(2, share(changed, provenance={"model": "b"})),
                       together(2, share(changed)), state(changed)]
    strange = folder / "strange"
    told["strange"] = [together(2, share(strange, kill(0, 9), provenance={})),
                       together(2, share(strange, net=double(small_net()), provenance={})), state(strange)]
    told["disagree"] = together(2, lambda here: share(folder / "disagree", provenance={"model": here.rank})(here))
    told["other networks"] = together(2, lambda here: share(
        folder / "networks", net=small_net() if here.first else double(small_net()), provenance={})(here))
    told["damaged"] = damaged(folder / "damaged")
    return told


def double(net: nn.Module) -> nn.Module:
    """Another network, whose layers have the same names."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 2
    return net


def damaged(out: Path) -> list[Any]:
    """A part that is whole, and one bit of which changes before the parts are put together."""
    together(2, share(out, kill(0, 9)))
    part = Parts(out, 2).file(1)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    return [together(2, share(out)), state(out)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(scenarios(Path(sys.argv[1]), sys.argv[2:] == ["extended"])))
