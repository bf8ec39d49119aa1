"""The main job: networks described, scanned, and what was found drawn."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import UsageError
from .shared import mirrored, names_in, print_table, sole_file, sole_folder

if TYPE_CHECKING:
    from ..describe import Layer
    from ..images import Images
    from ..network import Network
    from ..processes import Here
    from ..scanned import Scan


def run_demo(out: str = "deconvnet-demo", seed: int = 0) -> None:
    """The paper's Figure 2 for the ZFNet that ships, on scikit-image's photographs: offline, about a minute.

    Scans 472 views of the photographs that lie apart (builtin:photographs-apart), and draws for each of the five layers
    the nine strongest activations of some units: their reconstructions on the left, the image patches that caused them
    on the right. The scan is kept too: deconvnet gallery OUT/scan.safetensors --out DIR draws other units.

    Args:
        out: folder for the sheets (PNG and PDF), the scan, and the numbers behind them.
        seed: of the random choice of units.
    """
    from ..processes import processes

    with sole_folder(out) as folder, processes() as here:
        _scan("zfnet", "builtin:photographs-apart", folder / "scan.safetensors", "demo",
              ["conv1", "conv2", "conv3", "conv4", "conv5"], here)
    if not here.first:  # of torchrun's processes one draws
        return
    run_gallery(str(folder / "scan.safetensors"), str(folder), seed=seed)
    print(f"All layers on one page: {folder / 'figure2.png'}")


def run_describe(model: str, weights: str | None = None, size: int | None = None, check: str | None = None) -> None:
    """What a network is made of: maps, kernels, receptive fields, and whether each layer can be mirrored.

    Field, every and from: the receptive field of the unit at (i, j) is so large, in pixels, and begins at
    from + (i, j)·every, which lies in the padding where it is negative. A layer that cannot be mirrored is listed below
    the table, with the reason and the remedy.

    With --check, whether network and weights make sense on images: how many predictions are right, where the names of
    the images' folders are those of its classes, which share of its units is dead, and the same for inputs made in
    every usual way, for wrong preprocessing is the usual reason for grey pictures.

    Args:
        model: zfnet, zfnet_wide, alexnet, alexnet_dense; torchvision:NAME; package.module:function; file.py:function;
            net.onnx; net.yaml.
        weights: demo; a .safetensors, .npz, .pt or .pth file, or a .yaml that names one; of torchvision's networks,
            DEFAULT or another name, which is fetched. The geometry is the same without.
        size: height and width of the images, in pixels; by default what the network's preprocessing makes.
        check: images to look at, as for deconvnet scan, those whose class it knows if there are any; each is run once,
            and 128 of them in every usual way.
    """
    from ..describe import describe
    from ..network import load_model

    net = load_model(model, weights)
    if size is not None and size < 1:
        raise UsageError(f"--size must be at least 1: {size}")
    side = net.preprocess.size if size is None else size
    layers = describe(net, (side, side), net.preprocess.channels)
    total = sum(p.numel() for p in net.parameters())
    heads = ("layer", "kind", "units", "map", "kernel", "stride", "padding", "field", "every", "from", "parameters",
             "mirrored")
    print_table(f"{model} on {side}×{side} pixels: {total:,} parameters", heads, [_row(layer) for layer in layers],
                spare=("padding", "from", "parameters", "every", "mirrored", "kind"))
    obstacles = list(dict.fromkeys(layer.obstacle for layer in layers if layer.obstacle))
    for obstacle in obstacles[:3]:
        print(obstacle)
    if obstacles[3:]:
        print(f"… and {len(obstacles) - 3} more such calls")
    if check is not None:
        _check(net, check)


def _check(net: "Network", images: str) -> None:
    """Prints whether a network makes sense on images."""
    from ..check import check
    from ..images import open_images

    dataset = open_images(images, net.preprocess)
    found = check(net, dataset, progress=True)
    left = len(dataset) - len(found.whole.probabilities) - len(found.unreadable)
    if left:
        print(f"{left:,} of {len(dataset):,} images are left out: the network knows no class of their folders' names")
    print_table(f"Dead units, in {len(found.whole.probabilities):,} images", ("layer", "", "units", "dead", "share"),
                 [[name, "", f"{len(units):,}", f"{int((~units).sum()):,}", f"{1 - float(units.float().mean()):.1%}"]
                  for name, units in found.whole.fired.items()])
    if found.whole.accuracy:
        first, five = found.whole.accuracy
        print(f"Of {len(found.whole.right):,} images of {found.classes} classes that it knows: {first:.1%} right, "
              f"{five:.1%} among the first five\n")
    print_table(f"Inputs made in every usual way, for {len(found.outcomes[0].probabilities):,} of these images",
                 ("channels", "scale", "mean", "right", "of five", "confidence", "entropy", "information", "same class",
                  "dead", ""), [outcome.cells() for outcome in found.outcomes])
    for name, reason in found.unreadable:
        print(f"skipped: {name!r}: {reason}")
    print(found.advice)


def run_scan(model: str, images: str, out: str, weights: str | None = None, layers: str | None = None, top: int = 9,
             per_image: int = 1, batch_size: int = 32, workers: int = 1, device: str = "auto",
             strict: bool = False) -> None:
    """The strongest activations of every unit, over any number of images, in one pass and constant memory.

    Also which units are dead (they never fire), which are undiscriminating (they fire for everything) and, where there
    are classes, which prefer one. The same command again goes on where an earlier one was cut off.
    Then: deconvnet gallery FILE --out DIR

    On several GPUs, or many cores: torchrun --nproc-per-node 4 --no-python deconvnet scan … Each process goes through
    its part of the images, and the file is the same to the last bit. On several machines, all must see the same --out
    and --images: the parts are in OUT.parts until the first process has put them together. That one alone speaks, and
    its bar is of its own part. As many processes go on where they were cut off; another number begins anew.

    Args:
        model: zfnet, zfnet_wide, alexnet, alexnet_dense; torchvision:NAME; package.module:function; file.py:function;
            net.onnx; net.yaml.
        images: a folder of images, with a subfolder for each class or without; tar files in WebDataset's layout, as
            'shards/train-{000000..000146}.tar', 'shards/*.tar' or their folder; or builtin:photographs (2,558 views),
            builtin:photographs-apart (472 views that hardly overlap). From Python: any Dataset or iterable of batches.
        out: the file to write, such as top.safetensors.
        weights: demo; a .safetensors, .npz, .pt or .pth file, or a .yaml that names one; of torchvision's networks,
            DEFAULT or another name, which is fetched. Without, the networks of ours and of torchvision are random.
        layers: names with commas between (deconvnet describe MODEL lists them). Default: all convolutions and
            fully connected layers.
        top: how many activations of each unit to keep; the paper shows 9.
        per_image: how many of them may come from one image; the paper's way is 1.
        batch_size: images that go through the network together; fewer take less memory.
        workers: processes that decode images; one whose decoder crashes or hangs is skipped. 0 decodes in this process,
            between the batches, and ends with such an image.
        device: cpu, cuda, or auto: cuda where there is one.
        strict: stop at the first image that cannot be read, instead of skipping and naming it.
    """
    # Large pages for large tensors, if torch hears of it before it makes any: a scan of ZFNet takes a fifth less time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from ..processes import processes

    with processes(device) as here, sole_file(out, here.first) as file:
        if here.first and file.exists():
            print(f"{file} is there already and will be replaced")
        _scan(model, images, file, weights, names_in(layers), here, top, per_image, batch_size, workers, strict)
        if here.first:
            print(f"Now: deconvnet gallery {file} --out DIR")


def run_gallery(file: str, out: str, layers: str | None = None, units: str | None = None, random: int | None = None,
                seed: int = 0, method: str = "deconvnet", unpool: str = "switches",
                contrast: Literal["unit", "tile", "layer"] = "unit", tile: int = 80, zoom: int = 1,
                model: str | None = None, weights: str | None = None, images: str | None = None) -> None:
    """Draws what a scan found: for each unit its reconstructions beside the patches that caused them.

    One sheet for each layer, laid out as the paper's Figure 2, as PNG and as PDF; all layers on one page where there
    are five; a sheet of its own for every unit that --units names; and the numbers behind them in gallery.json and
    units.csv, which lists every unit: its strongest activation, the share of images in which it fires, whether it is
    dead, and the class that it prefers.

    Args:
        file: a scan, as deconvnet scan writes it.
        out: folder for the sheets.
        layers: names with commas between. Default: all of the scan but the fully connected ones.
        units: such as 3,17,90-95 (of every layer), or conv5:147,conv3:5-9.
        random: how many units of each layer to draw at random, of those that fire. Default: as many as the paper shows.
        seed: of the random choice.
        method: deconvnet, gradient or guided.
        unpool: by the switches, or to the center of each pooling window.
        contrast: one scale for each unit, tile, or layer.
        tile: pixels on the longer side of a tile in the sheets of layers, at most.
        zoom: size of a pixel in the sheets of single units.
        model: where the network's code lies now, if it is no longer where the scan was made.
        weights: where its weights lie now.
        images: where the images lie now.
    """
    from .. import report
    from ..gallery import galleries
    from ..inverses import table
    from ..provenance import reopen
    from ..scanned import read_scan

    settings = {"layers": layers, "units": units, "random": random, "seed": seed, "method": method, "unpool": unpool,
                "contrast": contrast, "tile": tile, "zoom": zoom}
    table(method, unpool)  # says what there is, before the work
    if min(tile, zoom) < 1:
        raise UsageError(f"--tile and --zoom must be at least 1: {tile}, {zoom}")
    with sole_folder(out) as folder:
        top = read_scan(file)
        chosen = report.choose_units(top, names_in(layers), units, random, seed)
        if (folder / "gallery.json").exists():
            print(f"{folder} has an earlier gallery: sheets of the same names are replaced, others stay")
        net, dataset = reopen(top.provenance, model, weights, images)
        chosen = mirrored(net, chosen, asked=bool(layers or units))
        origin = {**top.provenance, "gallery": {key: value for key, value in settings.items() if value is not None}}
        sheets = report.Sheets(folder, net, origin, top.k, contrast, tile, zoom)
        with closing(galleries(net, top, chosen, dataset, method=method, unpool=unpool, progress=True)) as made:
            sheets.draw(made, chosen, units=bool(units))
        report.write_numbers(folder, top, sheets.noted, origin)
        for layer, why in sheets.without.items():
            print(f"{layer}: no sheet; {why}")
        for name, reason in sorted(sheets.missing):
            print(f"missing since the scan: {name!r}: {reason}")
        print(f"Sheets and numbers are in {folder}")


def _scan(model: str, images: str, file: Path, weights: str | None, layers: list[str] | None, here: "Here",
          top: int = 9, per_image: int = 1, batch_size: int = 32, workers: int = 1, strict: bool = False) -> None:
    """Scans into a file; the first process prints what there is to say."""
    from ..images import open_images
    from ..network import load_model
    from ..parts import Parts, scan_together
    from ..provenance import note_places, provenance

    net = load_model(model, weights)
    dataset = open_images(images, net.preprocess)
    if here.first:
        for note in chain(Parts(file, here.world).notes(), _notes(net, model, weights, layers, dataset)):
            print(note)
    settings = {"layers": layers and ",".join(layers), "top": top, "per_image": per_image, "batch_size": batch_size}
    origin = provenance("scan", settings, net, dataset, model, weights, images)
    found = scan_together(net, dataset, file, here, layers=layers, k=top, per_image=per_image, batch_size=batch_size,
                          workers=workers, strict=strict, progress=True, provenance=origin,
                          weights=origin["weights_sha256"])
    if found is not None:  # this is the first process
        note_places(origin, model, weights, images)
        _print_scan(found)


def _notes(net: "Network", model: str, weights: str | None, layers: list[str] | None,
           dataset: "Images") -> Iterator[str]:
    """What a user should know before a scan: random weights, files passed over, layers that nothing projects from."""
    from ..describe import obstacles
    from ..importing import is_onnx
    from ..importing.beside import path_beside
    from ..models import MODELS

    if weights is None and (model in MODELS or model.startswith("torchvision:")):
        yield f"{model} has random weights: what its units prefer means nothing. Give trained ones with --weights."
    if is_onnx(model) and not path_beside(Path(model)).is_file():
        yield (f"{path_beside(Path(model))} is not there: images are made as for most of the ONNX model zoo "
               "(RGB, ImageNet's mean and deviation). Other networks need it, or their pictures are grey.")
    size, resize = net.preprocess.size, net.preprocess.resize
    if 2 * size < resize:
        yield (f"The network sees {size} of {resize} pixels along each side, the middle of a picture. With resize: "
               f"{size} in its YAML, or in its Preprocess, it sees the whole square.")
    if getattr(dataset, "ignored", 0):
        yield f"{dataset.ignored:,} files are no images by their ending, and are passed over"  # type: ignore[attr-defined]
    for layer, obstacle in obstacles(net, layers, (net.preprocess.size,) * 2, net.preprocess.channels).items():
        yield f"From {layer} on nothing can be projected, only scanned. {obstacle}"
        return


def _print_scan(found: "Scan") -> None:
    from ..report import summarise

    print_table(f"{found.count:,} images", ("layer", "units", "dead", "undiscriminating", "most selective"),
                 summarise(found))
    for name, reason in found.skipped:
        print(f"skipped: {name!r}: {reason}")
    if found.skipped:
        print(f"{len(found.skipped):,} of {found.count + len(found.skipped):,} images could not be read")


def _row(layer: "Layer") -> list[str]:
    """A layer as a row of the table of ``describe``."""
    slide, field = layer.slide, layer.field
    return [layer.name, layer.kind, f"{layer.units:,}", _by(layer.size),
            *(map(_by, (slide.kernel, slide.stride, slide.padding)) if slide else ("", "", "")),
            *(map(_by, (field.size, field.stride, field.start)) if field else ("", "", "")),
            f"{layer.parameters:,}" if layer.parameters else "", "no" if layer.obstacle else "yes"]


def _by(pair: Sequence[int]) -> str:
    """(7, 7) as 7, (7, 5) as 7×5."""
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"
