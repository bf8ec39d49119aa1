"""A program: scans in processes that are killed, again and again, until they are through; prints what it saw as JSON.

It has imported everything, so that a life costs a fork: python scans.py FOLDER KILLS
"""

import hashlib
import json
import os
import random
import signal
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from mortal import live
from torch import nn
from torch.utils.data import Dataset

from deconvnet.errors import UnreadableImage
from deconvnet.scan import scan
from deconvnet.scanned import decode, read_scan

RESULT, STATE = "top.safetensors", "top.safetensors.partial"
KNOWN = {RESULT, STATE, f"{STATE}.previous"}


class Drawings(Dataset):
    """Images of few small integers, so that most activations are tied; some have no class, some cannot be read."""

    def __init__(self, count: int = 23, seed: int = 0) -> None:
        chance = torch.Generator().manual_seed(seed)
        self.images = torch.randint(-1, 3, (count, 3, 6, 5), generator=chance).float()
        self.files = [f"{n:02}.png" for n in range(count)]
        self.labels = [n % 4 - 1 for n in range(count)]
        self.classes = ["a", "b", "c"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        if index in (4, 15, 16, 17):
            raise UnreadableImage(self.files[index], "it was drawn so")
        return self.images[index], self.labels[index]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 3), relu1=nn.ReLU(), conv2=nn.Conv2d(4, 5, 2))).eval()


def act(folder: Path, images=None, net: nn.Module | None = None, **options):
    """A scan in batches of three, whose state is saved after each of them, into a folder."""
    settings = {"batch_size": 3, "every": 0.0, "provenance": {"model": "drawn"}, **options}
    return scan(network() if net is None else net, Drawings() if images is None else images,
                checkpoint=folder / STATE, out=folder / RESULT, **settings)


def state(file: Path):
    """How many images a state has seen, from a file that is whole."""
    about = decode(file.read_bytes(), file)[1]
    assert about["fingerprint"]
    return about["count"]


def check(folder: Path) -> int:
    """Whatever bears its final name is whole; how many images the best of it has seen, -1 where there is nothing."""
    files = [path for path in folder.iterdir() if path.suffix not in (".part", ".lock")]
    assert {path.name for path in files} <= KNOWN, files
    return max([read_scan(path).count if path.name == RESULT else state(path) for path in files], default=-1)


def outcome(folder: Path) -> dict:
    return {"names": sorted(path.name for path in folder.iterdir()),
            "sha256": hashlib.sha256((folder / RESULT).read_bytes()).hexdigest()}


def lives(folder: Path, deaths) -> dict:
    """A scan that dies as it is told, life after life, until it is through; and how far it was at each death."""
    folder.mkdir()
    reached, best = [], -1
    while code := live(lambda: act(folder), **deaths(len(reached), best)):
        assert code in (-signal.SIGPROF, -signal.SIGKILL), code
        there = check(folder)
        assert there >= best, f"{best} images were seen, and then {there}"  # what was once saved is never lost
        best = max(best, there)
        reached.append(there)
    return {"outcome": outcome(folder), "reached": reached}


def at_random(folder: Path, kills: int, span: float) -> dict:
    """Scans that are killed within ``span`` seconds until they are through, until there were so many kills."""
    rng, reached, outcomes = random.Random(0), [], []
    while len(reached) < kills:
        seen = lives(folder / str(len(outcomes)), lambda count, _: {
            "seconds": rng.uniform(0.0005, span) if len(reached) + count < kills else 0})  # noqa: B023
        reached += seen["reached"]
        outcomes.append(seen["outcome"])
    return {"kills": len(reached), "reached": reached, "outcomes": outcomes}


def at_every_deed(folder: Path) -> dict:
    """A scan that dies before each thing it does to the disk; having got further, it counts from the first anew."""
    number, before = 0, -1

    def deaths(count: int, best: int) -> dict:
        nonlocal number, before
        number, before = (0 if best > before else number + 1), best
        return {"point": number}

    seen = lives(folder, deaths)
    return {"kills": len(seen["reached"]), "reached": seen["reached"], "outcomes": [seen["outcome"]]}


def main() -> None:
    torch.set_num_threads(1)
    os.fsync = lambda file: None  # the power is not cut
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    begun = sum(os.times()[2:4])
    whole = lives(folder / "whole", lambda *_: {})
    span = sum(os.times()[2:4]) - begun  # seconds of computing
    (folder / "random").mkdir()
    print(json.dumps({"whole": whole["outcome"], "deeds": at_every_deed(folder / "deeds"),
                      "random": at_random(folder / "random", kills, span)}))


if __name__ == "__main__":
    main()
