"""A program: trains in processes that are killed, again and again, until they are through; prints what it saw as JSON.

It has imported everything, so that a life costs a fork: python lives.py TREE FOLDER KILLS
"""

import hashlib
import json
import os
import random
import signal
import sys
from pathlib import Path

import torch
import torch._dynamo  # the first optimiser imports it, which takes longer than all the rest of a life
from mortal import WRITES, live
from PIL import Image
from recipes import recipe
from safetensors.torch import load

from deconvnet import training
from deconvnet.sealed import unseal
from deconvnet.training import Recipe, Stage, journal, results  # noqa: F401  (imported before the forks)

KNOWN = {"checkpoint-a.safetensors", "checkpoint-b.safetensors", "log.jsonl", "curves.png", "weights.safetensors",
         "filters.png", "weights.json", "snapshots", "epoch-01.safetensors", "epoch-01.json", ".lock"}


def settings(tree: Path, **changes) -> Recipe:
    """Six small steps, with everything random that a recipe can have."""
    small = {"widths": (4,) * 5, "batch": 3, "stages": (Stage(epochs=1, size=128), Stage(epochs=1)), "snapshots": (1,),
             "centroids": False, "rate": 1e-3, "test_per_class": 1}
    return recipe(tree, **{**small, **changes})


def check(out: Path) -> None:
    """Whatever bears its final name is whole."""
    for path in [path for path in out.rglob("*") if path.suffix != ".part"]:
        assert path.name in KNOWN, path
        if path.name.startswith("checkpoint"):
            unseal(path.read_bytes())
        elif path.suffix == ".safetensors":
            assert load(path.read_bytes())
        elif path.suffix in (".json", ".jsonl"):
            text = path.read_text()
            assert text.endswith("\n") and all(map(json.loads, [text] if path.suffix == ".json" else text.splitlines()))
        elif path.suffix == ".png":
            Image.open(path).load()


def outcome(out: Path) -> dict:
    """What must be the same of two runs, and is not their speed."""
    losses = [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]
    names = ("weights.safetensors", "weights.json", "snapshots/epoch-01.safetensors", "snapshots/epoch-01.json")
    sums = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}
    return {"losses": losses, "parts": [path.name for path in out.rglob("*.part")], **sums}


def killed_at_random(recipe: Recipe, folder: Path, kills: int, span: float) -> dict:
    """Runs that are killed within ``span`` seconds until they are through, until there were so many kills."""
    rng, count, outcomes, reached = random.Random(0), 0, [], set()
    while count < kills:
        out, left = folder / f"random{len(outcomes)}", True
        while left:
            code = live(lambda: training.train(recipe, out, progress=False),  # noqa: B023
                        rng.uniform(0.001, span) if count < kills else 0)
            assert code in (0, -signal.SIGPROF), code
            left = code != 0
            count += left
            check(out)
            reached |= {unseal(file.read_bytes())[1]["step"] for file in out.glob("checkpoint-*")}
        outcomes.append(outcome(out))
    return {"kills": count, "outcomes": outcomes, "reached": sorted(reached)}


def killed_at_every_write(recipe: Recipe, out: Path) -> dict:
    """A run that dies before each thing it does to the disk: whenever a checkpoint was written, it is counted anew."""
    count, number = 0, 0
    states: dict[str, bytes] = {}

    def act() -> None:
        training.train(recipe, out, progress=False)

    while (code := live(act, point=number, deeds=WRITES)) == -signal.SIGKILL:
        check(out)
        before, states = states, {path.name: path.read_bytes() for path in out.glob("checkpoint-*")}
        count, number = count + 1, number + 1 if before == states else 0
    assert code == 0, code
    check(out)
    return {"kills": count, "outcomes": [outcome(out)]}


def main() -> None:
    torch.set_num_threads(1)
    Image.init()  # loads its formats
    tree, folder, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    often = settings(tree, minutes=1e-9)  # a checkpoint after every step
    assert live(lambda: training.train(settings(tree), folder / "whole", progress=False)) == 0
    seconds = sum(os.times()[2:4])  # of computing, in that process
    print(json.dumps({
        "whole": outcome(folder / "whole"),
        "random": killed_at_random(often, folder, kills, seconds),
        "writes": killed_at_every_write(settings(tree), folder / "writes"),
        "seconds": sum(os.times()[:4]),
    }))


if __name__ == "__main__":
    main()
