"""What a scan from files reaches of the slower of its two halves: decoding alone, and the network alone.

A folder of JPEGs of 500×375 pixels, cut out of scikit-image's photographs, is made for the run. Decoding alone is the
scan's own reading with nothing done to the batches, by as many processes; the network alone is a scan of inputs that
were decoded beforehand; the bare forward pass on the same, which finds nothing, is given for comparison. All take turns
in one process, and only the wall's clock counts what several processes do at once.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from running import begin, conditions, run, write
from torch import Tensor, nn
from tqdm import tqdm

from deconvnet import load_model, scan
from deconvnet.batches import batches
from deconvnet.images import ImageFolder, Photographs, Preprocess

GOAL = 0.9
WIDTH, HEIGHT, QUALITY = 500, 375, 92  # what ImageNet's photographs are on average


def make(folder: Path, count: int, seed: int = 0) -> None:
    """So many JPEGs, each a part of a photograph chosen by chance, no two alike."""
    chance, photographs = np.random.default_rng(seed), Photographs(Preprocess(), overlap=0)
    for number in tqdm(range(count), desc="making JPEGs"):
        whole = photographs.photograph(photographs.classes[number % len(photographs.classes)])
        scale = min(whole.width / WIDTH, whole.height / HEIGHT) * chance.uniform(0.4, 1)
        width, height = WIDTH * scale, HEIGHT * scale
        left, top = chance.uniform(0, whole.width - width), chance.uniform(0, whole.height - height)
        part = whole.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        part.save(folder / f"{number:05d}.jpg", quality=QUALITY)


def decode(images: ImageFolder, size: int, workers: int) -> int:
    """Reads everything; how many images there were."""
    return sum(len(batch.numbers) for batch in batches(images, (0, 1), 0, size, workers))


def forward(net: nn.Module, inputs: Tensor, size: int) -> int:
    """The bare forward pass; how many images went through."""
    with torch.no_grad():
        for batch in inputs.split(size):
            net(batch)
    return len(inputs)


def decoded(images: ImageFolder, count: int) -> Tensor:
    """The first inputs (count, 3, H, W)."""
    return torch.stack([images[number][0] for number in range(count)])


def compare(net: nn.Module, images: ImageFolder, layers: Sequence[str], size: int, workers: int, ready: int,
            repetitions: int) -> dict[str, Any]:
    """Images a second of each, medians of turns that go round after a warm-up, and the ratio."""
    inputs = decoded(images, ready)
    works: dict[str, Callable[[], int]] = {
        "decoding": lambda: decode(images, size, workers),
        "network": lambda: scan(net, inputs, layers, batch_size=size).count,
        "bare": lambda: forward(net, inputs, size),
        "files": lambda: scan(net, images, layers, batch_size=size, workers=workers).count}
    forward(net, inputs[:size], size), decode(images, size, workers)
    turns: list[dict[str, float]] = []
    own: list[float] = []
    for turn in tqdm(range(repetitions), desc="turns"):
        order = list(works)[turn % len(works):] + list(works)[:turn % len(works)]
        rates = {name: rate(works[name]) for name in order}
        turns.append({name: by_wall for name, (by_wall, _) in rates.items()})
        own.append(rates["files"][1] / rates["network"][1])
    middle = {name: median(one[name] for one in turns) for name in works}
    ratios = [one["files"] / min(one["decoding"], one["network"]) for one in turns]
    return {**middle, "ratio": median(ratios), "ratios": ratios, "own": median(own), "turns": turns}


def rate(work: Callable[[], int]) -> tuple[float, float]:
    """Images a second by the wall's clock, and a second of what this process computed, whoever else did."""
    begun, computed = time.perf_counter(), time.process_time()
    count = work()
    return count / (time.perf_counter() - begun), count / (time.process_time() - computed)


def report(result: Mapping[str, Any]) -> str:
    each = ", ".join(f"{ratio:.3f}" for ratio in result["ratios"])
    return (f"{result['images']} JPEGs of {WIDTH}×{HEIGHT}, {result['bytes'] / result['images'] / 1e3:.0f} kB each, "
            f"through {result['model']}: {result['threads']} threads of torch, {result['workers']} workers, "
            f"{result['cores']} cores\nimages a second: decoding alone {result['decoding']:.1f}, the network alone "
            f"{result['network']:.1f} (bare {result['bare']:.1f}), from files {result['files']:.1f}\n"
            f"ratio to the slower of the two {result['ratio']:.3f}, to be at least {GOAL} (single turns: {each})\n"
            f"in seconds of this process alone, from files against the network alone: {result['own']:.3f}")


def benchmark(model: str = "zfnet", weights: str | None = "demo", images: int = 2000, layers: Sequence[str] = (),
              batch_size: int = 32, workers: int = 1, ready: int = 512, repetitions: int = 5,
              threads: int | None = None, out: str | None = None) -> None:
    """What a scan from a folder of JPEGs reaches of the slower of decoding alone and the network alone.

    Where the threads of torch and the workers together are more than the cores, they take the cores from each other,
    and what decoding costs is missing in the network's rate whatever the program does. The last line counts what this
    process computes, and so says what reading from files costs where every worker has a core of its own.

    Example: python benchmarks/from_files.py --threads 1 --workers 1

    Args:
        model: as deconvnet scan --model.
        weights: as deconvnet scan --weights.
        images: how many JPEGs to make.
        layers: whose strongest activations are kept. Default: all convolutions and fully connected layers.
        batch_size: as deconvnet scan --batch-size.
        workers: processes that decode.
        ready: images that are decoded beforehand, for the network alone; 0.6 MB each.
        repetitions: turns.
        threads: of torch.
        out: a JSON file.
    """
    begin(out, threads)
    net = load_model(model, weights)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), images)
        opened = ImageFolder(folder, net.preprocess)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        found = compare(net, opened, list(layers) or None, batch_size, workers, min(ready, images), repetitions)
    result = {**conditions(), "goal": GOAL, "model": model, "images": images, "bytes": size, "workers": workers,
              "batch": batch_size, **found}
    print(report(result))
    write(result, out)


if __name__ == "__main__":
    sys.exit(run(benchmark, "from_files.py"))
