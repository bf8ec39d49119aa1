"""How much of the machine the training loop leaves to the network: its steps per second against the bare step's.

The loop is an epoch as ``deconvnet train`` does it: views, jitter, mean, autocast, loss, descent, renormalisation,
bookkeeping, progress bar. The bare step is what nobody can leave out: forward, loss, backward, descent, on a copy of
the same network and the very tensors that the loop gave it, made ready beforehand. Both take turns in one process, so
that whatever else the machine does hits both.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from running import CLOCKS, Clock, begin, conditions, run, write
from torch import Tensor, nn

from deconvnet.config import load as load_config
from deconvnet.errors import DeconvnetError
from deconvnet.processes import ALONE
from deconvnet.training.data import Data
from deconvnet.training.data import load as load_data
from deconvnet.training.recipe import Recipe
from deconvnet.training.run import Run
from deconvnet.training.views import Pictures

RECIPES = Path(__file__).parents[1] / "configs" / "train"
GOAL = 0.9
NOISE = ((200, 300), (300, 200), (225, 300), (200, 267))  # height, width: what Caltech-101's pictures are like
CLASSES = 101


@dataclass(frozen=True)
class Case:
    """A row of the table: a recipe, of which views of one size are measured."""

    name: str
    recipe: Recipe


def case(name: str, config: str, size: int, epochs: int, **changes: Any) -> Case:
    """A shipped recipe with views of one size, for so many epochs before its last.

    Without what is no part of the loop: first filters from k-means, snapshots, a schedule that needs held-out pictures.
    """
    stages = [{"epochs": epochs, "size": size}, {"epochs": 1}]
    plain = {"stages": stages, "centroids": False, "snapshots": [], "schedule": "constant"}
    return Case(name, load_config(RECIPES / config, Recipe, {**plain, **changes}))


# ---- pictures --------------------------------------------------------------------------------------------------------

class Some:
    """So many pictures (3, H, W) uint8: those of a set, again from the first where it has fewer."""

    def __init__(self, pictures: Pictures | Sequence[Tensor], labels: Sequence[int], count: int) -> None:
        self.pictures, self.labels = pictures, [labels[i % len(labels)] for i in range(count)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pictures[index % len(self.pictures)]


def noise(count: int) -> Data:
    """Pictures of noise, always the same."""
    rng, generator = Random(0), torch.Generator().manual_seed(0)
    made = [torch.randint(256, (3, *rng.choice(NOISE)), dtype=torch.uint8, generator=generator) for _ in range(count)]
    labels = [rng.randrange(CLASSES) for _ in made]
    return Data(Some(made, labels, count), Some([], [], 0), [f"{n:03}" for n in range(CLASSES)], "noise")


def pictures(recipe: Recipe, count: int, images: str | None) -> Data:
    """So many pictures to learn from, of a folder or noise, and none that are held out: an epoch is steps alone."""
    if images is None:
        return noise(count)
    data = load_data(recipe.model_copy(update={"images": images, "test_per_class": 1}))
    return replace(data, train=Some(data.train, data.train.labels, count), held_out=Some([], [], 0))


# ---- what is compared ------------------------------------------------------------------------------------------------

class Loop(Run):
    """A run that also notes the seconds in the steps of an epoch, and their labels."""

    def step(self, images: Tensor, labels: Tensor, crops: Tensor, rate: float) -> Tensor:
        begun = time.perf_counter()
        loss = super().step(images, labels, crops, rate)
        self.stepped += time.perf_counter() - begun
        self.labels.append(labels)
        return loss

    def measure(self, clock: Clock = time.perf_counter) -> dict[str, float]:
        """One more epoch: its steps per second, and the shares of the time that went into what."""
        self.stepped, self.labels, begun, started = 0.0, [], time.perf_counter(), clock()
        entry = self.epoch(progress=True)
        rate, seconds = self.steps / (clock() - started), time.perf_counter() - begun
        waited = entry["waited"] * self.steps * self.recipe.batch / entry["images_per_second"] / seconds
        stepped = self.stepped / seconds
        return {"loop": rate, "waiting": waited, "step": stepped, "elsewhere": 1 - waited - stepped}


class Bare:
    """The bare step on copies of a run's network and of what an epoch gave it."""

    def __init__(self, loop: Loop) -> None:
        self.precision, self.batches = loop.recipe.precision, self._record(loop)
        self.net: nn.Module = deepcopy(loop.net)
        self.optimiser = torch.optim.SGD(self.net.parameters(), loop.recipe.rate, loop.recipe.momentum,
                                         weight_decay=loop.recipe.decay)

    def _record(self, loop: Loop) -> list[tuple[Tensor, Tensor]]:
        inputs: list[Tensor] = []
        hook = loop.net.register_forward_pre_hook(lambda net, given: inputs.append(given[0]))
        loop.measure()
        hook.remove()
        return list(zip(inputs, loop.labels, strict=True))

    def measure(self, clock: Clock = time.perf_counter) -> dict[str, float]:
        """A step on each batch: steps per second."""
        begun = clock()
        for inputs, labels in self.batches:
            with ALONE.arithmetic(self.precision):
                loss = F.cross_entropy(self.net(inputs), labels)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        return {"bare": len(self.batches) / (clock() - begun)}


