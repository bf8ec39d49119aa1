"""From photographs to the sheets of all units: ours against forward hooks, ``topk`` and Captum, which draw the same.

ZFNet without contrast normalisation, which Captum does not pass through, as far as its last convolution. A sheet shows
the nine reconstructions and the nine patches of a unit, as PNG. What one would write finds the nine by hooks, as in
scan.py, projects each one by ``NeuronDeconvolution``, whose whole image it cuts to the receptive field, and draws its
sheets as ours are drawn. It does so for some units of each layer, evenly chosen, and is scaled to all of them.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
from captum.attr import NeuronDeconvolution
from projection import without_norm
from running import CLOCKS, begin, conditions, run, write
from scan import Best, as_far_as_needed, convolutions, with_hooks
from torch import nn
from tqdm import tqdm

from deconvnet import load_model, receptive_field, scan
from deconvnet.batches import batches
from deconvnet.describe import describe
from deconvnet.drawing import drawn
from deconvnet.gallery import Gallery, galleries
from deconvnet.images import Images, Photographs
from deconvnet.patches import cut
from deconvnet.receptive import Field
from deconvnet.render import unit_sheet
from deconvnet.transfer.sets import Chosen

GOAL = 10.0
BATCH = 32


def sheet(one: Gallery) -> int:
    """Draws the sheet of a unit; bytes of its PNG file."""
    return len(unit_sheet(one).png())


def ours(net: nn.Module, images: Images, layers: Sequence[str], clock: Callable[[], float],
         kept: dict[tuple[str, int], Gallery], wanted: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Seconds of the scan, and of the sheets of every layer; the galleries of some units go to ``kept``."""
    begun = clock()
    top = scan(net, images, layers, batch_size=BATCH)
    times = {"scan": clock() - begun}

    def noted() -> Iterator[Gallery]:
        for one in galleries(net, top, {layer: range(len(top[layer].fired)) for layer in layers}, images):
            if one.unit in wanted[one.layer]:
                kept[one.layer, one.unit] = one
            yield one

    begun = clock()
    sum(drawn(sheet, noted()))
    return {**times, "sheets": clock() - begun}


