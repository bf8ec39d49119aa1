"""What an atlas costs above the galleries that it shows: pictures, facts and pages of all units against making them.

Bare is ``gallery`` gone through for every unit of the layers, as it is by default, nothing kept: reconstructions and
patches. The atlas is what ``deconvnet atlas`` does from the same scan into an empty folder: the same galleries, the way
down of each unit, and its pictures, which are compressed in threads beside. Both take turns in one process.
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

from running import CLOCKS, begin, conditions, run, write
from tqdm import tqdm

from deconvnet import gallery, load_model, open_images, scan
from deconvnet.atlas import pages
from deconvnet.atlas.build import build
from deconvnet.images import Images
from deconvnet.network import Network
from deconvnet.provenance import provenance
from deconvnet.scanned import Scan

GOAL = 1.25
LIMIT = 60  # MB


def bare(net: Network, top: Scan, images: Images) -> None:
    """The galleries alone."""
    for layer, found in top.items():
        for _ in gallery(net, top, layer, range(len(found.fired)), images):
            pass


def atlas(net: Network, top: Scan, images: Images) -> dict[str, float]:
    """The whole atlas; how many files it has, and how many MB."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), net, top, images, list(top))
        pages.write(Path(folder), pages.load(Path(folder)))
        sizes = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
    return {"files": len(sizes), "megabytes": sum(sizes) / 1e6}


def compare(net: Network, top: Scan, images: Images, repetitions: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds of both, in turns, the ratio of their medians, and how large the atlas is."""
    turns, size = [], {}
    for _ in tqdm(range(repetitions), desc="turns"):
        begun = clock()
        bare(net, top, images)
        middle = clock()
        size = atlas(net, top, images)
        turns.append({"galleries": middle - begun, "atlas": clock() - middle})
    medians = {name: median(one[name] for one in turns) for name in ("galleries", "atlas")}
    return {**medians, "ratio": medians["atlas"] / medians["galleries"], **size, "turns": turns}


def report(result: Mapping[str, Any]) -> str:
    each = ", ".join(f"{one['atlas'] / one['galleries']:.3f}" for one in result["turns"])
    return (f"{result['units']} units of {result['model']} over {result['images']}, {result['threads']} threads, "
            f"{result['clock']} time\natlas {result['atlas']:.1f} s, galleries {result['galleries']:.1f} s: ratio "
            f"{result['ratio']:.3f}, to be at most {GOAL} (single turns: {each})\n{result['files']:,} files, "
            f"{result['megabytes']:.1f} MB, to be at most {LIMIT}")


def benchmark(model: str = "zfnet", weights: str | None = "demo", images: str = "builtin:photographs-apart",
              layers: Sequence[str] = ("conv1", "conv2", "conv3", "conv4", "conv5"), repetitions: int = 5,
              clock: Literal["wall", "cpu"] = "wall", threads: int | None = None, out: str | None = None) -> None:
    """What an atlas costs above the galleries that it shows.

    Args:
        model: as deconvnet scan --model.
        weights: as deconvnet scan --weights.
        images: as deconvnet scan --images.
        layers: of which all units are shown.
        repetitions: turns of both; all five layers of ZFNet take minutes each.
        clock: wall, or cpu where the machine is busy with something else; then with one thread.
        threads: of torch.
        out: a JSON file.
    """
    begin(out, threads)
    net = load_model(model, weights)
    opened = open_images(images, net.preprocess)
    origin = provenance("scan", {"layers": ",".join(layers)}, net, opened, model, weights, images)
    top = scan(net, opened, layers=layers, provenance=origin, progress=True)
    about = {"model": model, "images": images, "clock": clock, "units": sum(len(s.fired) for s in top.values())}
    result = {**conditions(), **about, **compare(net, top, opened, repetitions, CLOCKS[clock])}
    print(report(result))
    write(result, out)


if __name__ == "__main__":
    sys.exit(run(benchmark, "atlas"))
