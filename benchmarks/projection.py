"""What a projection costs: against the arithmetic that nobody can leave out, and against Captum's deconvolution.

ZFNet without contrast normalisation, which Captum does not pass through. The floor is the multiply-adds of whole
windows, at the rate of a 2048×2048×2048 product measured in the same run; what of a window is not on the map does not
travel down, and a convolution may run faster than the product. Captum computes whole maps, one activation at a time.
All take turns in one process, after a warm-up.
"""

import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Literal

import torch
from captum.attr import NeuronDeconvolution
from running import CLOCKS, begin, conditions, run, write
from torch import Tensor, nn
from tqdm import tqdm

from deconvnet import load_model, open_images, project
from deconvnet.descent import Stage, descend
from deconvnet.tape import Tape, record_as_far_as

SIDE = 2048          # of the product that gives the rate
FLOOR, CAPTUM = 2.0, 20.0  # at most so many times the floor; at least so many times as fast
ALL = {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256}  # units, of each of which there are nine

Chosen = list[tuple[int, int, int, int]]


def without_norm(net: nn.Module) -> nn.Module:
    """The network with its contrast normalisation taken out."""
    for name, module in list(net.named_children()):
        if isinstance(module, nn.LocalResponseNorm):
            setattr(net, name, nn.Identity())
    return net


def rate(clock: Callable[[], float]) -> float:
    """Multiply-adds a second of a large product."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return SIDE ** 3 / median(seconds(lambda: a @ b, clock) for _ in range(5))


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    work()
    return clock() - begun


def strongest(tape: Tape, layer: str, count: int) -> Chosen:
    """So many activations of as many units, the strongest of each image in turn."""
    maps = tape.activations(layer)                                               # (N, C, H, W)
    peaks, places = maps.flatten(2).max(2)                                       # (N, C)
    order = peaks.argsort(1, descending=True)
    width = maps.shape[3]
    found = [(n, int(order[n, rank])) for rank in range(count) for n in range(len(maps))][:count]
    return [(n, unit, int(places[n, unit]) // width, int(places[n, unit]) % width) for n, unit in found]


def multiply_adds(net: nn.Module, stages: Sequence[Stage]) -> int:
    """Those of the transposed filters on the windows of a way down."""
    kernels = {name: module.kernel_size for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    total = 0
    for above, stage in pairwise(stages):
        if stage.step == "filter":
            maps, h, w = above.signal.shape if above.step != "seed" else (1, 1, 1)  # a single value, of a single map
            total += maps * h * w * len(stage.signal) * kernels[stage.module][0] * kernels[stage.module][1]
    return total


def measure(net: nn.Module, images: Tensor, layer: str, count: int, few: int, repetitions: int,
            clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds of one projection of a layer, of ours and of Captum's, and its multiply-adds."""
    tape = record_as_far_as(net, images, layer)
    chosen = strongest(tape, layer, count)
    _, (way, *_) = descend(tape, layer, chosen[:1])
    captum = NeuronDeconvolution(net, getattr(net, layer))

    def theirs() -> None:
        for image, unit, y, x in chosen[:few]:
            captum.attribute(images[image, None], (unit, y, x))

    theirs(), project(tape, layer, chosen)
    turns = [(seconds(lambda: project(tape, layer, chosen), clock) / count, seconds(theirs, clock) / few)
             for _ in range(repetitions)]
    ours, captums = (median(column) for column in zip(*turns, strict=True))
    return {"multiply_adds": multiply_adds(net, way), "project": ours, "captum": captums, "turns": turns}


def summary(layers: Mapping[str, Mapping[str, Any]], speed: float) -> dict[str, Any]:
    """The times against the floor and against each other, and those of all the units' nine."""
    ours = sum(9 * ALL[layer] * one["project"] for layer, one in layers.items() if layer in ALL)
    captums = sum(9 * ALL[layer] * one["captum"] for layer, one in layers.items() if layer in ALL)
    return {"rate": speed, "floors": {layer: one["multiply_adds"] / speed for layer, one in layers.items()},
            "all": ours, "all_captum": captums, "ratio": captums / ours}


def report(result: Mapping[str, Any]) -> str:
    product = f"{2 * result['rate'] / 1e9:.0f} GFLOP/s in a product"
    lines = [f"{result['threads']} threads, {result['clock']} time, {product}",
             f"{'':8}{'floor':>10}{'ours':>10}{'ours/floor':>12}{'Captum':>10}{'Captum/ours':>13}"]
    for layer, one in result["layers"].items():
        floor = result["floors"][layer]
        lines.append(f"{layer:8}{1e3 * floor:8.2f}ms{1e3 * one['project']:8.2f}ms{one['project'] / floor:12.1f}"
                     f"{1e3 * one['captum']:8.1f}ms{one['captum'] / one['project']:13.1f}")
    return "\n".join([*lines, f"the nine of every unit of these layers: {result['all']:.1f} s, by Captum "
                              f"{result['all_captum']:.0f} s: {result['ratio']:.1f} times as fast",
                      f"peak memory of all this, Captum and torch included: {result['peak_mib']} MiB",
                      f"to be at least {CAPTUM} times; conv3, conv4 and conv5 within {FLOOR} times the floor"])


def benchmark(layers: Sequence[str] = tuple(ALL), count: int = 64, few: int = 8, repetitions: int = 5,
              clock: Literal["wall", "cpu"] = "wall", threads: int | None = None, out: str | None = None) -> None:
    """What a projection costs, against its arithmetic and against Captum.

    Args:
        layers: of ZFNet.
        count: projections of each layer in a turn, of eight photographs.
        few: projections by Captum in a turn.
        repetitions: turns.
        clock: wall, or cpu where the machine is busy with something else; then with one thread.
        threads: of torch.
        out: a JSON file.
    """
    begin(out, threads)
    net = without_norm(load_model("zfnet", weights="demo"))
    photographs = open_images("builtin:photographs-apart", net.preprocess)
    images = torch.stack([photographs[n][0] for n in range(0, 8 * 50, 50)])      # (8, 3, 224, 224)
    measured = {layer: measure(net, images, layer, count, few, repetitions, CLOCKS[clock])
                for layer in tqdm(layers, desc="layers")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2 ** 20 if sys.platform == "darwin" else 2 ** 10)
    result = {**conditions(), "clock": clock, "layers": measured, "peak_mib": peak,
              **summary(measured, rate(CLOCKS[clock]))}
    print(report(result))
    write(result, out)


if __name__ == "__main__":
    sys.exit(run(benchmark, "projection"))
