"""What each command of the command line does: its options, what it prints and what it writes.

The docstrings are the help. Nothing heavy is imported until a command runs, so that help answers at once.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .errors import DeconvnetError, UsageError
from .files import sole_writer, writable_folder

if TYPE_CHECKING:
    from rich.console import Console

    from .atlas.labels import Labels
    from .describe import Layer
    from .images import Images
    from .network import Network
    from .processes import Here
    from .scanned import Scan
    from .settings import Part


def run_demo(out: str = "deconvnet-demo", seed: int = 0) -> None:
    """The paper's Figure 2 for the ZFNet that ships, on scikit-image's photographs: offline, about a minute.

    Scans 472 views of the photographs that lie apart (builtin:photographs-apart), and draws for each of the five layers
    the nine strongest activations of some units: their reconstructions on the left, the image patches that caused them
    on the right. The scan is kept too: deconvnet gallery OUT/scan.safetensors --out DIR draws other units.

    Args:
        out: folder for the sheets (PNG and PDF), the scan, and the numbers behind them.
        seed: of the random choice of units.
    """
    from .processes import processes

    with _folder(out) as folder, processes() as here:
        _scan("zfnet", "builtin:photographs-apart", folder / "scan.safetensors", "demo",
              ["conv1", "conv2", "conv3", "conv4", "conv5"], here)
    run_gallery(str(folder / "scan.safetensors"), str(folder), seed=seed)
    print(f"All layers on one page: {folder / 'figure2.png'}")


def run_describe(model: str, weights: str | None = None, size: int | None = None, check: str | None = None) -> None:
    """What a network is made of: maps, kernels, receptive fields, and whether each layer can be mirrored.

    The receptive field of the unit at (i, j) begins at start + (i, j)·stride, in pixels; a negative start lies in the
    padding. A layer that cannot be mirrored is listed below the table, with the reason and the remedy.

    With --check, whether network and weights make sense on images: how many predictions are right, where the names of
    the images' folders are those of its classes, which share of its units is dead, and the same for inputs made in
    every usual way, for wrong preprocessing is the usual reason for grey pictures.

    Args:
        model: zfnet, zfnet_wide, alexnet, alexnet_dense; torchvision:NAME; package.module:function; file.py:function;
            net.onnx; net.yaml.
        weights: demo; a .safetensors, .npz, .pt or .pth file, or a .yaml that names one; of torchvision's networks,
            DEFAULT or another name, which is fetched. The geometry is the same without.
        size: height and width of the images, in pixels; by default what the network's preprocessing makes.
        check: images to look at, as for deconvnet scan; each is run once, and 128 of them in every usual way.
    """
    from .describe import describe
    from .network import load_model

    net = load_model(model, weights)
    if size is not None and size < 1:
        raise UsageError(f"--size must be at least 1: {size}")
    side = net.preprocess.size if size is None else size
    layers = describe(net, (side, side), net.preprocess.channels)
    total = sum(p.numel() for p in net.parameters())
    heads = ("layer", "kind", "units", "map", "kernel", "stride", "padding", "field", "every", "from", "parameters",
             "mirrored")
    _print_table(f"{model} on {side}×{side} pixels: {total:,} parameters", heads, [_row(layer) for layer in layers])
    obstacles = list(dict.fromkeys(layer.obstacle for layer in layers if layer.obstacle))
    for obstacle in obstacles[:3]:
        print(obstacle)
    if obstacles[3:]:
        print(f"… and {len(obstacles) - 3} more such calls")
    if check is not None:
        _check(net, check)


def _check(net: "Network", images: str) -> None:
    """Prints whether a network makes sense on images."""
    from .check import check
    from .images import open_images

    found = check(net, open_images(images, net.preprocess), progress=True)
    _print_table(f"Dead units, in {len(found.whole.probabilities):,} images", ("layer", "", "units", "dead", "share"),
                 [[name, "", f"{len(units):,}", f"{int((~units).sum()):,}", f"{1 - float(units.float().mean()):.1%}"]
                  for name, units in found.whole.fired.items()])
    if found.whole.accuracy:
        first, five = found.whole.accuracy
        print(f"Of {len(found.whole.right):,} images of {found.classes} classes that it knows: {first:.1%} right, "
              f"{five:.1%} among the first five\n")
    _print_table(f"Inputs made in every usual way, for {len(found.outcomes[0].probabilities):,} of these images",
                 ("channels", "scale", "mean", "right", "of five", "confidence", "entropy", "information", "same class",
                  "dead", ""), [outcome.cells() for outcome in found.outcomes])
    for name, reason in found.unreadable:
        print(f"skipped: {name!r}: {reason}")
    print(found.advice)


def run_scan(model: str, images: str, out: str, weights: str | None = None, layers: str | None = None, top: int = 9,
             per_image: int = 1, batch_size: int = 32, workers: int = 0, device: str = "auto",
             strict: bool = False) -> None:
    """The strongest activations of every unit, over any number of images, in one pass and constant memory.

    Also which units never fire, which fire for everything and, where there are classes, which prefer one. The same
    command again goes on where an earlier one was cut off. Then: deconvnet gallery FILE --out DIR

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
        workers: processes that decode images; 0 decodes between the batches.
        device: cpu, cuda, or auto: cuda where there is one.
        strict: stop at the first image that cannot be read, instead of skipping and naming it.
    """
    from .processes import processes

    file = _writable_file(out)
    with processes(device) as here, _alone(file, here.first):
        if here.first and file.exists():
            print(f"{file} is there already and will be replaced")
        _scan(model, images, file, weights, _names(layers), here, top, per_image, batch_size, workers, strict)
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
    from . import report
    from .gallery import galleries
    from .inverses import table
    from .provenance import reopen
    from .scanned import read_scan

    settings = {"layers": layers, "units": units, "random": random, "seed": seed, "method": method, "unpool": unpool,
                "contrast": contrast, "tile": tile, "zoom": zoom}
    table(method, unpool)  # says what there is, before the work
    if min(tile, zoom) < 1:
        raise UsageError(f"--tile and --zoom must be at least 1: {tile}, {zoom}")
    with _folder(out) as folder:
        top = read_scan(file)
        chosen = report.choose_units(top, _names(layers), units, random, seed)
        net, dataset = reopen(top.provenance, model, weights, images)
        chosen = _mirrored(net, chosen, asked=bool(layers or units))
        origin = {**top.provenance, "gallery": {key: value for key, value in settings.items() if value is not None}}
        pages, drawn, lost = [], [], set()
        made = galleries(net, top, chosen, dataset, method=method, unpool=unpool, progress=True)
        for layer, numbers in chosen.items():
            shown = []
            for one in islice(made, len(numbers)):
                if units:
                    report.write_unit_sheet(folder, one, origin, top.k, contrast, zoom)
                shown += [one] if len(numbers) <= report.MOST else []
                drawn.append(report.numbers(one))
                lost.update(one.missing)
            if shown:
                report.write_layer_sheet(folder, net, shown, origin, top.k, contrast, tile)
            else:
                print(f"{layer}: no sheet; " + ("no unit fires" if not numbers else "too many units for one"))
            pages.append(shown if len(drawn) <= report.MOST else [])
        next(made, None)  # ends the progress bar
        if len(pages) == len(report.PAPER_MAPS) and all(pages):
            report.write_figure_2(folder, net, pages, origin, top.k, contrast, tile)
        report.write_numbers(folder, top, drawn, origin)
        for name, reason in sorted(lost):
            print(f"missing since the scan: {name!r}: {reason}")
        print(f"Sheets and numbers are in {folder}")


def run_train(config: str, out: str | None = None, data: str | None = None, images: str | None = None,
              seed: int | None = None, workers: int | None = None, device: str = "auto",
              tensorboard: bool = False) -> None:
    """Trains a network by a recipe. The same command again goes on from where the last one stopped.

    On several GPUs or machines: torchrun --nproc-per-node 4 --no-python deconvnet train --config FILE. The processes
    share each batch; their number changes nothing but rounding.

    Args:
        config: a YAML file such as those in configs/train; unknown keys are errors.
        out: folder for checkpoints, log, curves, snapshots and weights. Default: runs/ and the configuration's name.
        data: a second YAML file whose keys go before those of config, such as those in configs/data.
        images: the folder of images, with one subfolder for each class, if not the one that the files name.
        seed: of the split, the first weights and the order of the images, if not the configuration's.
        workers: processes that cut views, if not as many as the configuration says.
        device: cpu, cuda, or auto: cuda where there is one.
        tensorboard: write files for TensorBoard too (pip install 'deconvnet[tensorboard]').
    """
    from .config import load, read
    from .training import Recipe, train

    words = {"images": images, "seed": seed, "workers": workers}
    changes = {**(read(data) if data else {}), **{key: value for key, value in words.items() if value is not None}}
    recipe = load(config, Recipe, changes)
    folder = writable_folder(out or f"runs/{Path(config).stem}")
    card = train(recipe, folder, device=device, tensorboard=tensorboard)
    if not card:  # another process than the first
        return
    for key, views in (("held_out", "central view"), ("held_out_ten_views", "ten views")):
        if "top1" in card.get(key, {}):
            print(f"held out, {views}: {card[key]['top1']:.1%} top-1, {card[key]['top5']:.1%} top-5, mean of classes")
    weights = folder / "weights.safetensors"
    print(f"Now: deconvnet scan --model {recipe.network} --weights {weights} --images DIR --out FILE")


def run_figure(number: str, out: str = "deconvnet-figures", config: str | None = None, model: str | None = None,
               weights: str | None = None, images: str | None = None) -> None:
    """One of the paper's figures (arXiv v3), by number, for a network and images of your own or for what ships.

    1 the deconvnet on a real activation, 2 features, 3 architecture, 4 evolution of features, 5 invariance, 6
    architecture selection, 7 occlusion, 8 correspondence, 9 accuracy against training images; and methods: the same
    activation by several methods. Each as PNG and PDF, with its numbers and provenance in JSON and its caption as text.

    Args:
        number: 1 to 9, or methods.
        out: folder for the files.
        config: a YAML file with the figure's settings, such as those in configs/figures.
        model: in place of the one in the settings; see deconvnet scan.
        weights: in place of those in the settings.
        images: in place of those in the settings.
    """
    from . import figures

    settings = _settings(figures.settings(number), config, {"model": model, "weights": weights, "images": images})
    with _folder(out) as folder:
        exhibit = figures.make(number, settings)
        files = exhibit.write(folder, f"figure{number}" if number.isdigit() else number)
        _print_written(exhibit.caption, folder, files)


def run_table(number: str, out: str = "deconvnet-tables", config: str | None = None, model: str | None = None,
              weights: str | None = None, images: str | None = None) -> None:
    """One of the paper's tables (arXiv v3), by number, with the paper's own values beside.

    1 correspondence, 2 errors, 3 ablation, 4 Caltech-101, 5 Caltech-256, 6 PASCAL VOC 2012, 7 features layer by layer.
    On the screen, and as CSV, Markdown, LaTeX and JSON.

    Args:
        number: 1 to 7.
        out: folder for the files.
        config: a YAML file with the table's settings, such as those in configs/tables.
        model: in place of the one in the settings; see deconvnet scan.
        weights: in place of those in the settings.
        images: in place of those in the settings.
    """
    from . import tables

    settings = _settings(tables.settings(number), config, {"model": model, "weights": weights, "images": images})
    with _folder(out) as folder:
        table = tables.make(number, settings)
        files = table.write(folder, f"table{number}")
        _print_table("", table.heads, table.cells())
        _print_written(table.caption, folder, files)


def run_compare(model1: str, model2: str, weights1: str | None = None, weights2: str | None = None,
                images: str = "builtin:photographs-apart", out: str = "deconvnet-compare") -> None:
    """Filter settings side by side: the first and second layers of any two networks, and what is measured of them.

    The paper's Figure 6 for networks of your own: their first layers' filters, random maps of their second layers with
    the nine strongest activations projected to pixels, and how their frequencies, orientations, norms, likenesses and
    aliasing are distributed. As PNG and PDF, with the numbers in JSON and as a table in CSV, Markdown and LaTeX.

    Args:
        model1: zfnet, zfnet_wide, alexnet, alexnet_dense; torchvision:NAME; package.module:function; file.py:function;
            net.onnx; net.yaml.
        model2: the network beside it; the same one with other weights will do.
        weights1: of the first network: the name of what ships, or a .safetensors, .npz, .pt or .pth file.
        weights2: of the second.
        images: a folder of images, or builtin:photographs or builtin:photographs-apart.
        out: folder for the files.
    """
    from .figures import selection

    with _folder(out) as folder:
        left, right = selection.Side(model=model1, weights=weights1), selection.Side(model=model2, weights=weights2)
        chosen = selection.Settings(left=left, right=right, unrestrained=None, images=images)
        exhibit, table = selection.compare(chosen)
        files = [*exhibit.write(folder, "compare"), *table.write(folder, "compare_table")]
        _print_table("", table.heads, table.cells())
        _print_written(exhibit.caption, folder, files)


def run_atlas(file: str, out: str, layers: str | None = None, labels: str | None = None, beside: str | None = None,
              model: str | None = None, weights: str | None = None, images: str | None = None,
              model2: str | None = None, weights2: str | None = None) -> None:
    """A folder of plain pages in which one walks through a scanned network: layer by layer, unit by unit.

    Open OUT/index.html in any browser, from the disk or from any web server; nothing is fetched from anywhere else.
    Each unit has a page of its own, such as OUT/conv5/147: its strongest activations as reconstructions and patches,
    where they are, how its activations are distributed, the classes that excite it, the units that answer to the same
    images, and the way down step by step. The same command again goes on where it was cut off; with other labels it
    makes only the pages anew.

    Args:
        file: a scan, as deconvnet scan writes it.
        out: folder for the atlas; empty, or with the same atlas in it.
        layers: names with commas between. Default: all of the scan but the fully connected ones.
        labels: a YAML file with words of one's own for units, a line for each: conv5:147: wheels
        beside: a scan of another network, which gets an atlas in OUT/beside and pages with both side by side.
        model: where the network's code lies now, if it is no longer where the scan was made.
        weights: where its weights lie now.
        images: where the images lie now, of both networks.
        model2: where the code of the network beside lies now.
        weights2: where its weights lie now.
    """
    from .atlas import pages

    with _folder(out) as folder:
        words = _labels(file, labels)
        left = _atlas(file, folder, _names(layers), (model, weights, images))
        if beside is None:
            one = pages.load(folder, words, *pages.beside(folder))
            pages.write(folder, one, progress=True)
        else:
            right = _atlas(beside, writable_folder(folder / "beside"), None, (model2, weights2, images))
            one = pages.load(folder, words, "both/index.html", right)
            other = pages.load(folder / "beside", None, "../both/index.html", left)
            pages.write(folder, one, progress=True)
            pages.write(folder / "beside", other, progress=True)
            pages.write_both(folder, one, other)
        if hidden := [layer for layer in words if layer not in one.about["folders"]]:
            print(f"There are labels of layers that are not in this atlas: {', '.join(hidden)}")
        if beside is None and (folder / "both").exists():
            print(f"{folder / 'both'} is as it was: to renew the pages of two networks, give --beside again")
        print(f"Open {folder / 'index.html'} in a browser")


def run_serve(folder: str, port: int | None = None, model: str | None = None, weights: str | None = None) -> None:
    """An atlas open to this computer alone, and in it a page that looks at a picture of one's own.

    Drop in a picture, choose a layer and a unit, and see its strongest activations taken back down to pixels. The
    picture stays in memory. The address holds a secret; Ctrl-C closes it. Needs: pip install 'deconvnet[serve]'

    Args:
        folder: an atlas, as deconvnet atlas makes it.
        port: where to listen; 0 for any that is free. Default: 8765, or the next that is free.
        model: where the network's code lies now, if it is no longer where the scan was made.
        weights: where its weights lie now.
    """
    from .atlas.serve import open_atlas, serve
    from .provenance import reopen_network

    site = open_atlas(Path(folder))
    net = reopen_network(site.about["provenance"], model, weights)
    serve(Path(folder), site, net, port, partial(print, flush=True))


def _atlas(file: str, folder: Path, layers: list[str] | None, places: tuple[str | None, str | None, str | None]) -> str:
    """Puts the pictures and facts of a scan's atlas into a folder, and gives the name of the network."""
    from . import report
    from .atlas.build import build
    from .provenance import reopen
    from .scanned import read_scan

    top = read_scan(file)
    net, images = reopen(top.provenance, *places)
    chosen = _mirrored(net, {layer: [] for layer in layers or report.with_maps(top)}, asked=bool(layers))
    build(folder, net, top, images, list(chosen), progress=True)
    return report.printable(report.network_name(top.provenance))


