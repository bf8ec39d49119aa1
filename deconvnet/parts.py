"""A scan that several processes share: each writes its part, and the first puts the parts together.

A part is the state of its process's scan, in a folder that all processes see, so that no image and no result goes over
a network, and so that each process goes on with its own part after an interruption.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from torch import nn

from .errors import DeconvnetError
from .files import LOCK, begun, made_folder
from .processes import Here
from .resume import EVERY, Checkpoint, fingerprint_of
from .scan import blank_scan, check_seen, conclude, go_on, placed
from .scanned import Scan

_PART = re.compile(r"\d+-of-(\d+)\.safetensors(\.previous)?")


def scan_together(net: nn.Module, images: Any, out: Path, here: Here, *, provenance: Mapping[str, Any], weights: str,
                  layers: Sequence[str] | None = None, k: int = 9, per_image: int = 1, batch_size: int = 32,
                  workers: int = 0, strict: bool = False, every: float = EVERY, progress: bool = False) -> Scan | None:
    """The scan of all images, which is in ``out`` then, to the first of the processes; None to the others.

    Process r of n goes through the images r, r + n, r + 2·n …, and the file is the same to the last bit for any n. Each
    goes on with its own part where an earlier call by as many processes was cut off. ``weights`` is the fingerprint of
    the network; the other options are those of ``scan``. Whoever calls is the only one who writes ``out``. Raises what
    ``scan`` raises, and DeconvnetError where the processes do not see the same folder or one of them has ended.
    """
    parts = Parts(out, here.world)
    blank = blank_scan(images, k, per_image, (here.rank, here.world), provenance, weights)
    facts = fingerprint_of(net, weights, images, blank, here.device, layers=layers, batch_size=batch_size)
    parts.open(here, facts)
    store = parts.store(here.rank, facts, every)
    with placed(net, here.device) as place, store.alone():
        found = go_on(net, images, blank, store, layers, place, batch_size=batch_size, workers=workers, strict=strict,
                      progress=progress and here.first)
        if here.world == 1:
            conclude(found, images, store, out)
        else:
            with store.kept(found):
                store.finish(found)
    here.wait()
    if not here.first:
        return None
    if here.world > 1:
        found = parts.together(blank, facts)
        if not found.count:
            parts.remove()  # so that the same command looks at the images again, once that is mended
        check_seen(found, images)
        found.write(out)
    parts.remove()
    return found


class Parts:
    """The files of the parts of a scan by ``world`` processes, in a folder beside its result."""

    def __init__(self, out: Path, world: int) -> None:
        self.out, self.world = out, world
        self.folder = out.with_name(f"{out.name}.parts")
        self.alone = out.with_name(f"{out.name}.partial")  # the state of a scan by one process

    def file(self, rank: int) -> Path:
        """Where the state is from which a process goes on, and at last its part."""
        return self.folder / f"{rank}-of-{self.world}.safetensors" if self.world > 1 else self.alone

    def store(self, rank: int, facts: Mapping[str, Any], every: float = EVERY) -> Checkpoint:
        """What keeps the part of a process whose scan has a fingerprint."""
        return Checkpoint(self.file(rank), every, facts, self.folder if self.world > 1 else None)

    def notes(self) -> Iterator[str]:
        """What a user should know before the scan: that another number of processes has begun it."""
        worlds = {int(match[1]) for path in self._files() if (match := _PART.fullmatch(path.name))}
        worlds |= {1} if self.alone.exists() else set()
        if others := sorted(worlds - {self.world}):
            yield (f"{self.out} was begun by {' and by '.join(map(_processes, others))}, and only as many can go on "
                   f"with that: {_processes(self.world)} {'goes' if self.world == 1 else 'go'} through all images anew")

    def open(self, here: Here, facts: Mapping[str, Any]) -> None:
        """Make the folder. Raises DeconvnetError where not all processes see it, or do not say the same of the scan."""
        if self.world == 1:
            return
        if here.first:
            made_folder(self.folder)
        here.wait()
        if not self.folder.is_dir():
            raise DeconvnetError(f"{self.folder}, which the first process has just made, is not to be seen here: all "
                                 "processes need --out in one folder that they share")
        if not here.agree(json.dumps({**facts, "shard": None})):
            raise DeconvnetError("The processes do not scan the same: weights, images, versions or kinds of device "
                                 "differ between them")

    def together(self, blank: Scan, facts: Mapping[str, Any]) -> Scan:
        """All parts of the scan in one, of which no more than two are in memory at a time.

        Raises DeconvnetError where one is not there, not whole, or one of another scan.
        """
        def part(rank: int) -> Scan:
            store = self.store(rank, {**facts, "shard": [rank, self.world]})
            return store.through(replace(blank, shards=[(rank, self.world)]))

        return reduce(Scan.merge, map(part, range(self.world)))

    def remove(self) -> None:
        """Delete all parts and states, also those by another number of processes: the result stands."""
        Checkpoint(self.alone, 0).remove()
        for path in self._files():
            if _PART.fullmatch(path.name) or begun(path) or path.suffix == LOCK:
                path.unlink(missing_ok=True)
        with suppress(OSError):  # there is none, or something else is in it
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"
