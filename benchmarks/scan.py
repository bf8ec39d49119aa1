"""What a scan costs above the forward pass that it cannot do without, and against what one would write in its place.

Decoded images in; all convolutions tracked. The bare forward pass is that of the same network, as far as its last
convolution, in both memory formats of weights and images; the faster counts. What one would write is the plain module
with a forward hook on each convolution that takes the maxima of the batch and puts them to the nine so far by ``topk``.
All take turns in one process, after a warm-up, over the same photographs in the same batches.
"""

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from statistics import median
from typing import Any, Literal

import torch
from running import CLOCKS, begin, conditions, run, write
from torch import Tensor, nn
from tqdm import tqdm

from deconvnet import load_model, open_images, scan

NETWORKS = {"zfnet": "demo", "alexnet_dense": "demo", "alexnet": None}  # with their weights
ABOVE, HOOKS = 1.05, 1.5  # at most so many times the bare forward pass; at least so many times as fast as hooks
COLUMNS = ("contiguous", "channels_last", "hooks", "scan")
K = 9


class Best:
    """The k largest maxima of each unit, as one would write it: values, images and places of all batches so far."""

    def __init__(self) -> None:
        self.values = self.images = self.places = torch.empty(0)

    def take(self, maps: Tensor, first: int) -> None:
        """Take in the maps (N, C, H, W) of images whose numbers begin at ``first``."""
        peaks, places = maps.flatten(2).max(2)                                   # (N, C)
        numbers = torch.arange(first, first + len(maps))[:, None].expand_as(peaks)
        if len(self.values):
            peaks = torch.cat([self.values, peaks])                              # (k + N, C)
            numbers, places = torch.cat([self.images, numbers]), torch.cat([self.places, places])
        self.values, chosen = peaks.topk(min(K, len(peaks)), dim=0)              # (k, C)
        self.images, self.places = numbers.gather(0, chosen), places.gather(0, chosen)


def convolutions(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]


def as_far_as_needed(net: nn.Module) -> nn.Module:
    """A network that is a row of layers, as far as its last convolution."""
    children = list(net.named_children())
    last = max(n for n, (_, module) in enumerate(children) if isinstance(module, nn.Conv2d))
    short = nn.Sequential()
    for name, module in children[:last + 1]:
        short.add_module(name, module)
    return short.eval()


def forward(net: nn.Module, batches: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for batch in batches:
            net(batch)


def with_hooks(net: nn.Module, batches: Sequence[Tensor]) -> dict[str, Best]:
    """The nine of every unit of every convolution, by hooks and ``topk``."""
    best = {name: Best() for name in convolutions(net)}
    first = 0
    handles = [net.get_submodule(name).register_forward_hook(
        lambda module, given, maps, one=one: one.take(maps, first)) for name, one in best.items()]
    with torch.no_grad():
        for batch in batches:
            net(batch)
            first += len(batch)
    for handle in handles:
        handle.remove()
    return best


def measure(net: nn.Module, images: Tensor, batch: int, repetitions: int, clock: Callable[[], float]
            ) -> dict[str, Any]:
    """Milliseconds for an image, of each in every turn, and their medians."""
    net, layers = as_far_as_needed(net), convolutions(net)
    other = deepcopy(net).to(memory_format=torch.channels_last)
    batches = images.split(batch)
    lying = [part.contiguous(memory_format=torch.channels_last) for part in batches]
    works: list[Callable[[], object]] = [
        lambda: forward(net, batches), lambda: forward(other, lying), lambda: with_hooks(net, batches),
        lambda: scan(net, images, layers, K, batch_size=batch)]

    def milliseconds(work: Callable[[], object]) -> float:
        begun = clock()
        work()
        return 1000 * (clock() - begun) / len(images)

    for work in works:
        work()
    turns = [dict(zip(COLUMNS, map(milliseconds, works), strict=True)) for _ in range(repetitions)]
    medians = {name: median(turn[name] for turn in turns) for name in COLUMNS}
    best = min(medians["contiguous"], medians["channels_last"])
    return {**medians, "above": medians["scan"] / best, "ratio": medians["hooks"] / medians["scan"], "turns": turns}


def report(result: dict[str, Any]) -> str:
    lines = [f"{result['threads']} threads, {result['clock']} time, {result['images']} images in batches of "
             f"{result['batch']}; milliseconds for an image",
             f"{'':14}" + "".join(f"{name:>15}" for name in (*COLUMNS, "scan/bare", "hooks/scan"))]
    for name, one in result["networks"].items():
        lines.append(f"{name:14}" + "".join(f"{one[column]:15.2f}" for column in (*COLUMNS, "above", "ratio")))
    return "\n".join([*lines, f"scan/bare, the better of the two, to be at most {ABOVE}; hooks/scan at least {HOOKS}"])


def benchmark(networks: Sequence[str] = tuple(NETWORKS), count: int = 256, batch: int = 32, repetitions: int = 5,
              clock: Literal["wall", "cpu"] = "wall", threads: int | None = None, out: str | None = None) -> None:
    """What a scan costs above the bare forward pass, and against forward hooks with a topk for each layer.

    Args:
        networks: of those that ship, as a row of layers.
        count: photographs in a turn.
        batch: images in a forward pass.
        repetitions: turns.
        clock: wall, or cpu where the machine is busy with something else; then with one thread.
        threads: of torch.
        out: a JSON file.
    """
    begin(out, threads)
    measured = {}
    for name in tqdm(networks, desc="networks"):
        net = load_model(name, weights=NETWORKS.get(name))
        photographs = open_images("builtin:photographs-apart", net.preprocess)
        step = max(len(photographs) // count, 1)
        images = torch.stack([photographs[n * step % len(photographs)][0] for n in range(count)])  # (count, 3, H, W)
        measured[name] = measure(net, images, batch, repetitions, CLOCKS[clock])
    result = {**conditions(), "clock": clock, "images": count, "batch": batch, "networks": measured}
    print(report(result))
    write(result, out)


if __name__ == "__main__":
    sys.exit(run(benchmark, "scan"))
