"""A scan that several processes share: each writes its part, and the first puts the parts together.

The parts are files in a folder that all processes see, so that no image and no result goes over a network, and so that
each process goes on with its own part after an interruption.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

from torch import nn

from .errors import DeconvnetError, UsageError
from .files import LOCK, begun, made_folder
from .processes import Here
from .resume import Checkpoint
from .scan import blank_scan, check_seen, scan
from .scanned import Scan, read_scan

_PART = re.compile(r"\d+-of-(\d+)\.(safetensors|partial.*)")


def scan_together(net: nn.Module, images: Any, out: Path, here: Here, *, provenance: Mapping[str, Any],
                  progress: bool = False, **options: Any) -> Scan | None:
    """The scan of all images, which is in ``out`` then, to the first of the processes; None to the others.

    Process r of n goes through the images r, r + n, r + 2·n …, and the file is the same to the last bit for any n. Each
    goes on with its own part where an earlier call by as many processes was cut off. ``options`` are those of ``scan``.
    Raises what that raises, and DeconvnetError where the processes do not see the same folder or one of them has ended.
    """
    parts = Parts(out, here.world)
    if here.world == 1:
        found = scan(net, images, device=here.device, provenance=provenance, progress=progress, out=out,
                     checkpoint=parts.state(0), **options)
        parts.remove()
        return found
    parts.open(here)
    shard = (here.rank, here.world)
    like = blank_scan(images, options["k"], options["per_image"], shard, provenance)
    if not here.agree(json.dumps([like.provenance, like.files, here.device.type])):
        raise DeconvnetError("The processes do not scan the same: weights, images, versions or kinds of device differ "
                             "between them")
    if not parts.has(here.rank, like):
        scan(net, images, device=here.device, provenance=provenance, progress=progress and here.first, shard=shard,
             out=parts.file(here.rank), checkpoint=parts.state(here.rank), **options)
    here.wait()
    if not here.first:
        return None
    found = parts.together()
    check_seen(found, images)
    found.save(out)
    parts.remove()
    return found


class Parts:
    """The files of the parts of a scan by ``world`` processes, in a folder beside its result."""

    def __init__(self, out: Path, world: int) -> None:
        self.out, self.world = out, world
        self.folder = out.with_name(f"{out.name}.parts")
        self.alone = out.with_name(f"{out.name}.partial")  # the state of a scan by one process

    def file(self, rank: int) -> Path:
        """Where the part of a process is, when it is whole."""
        return self.folder / f"{rank}-of-{self.world}.safetensors"

    def state(self, rank: int) -> Path:
        """Where the state is from which a process goes on."""
        return self.file(rank).with_suffix(".partial") if self.world > 1 else self.alone

    def notes(self) -> Iterator[str]:
        """What a user should know before the scan: that another number of processes has begun it."""
        worlds = {int(match[1]) for path in self._files() if (match := _PART.fullmatch(path.name))}
        worlds |= {1} if self.alone.exists() else set()
        if others := sorted(worlds - {self.world}):
            yield (f"{self.out} was begun by {' and by '.join(map(_processes, others))}, and only as many can go on "
                   f"with that: {_processes(self.world)} {'goes' if self.world == 1 else 'go'} through all images anew")

    def open(self, here: Here) -> None:
        """Make the folder. Raises DeconvnetError where not all processes see it."""
        if here.first:
            made_folder(self.folder)
        here.wait()
        if not self.folder.is_dir():
            raise DeconvnetError(f"{self.folder}, which the first process has just made, is not to be seen here: all "
                                 "processes need --out in one folder that they share")

    def has(self, rank: int, like: Scan) -> bool:
        """Whether the part of a process is there already. Raises UsageError if it is one of another scan."""
        file = self.file(rank)
        if not file.exists():
            return False
        try:
            part = read_scan(file)
        except DeconvnetError as error:
            warnings.warn(f"Part {rank} of {self.world} is gone through again: {error}", stacklevel=3)
            return False
        there, here = _facts(part), _facts(like)
        differ = [f"  {key}: {there.get(key)} there, {here.get(key)} here" for key in sorted({*there, *here})
                  if there.get(key) != here.get(key)]
        if differ:
            raise UsageError("\n".join([f"{file} is a part of another scan:", *differ,
                                        f"Delete {self.folder} to begin anew"]))
        return True

    def together(self) -> Scan:
        """All parts in one, of which no more than two are in memory at a time."""
        for file in map(self.file, range(self.world)):
            if not file.exists():
                raise DeconvnetError(f"{file} is not there, though its process is through: all processes need --out in "
                                     "one folder that they share. Copy the part to it, and give the same command again")
        return reduce(Scan.merge, (read_scan(self.file(rank)) for rank in range(self.world)))

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


def _facts(part: Scan) -> dict[str, Any]:
    """What must be the same for a part to be one of this scan."""
    return {**part.provenance, "k": part.k, "per_image": part.per_image, "shards": part.shards,
            "images": len(part.files)}


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"