def compare(one: Case, steps: int, repetitions: int, images: str | None = None,
            clock: Clock = time.perf_counter) -> dict[str, Any]:
    """A row: medians over the repetitions, in which the two take turns at going first; two warm-ups before."""
    recipe, load = one.recipe, _load()
    loop = Loop(recipe, pictures(recipe, steps * recipe.batch, images))
    bare = Bare(loop)
    bare.measure(), loop.measure()
    measured = [loop.measure(clock) | bare.measure(clock) if turn % 2 else bare.measure(clock) | loop.measure(clock)
                for turn in range(repetitions)]
    middle = {key: median(each[key] for each in measured) for key in ("loop", "bare", "waiting", "step", "elsewhere")}
    return {"name": one.name, "network": recipe.network, "hidden": recipe.hidden, "size": recipe.size(0),
            "batch": recipe.batch, "precision": recipe.precision, "workers": recipe.workers, "steps": steps,
            "images": images or "noise", "load before": load, "load after": _load(),
            "ratio": middle["loop"] / middle["bare"], **middle,
            "lowest": min(each["loop"] / each["bare"] for each in measured),
            "highest": max(each["loop"] / each["bare"] for each in measured), "repetitions": measured}


def _load() -> float | None:
    """Processes that wanted a core in the last minute, on average."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


# ---- what is shown ---------------------------------------------------------------------------------------------------

COLUMNS = {"recipe": "{name}", "views": "{size}", "batch": "{batch}", "precision": "{precision}",
           "loop, steps/s": "{loop:.3f}", "bare, steps/s": "{bare:.3f}", "ratio": "{ratio:.3f}",
           "each": "{lowest:.2f}–{highest:.2f}", "waiting for views": "{waiting:.1%}",
           "in the step": "{step:.1%}", "elsewhere": "{elsewhere:.1%}"}


def table(result: Mapping[str, Any]) -> Table:
    """The rows, under what they depend on."""
    used = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    drawn = Table(title=f"The training loop against the bare step; {result['threads']} threads, "
                        f"{result['clock']} time, {used}",
                  caption=f"medians; ratio: loop to bare, to be at least {result['goal']}; each: of the single turns",
                  title_justify="left", caption_justify="left", box=None)
    for number, head in enumerate(COLUMNS):
        drawn.add_column(head, justify="right" if number else "left")
    for row in result["rows"]:
        drawn.add_row(*(text.format(**row) for text in COLUMNS.values()))
    return drawn


def benchmark(rows: Literal["both", "demo", "paper"] = "both", images: str | None = None, out: str | None = None,
              steps: int = 8, repetitions: int = 5, batch: int = 32, threads: int | None = None,
              clock: Literal["wall", "cpu"] = "wall") -> None:
    """Steps per second of the training loop against those of the bare forward, backward and descent.

    A ratio of 1 means that views, jitter, normalisation, bookkeeping and progress bar cost nothing; below 0.9 the loop
    wastes what the network could use. Two rows: the recipe of the ZFNet that ships (zfnet_demo.yaml: batches of 64
    views of 128 pixels, bfloat16) and the paper's (zfnet_paper.yaml: 224 pixels, float32, fc6 and fc7 of 4096).

    A few minutes on two cores that have nothing else to do. Where they have, the single turns lie far apart: repeat, or
    count seconds of computing with --threads 1 --clock cpu.

    Example: python benchmarks/training.py --rows demo --out training.json

    Args:
        rows: demo, paper, or both.
        images: a folder with a subfolder for each class, or builtin:photographs. Default: noise, in the sizes that
            Caltech-101 has; to the time, content makes no difference.
        out: JSON file for the versions, the conditions, the medians and every repetition.
        steps: steps in an epoch of the loop, and in each turn of the bare step.
        repetitions: how often each is measured, after two warm-ups.
        batch: of the paper's recipe; its own 128 takes four times as long as 32.
        threads: of torch, if not as many as it takes by itself.
        clock: wall, or cpu: what this process computed, whoever else did. Threads that wait for each other count as
            computing, so that it is for one thread. The shares of the loop's time are the wall's in any case.
    """
    if min(steps, repetitions, batch) < 1:
        raise DeconvnetError("--steps, --repetitions and --batch must be at least 1")
    begin(out, threads)
    epochs = repetitions + 2
    cases = {"demo": case("zfnet_demo", "zfnet_demo.yaml", 128, epochs),
             "paper": case("zfnet_paper", "zfnet_paper.yaml", 224, epochs, batch=batch)}
    report([one for name, one in cases.items() if rows in (name, "both")], steps, repetitions, images, out, clock)


def report(cases: Sequence[Case], steps: int, repetitions: int, images: str | None, out: str | None,
           clock: str = "wall") -> None:
    """Measures the cases, prints the table and writes the file."""
    rows = [compare(one, steps, repetitions, images, CLOCKS[clock]) for one in cases]
    result = {**conditions(), "goal": GOAL, "clock": clock, "rows": rows}
    Console(width=None if sys.stdout.isatty() else 160).print(table(result), markup=False)
    write(result, out)


if __name__ == "__main__":
    sys.exit(run(benchmark, "training.py"))