def _labels(file: str, labels: str | None) -> "Labels":
    """A teacher's words for the units of a scan, from a file; none without one."""
    from .atlas.labels import check
    from .config import read
    from .scanned import read_scan

    return {} if labels is None else check(read(labels), read_scan(file), labels)


def _settings(kind: "type[Part]", config: str | None, words: dict[str, str | None]) -> "Part":
    """Settings from a file, if there is one, with what the command line says in its place."""
    from .config import load

    said: dict[str, str | None] = {key: value for key, value in words.items() if value is not None}
    for key in said.keys() - kind.model_fields.keys():
        raise UsageError(f"--{key} does not go with this one, whose settings are {', '.join(kind.model_fields)}: give "
                         "--config FILE")
    if "model" in said and "weights" not in said and "weights" in kind.model_fields:
        said["weights"] = None  # another network's weights would not fit
    return load(config, kind, said) if config else kind(**said)


def _mirrored(net: "Network", chosen: dict[str, list[int]], asked: bool) -> dict[str, list[int]]:
    """The layers that can be projected from. An error, before any picture, if others are asked for or none is left."""
    from .describe import obstacles

    blocked = obstacles(net, list(chosen), (net.preprocess.size,) * 2, net.preprocess.channels)
    if blocked and (asked or len(blocked) == len(chosen)):
        raise DeconvnetError(next(iter(blocked.values())))
    for layer, obstacle in blocked.items():
        print(f"{layer} is left out. {obstacle}")
    return {layer: numbers for layer, numbers in chosen.items() if layer not in blocked}


