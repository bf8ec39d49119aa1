"""What it costs to put together a scan that many processes shared, and how large its parts are.

The parts are made up, with the sizes that they have for ZFNet with all its layers: nine activations of each unit, the
sample, and the sums of each class; the names of all images are in none, but in what they are read into. Each is
written, read again and merged, one after the other, so that the disk need hold only two. Nothing is scanned.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from running import begin, conditions, run, write
from tqdm import tqdm

from deconvnet.resume import Checkpoint
from deconvnet.scanned import LayerScan, Scan

UNITS = {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256, "fc6": 4096, "fc7": 4096, "fc8": 1000}


def blank(images: int, classes: int) -> Scan:
    """A scan that knows the names of its images, and has seen none."""
    names = [f"n{number % classes:08d}/n{number % classes:08d}_{number}.JPEG" for number in range(images)]
    return Scan({}, files=names, classes=[f"class {c}" for c in range(classes)],
                labels=[number % classes for number in range(images)])


def part(like: Scan, rank: int, world: int, units: dict[str, int]) -> Scan:
    """A made-up part of a scan: every image counted, and random activations of some of them."""
    images, classes = len(like.files), len(like.classes)
    numbers = torch.arange(rank, images, world)
    generator = torch.Generator().manual_seed(rank)
    layers = {}
    for name, count in units.items():
        layer = LayerScan.blank(count, 9, classes=classes)
        maxima = torch.rand(min(512, len(numbers)), count, generator=generator)  # (S, U)
        layer.sample.keep(numbers[:512], maxima)
        layer.top.update(maxima[:32], numbers[:32])
        layer.class_sums = torch.randint(0, 2 ** 30, (classes, count), generator=generator).double() / 2 ** 24
        layer.class_counts = torch.full((classes,), len(numbers) // classes)
        layer.fired, layer.count = torch.full((count,), len(numbers)), len(numbers)
        layers[name] = layer
    return replace(like, layers=layers, count=len(numbers), shards=[(rank, world)])


def timed(work: Callable[..., Any], *arguments: object) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - begun, result


def benchmark(parts: int = 64, images: int = 1_281_167, classes: int = 1000, out: str | None = None,
              small: bool = False) -> None:
    """What it costs to put together a scan that many processes shared.

    Args:
        parts: how many there are.
        images: of the whole scan.
        classes: of the images.
        out: a JSON file.
        small: with a thousandth of the units, to see that it runs.
    """
    begin(out, None)
    units = {name: max(1, count // 1000) for name, count in UNITS.items()} if small else UNITS
    times: dict[str, list[float]] = {"write": [], "read": [], "merge": []}
    whole, size = None, 0
    with tempfile.TemporaryDirectory() as folder:
        file, like = Path(folder) / "part.safetensors", blank(images, classes)
        for rank in tqdm(range(parts), desc="parts"):
            made = part(like, rank, parts, units)
            times["write"].append(timed(Checkpoint(file).finish, made)[0])
            size = file.stat().st_size
            seconds, found = timed(Checkpoint(file).through, replace(like, shards=made.shards))
            times["read"].append(seconds)
            if whole is not None:
                seconds, found = timed(whole.merge, found)
                times["merge"].append(seconds)
            whole = found
    assert whole is not None and whole.count == images and whole.shards == [(0, 1)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024) / 1024
    result = {**conditions(), "parts": parts, "images": images, "megabytes": size / 1e6, "peak_gibibytes": peak,
              "together": sum(times["read"]) + sum(times["merge"]),
              **{name: median(values or [0.0]) for name, values in times.items()}, "times": times}
    print(f"{parts} parts of {result['megabytes']:.1f} MB: written in {result['write']:.2f} s, read in "
          f"{result['read']:.2f} s, merged in {result['merge']:.2f} s each; all read and merged in "
          f"{result['together']:.0f} s, with {peak:.2f} GiB at most")
    write(result, out)


if __name__ == "__main__":
    sys.exit(run(benchmark, "parts"))
