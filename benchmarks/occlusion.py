"""What occlusion costs above what nobody can leave out: Figure 7's positions against as many bare forward passes.

Occlusion is what ``deconvnet figure 7`` does with one image: it covers each position of the square, runs the network,
and keeps a map's total and the classes' probabilities. Bare is ``net(batch)`` on the same batches, made ready
beforehand. Both take turns in one process, so that whatever else the machine does hits both.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Literal

import torch
from running import CLOCKS, begin, conditions, run, write
from torch import Tensor, nn
from tqdm import tqdm

from deconvnet import load_model
from deconvnet.errors import DeconvnetError
from deconvnet.figures.covered import Box, covered, grey, positions, squares
from deconvnet.figures.occlusion import BATCH, occlude

GOAL = 1.15


def bare(net: nn.Module, batches: Sequence[Tensor]) -> None:
    """The forward passes alone."""
    with torch.no_grad():
        for batch in batches:
            net(batch)


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    work()
    return clock() - begun


def compare(net: nn.Module, image: Tensor, filling: Tensor, boxes: Sequence[Box], layer: str, repetitions: int,
            clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds of both, in turns after a warm-up, and the ratio of their medians."""
    batches = [batch.clone() for batch in covered(image, filling, boxes, BATCH)]
    works = {"occlusion": lambda: occlude(net, image, filling, boxes, layer, 0), "bare": lambda: bare(net, batches)}
    bare(net, batches[:2]), occlude(net, image, filling, boxes[:1], layer, 0)
    turns = []
    for turn in tqdm(range(repetitions), desc="turns"):
        order = list(works) if turn % 2 else list(reversed(works))  # they take turns at going first
        turns.append({name: seconds(works[name], clock) for name in order})
    middle = {name: median(one[name] for one in turns) for name in works}
    return {**middle, "ratio": middle["occlusion"] / middle["bare"],
            "ratios": [one["occlusion"] / one["bare"] for one in turns], "turns": turns}


def report(result: Mapping[str, Any]) -> str:
    used = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    each = ", ".join(f"{ratio:.3f}" for ratio in result["ratios"])
    return (f"{result['positions']} positions, {result['model']}, {result['threads']} threads, {result['clock']} time, "
            f"{used}\nocclusion {result['occlusion']:.2f} s, bare forward passes {result['bare']:.2f} s: ratio "
            f"{result['ratio']:.3f}, to be at most {GOAL} (single turns: {each})")


def benchmark(model: str = "zfnet", weights: str | None = "demo", layer: str = "conv5", square: int = 50,
              stride: int = 6, repetitions: int = 3, threads: int | None = None,
              clock: Literal["wall", "cpu"] = "wall", out: str | None = None) -> None:
    """The time of Figure 7's occlusion over that of as many bare forward passes.

    A ratio of 1 means that covering, watching the map and keeping the numbers cost nothing; more than 1.15 means that
    work is done twice. About three minutes on two cores that have nothing else to do; where they have, the single turns
    lie far apart: repeat, or count seconds of computing with --threads 1 --clock cpu.

    Example: python benchmarks/occlusion.py --out occlusion.json

    Args:
        model: as deconvnet scan --model.
        weights: as deconvnet scan --weights; they make no difference to the time.
        layer: whose map is followed, by its full address.
        square: side of the square in pixels.
        stride: pixels from one position to the next; 6 gives 900 positions, 12 a quarter.
        repetitions: how often each is measured, after a warm-up.
        threads: of torch, if not as many as it takes by itself.
        clock: wall, or cpu: what this process computed, whoever else did. Threads that wait for each other count as
            computing, so that it is for one thread.
        out: JSON file for the versions, the conditions and every turn.
    """
    if min(square, stride, repetitions) < 1:
        raise DeconvnetError("--square, --stride and --repetitions must be at least 1")
    begin(out, threads)
    net = load_model(model, weights)
    side = net.preprocess.size
    image = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
    boxes = squares(positions(side, square, stride), square)
    found = compare(net, image, grey(net.preprocess), boxes, layer, repetitions, CLOCKS[clock])
    result = {**conditions(), "goal": GOAL, "clock": clock, "model": model, "layer": layer, "positions": len(boxes),
              "batch": BATCH, **found}
    print(report(result))
    write(result, out)


if __name__ == "__main__":
    sys.exit(run(benchmark, "occlusion.py"))