def _scan(model: str, images: str, file: Path, weights: str | None, layers: list[str] | None, here: "Here",
          top: int = 9, per_image: int = 1, batch_size: int = 32, workers: int = 0, strict: bool = False) -> None:
    """Scans into a file; the first process prints what there is to say."""
    from .images import open_images
    from .network import load_model
    from .parts import Parts, scan_together
    from .provenance import note_places, provenance

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
    from .describe import obstacles
    from .importing import is_onnx
    from .importing.beside import path_beside
    from .models import MODELS

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


# ---- printing ----

def _print_scan(found: "Scan") -> None:
    from .report import summarise

    _print_table(f"{found.count:,} images", ("layer", "units", "dead", "fire for everything", "most selective"),
                 summarise(found))
    for name, reason in found.skipped:
        print(f"skipped: {name!r}: {reason}")
    if found.skipped:
        print(f"{len(found.skipped):,} of {found.count + len(found.skipped):,} images could not be read")


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def _print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None)
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    _console().print(table, markup=False)


def _print_written(caption: str, folder: Path, files: Sequence[Path]) -> None:
    """What a figure or table shows, and where its files lie."""
    print(caption)
    print(f"In {folder}: {', '.join(file.name for file in files)}")


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


# ---- places to write ----

def _writable_file(path: str | Path) -> Path:
    """The file's path, when it can be written. DeconvnetError or UsageError, before any work, where it cannot."""
    file = Path(path)
    if file.is_dir():
        raise UsageError(f"{file} is a folder; --out takes the name of a file, such as {file / 'scan.safetensors'}")
    writable_folder(file.parent)
    return file


@contextmanager
def _folder(path: str | Path) -> Iterator[Path]:
    """The folder, made if need be, while no other command writes in it. DeconvnetError where that cannot be."""
    folder = writable_folder(path)
    with _alone(folder, os.environ.get("RANK", "0") == "0"):
        yield folder


def _alone(path: Path, first: bool = True) -> AbstractContextManager[None]:
    """While no other command writes a file or in a folder; of processes that write together the first sees to it."""
    return sole_writer(path) if first else nullcontext()


def _names(text: str | None) -> list[str] | None:
    """The names in a list with commas between; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",")]