def theirs(net: nn.Module, images: Images, layers: Sequence[str], clock: Callable[[], float],
           kept: dict[tuple[str, int], Gallery], wanted: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """The same by hooks and Captum; of each layer for those units only."""
    begun = clock()
    read = (batch.images[:len(batch.slots)] for batch in batches(images, (0, 1), 0, BATCH, 0))
    best = with_hooks(net, read)
    times = {"scan": clock() - begun}
    size = (images.preprocess.size, images.preprocess.size)
    widths = {layer.name: layer.size[1] for layer in describe(net, size)}
    for layer in tqdm(layers, desc="theirs", leave=False):
        begun = clock()
        seen = Seen(receptive_field(net, layer, size), widths[layer])
        captum = NeuronDeconvolution(net, getattr(net, layer))
        for unit in wanted[layer]:
            kept[layer, unit] = by_captum(captum, images, best[layer], seen, layer, unit)
        sum(sheet(kept[layer, unit]) for unit in wanted[layer])
        times[layer] = clock() - begun
    return times


class Seen(NamedTuple):
    """What the units of a layer see, and how wide its maps are."""

    field: Field
    width: int


def by_captum(captum: NeuronDeconvolution, images: Images, best: Best, seen: Seen, layer: str, unit: int) -> Gallery:
    """A unit's gallery, from those of its nine that are activations."""
    places = [divmod(int(place), seen.width) for place in best.places[:, unit]]
    chosen = [(int(number), place, float(value)) for number, place, value in
              zip(best.images[:, unit], places, best.values[:, unit], strict=True) if value > 0]
    tiles, patches, origins = [], [], []
    for number, place, value in chosen:
        image = images[number][0]
        whole = captum.attribute(image[None], (unit, *place))[0] * value         # (3, H, W)
        box = seen.field.box(*place)
        tiles.append(part(whole.detach().numpy(), box.start, box.size))
        patches.append(cut(images.preprocess.inverse(image), box.start, box.size))
        origins.append(box.start)
    height, width = seen.field.size
    return Gallery(layer, unit, np.array([value for *_, value in chosen], np.float32),
                   np.array([number for number, *_ in chosen], int), np.array([place for _, place, _ in chosen], int),
                   [images.files[number] for number, *_ in chosen], np.array(origins),
                   np.array(tiles, np.float32).reshape(-1, 3, height, width),
                   np.array(patches, np.uint8).reshape(-1, height, width, 3))


def part(whole: np.ndarray, origin: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The window (3, h, w) of an image (3, H, W), zero outside it."""
    (top, left), (height, width) = origin, size
    around = np.pad(whole, ((0, 0), (height, height), (width, width)))
    return around[:, top + height:top + 2 * height, left + width:left + 2 * width]


def difference(one: Gallery, other: Gallery) -> float:
    """The largest relative difference of the reconstructions of the same activations."""
    places = [{(int(n), *map(int, place)): pixels for n, place, pixels in
               zip(each.images, each.positions, each.reconstructions, strict=True)} for each in (one, other)]
    both = places[0].keys() & places[1].keys()
    return max((float(np.linalg.norm(places[0][key] - places[1][key]) / np.linalg.norm(places[1][key]))
                for key in both), default=float("nan"))


def compare(net: nn.Module, images: Images, layers: Sequence[str], few: int, repetitions: int,
            clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds of both, in turns, Captum's scaled; the ratio of the medians, and how far what they draw differs."""
    units = {layer: net.get_submodule(layer).out_channels for layer in layers}
    wanted = {layer: np.linspace(0, count - 1, min(few, count)).astype(int).tolist() for layer, count in units.items()}
    turns, far = [], []
    for _ in tqdm(range(repetitions), desc="turns"):
        mine: dict[tuple[str, int], Gallery] = {}
        other: dict[tuple[str, int], Gallery] = {}
        own = ours(net, images, layers, clock, mine, wanted)
        sample = theirs(net, images, layers, clock, other, wanted)
        scaled = {name: spent * (units[name] / len(wanted[name]) if name in units else 1)
                  for name, spent in sample.items()}
        turns.append({"ours": own, "sample": sample, "theirs": scaled})
        far += [difference(mine[key], other[key]) for key in mine if len(mine[key].values)]
    totals = {who: median(sum(turn[who].values()) for turn in turns) for who in ("ours", "theirs")}
    return {**totals, "ratio": totals["theirs"] / totals["ours"], "difference": float(np.nanmax(far)),
            "units": units, "sampled": {layer: len(chosen) for layer, chosen in wanted.items()}, "turns": turns}


def report(result: Mapping[str, Any]) -> str:
    lines = [f"{result['images']} photographs to the sheets of {sum(result['units'].values()):,} units; "
             f"{result['threads']} threads, {result['clock']} time; seconds of the last turn",
             f"{'':8}{'ours':>10}{'theirs':>10}   of which measured"]
    last = result["turns"][-1]
    for name in ("scan", "sheets", *result["units"]):
        share = f"{result['sampled'][name]} of {result['units'][name]} units" if name in result["units"] else "all"
        own, other = (f"{last[who][name]:10.1f}" if name in last[who] else f"{'':10}" for who in ("ours", "theirs"))
        lines.append(f"{name:8}{own}{other}   {share}")
    return "\n".join([*lines, f"medians: ours {result['ours']:.1f} s, theirs {result['theirs']:.1f} s: "
                              f"{result['ratio']:.1f} times as fast, to be at least {GOAL:.0f}",
                      f"relative difference of what is drawn of the same activations: {result['difference']:.1e}"])


def benchmark(images: int = 1000, layers: Sequence[str] = (), few: int = 8, repetitions: int = 5,
              clock: Literal["wall", "cpu"] = "wall", threads: int | None = None, out: str | None = None) -> None:
    """From photographs to the sheets of all units: ours against forward hooks, topk and Captum.

    Args:
        images: views of scikit-image's photographs.
        layers: of ZFNet. Default: its five convolutions.
        few: units of each layer for which Captum is measured.
        repetitions: turns of both, which take minutes each.
        clock: wall, or cpu where the machine is busy with something else; then with one thread.
        threads: of torch.
        out: a JSON file.
    """
    begin(out, threads)
    full = load_model("zfnet", weights="demo")
    net = as_far_as_needed(without_norm(full))
    views = Photographs(full.preprocess)
    chosen = Chosen(views, np.linspace(0, len(views) - 1, images).astype(int).tolist())
    found = compare(net, chosen, list(layers) or convolutions(net), few, repetitions, CLOCKS[clock])
    result = {**conditions(), "goal": GOAL, "clock": clock, "images": images, **found}
    print(report(result))
    write(result, out)


if __name__ == "__main__":
    sys.exit(run(benchmark, "end_to_end.py"))
