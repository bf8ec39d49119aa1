"""The atlas: made, and served to one's own computer."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import writable_folder
from .shared import mirrored, names_in, sole_folder

if TYPE_CHECKING:
    from ..atlas.labels import Labels


def run_atlas(file: str, out: str, layers: str | None = None, labels: str | None = None, beside: str | None = None,
              model: str | None = None, weights: str | None = None, images: str | None = None,
              model2: str | None = None, weights2: str | None = None) -> None:
    """A folder of plain pages in which one walks through a scanned network: layer by layer, unit by unit.

    Open OUT/index.html in any browser, from the disk or from any web server; nothing is fetched from anywhere else.
    Each unit has a page of its own, such as OUT/conv5/147: its strongest activations as reconstructions and patches,
    where they are, how its activations are distributed, the classes that excite it, the units that answer to the same
    images, and the way down step by step. The same command again goes on after the last layer that is whole; with
    other labels it makes only the pages anew.

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
    from ..atlas import pages

    with sole_folder(out) as folder:
        words = _labels(file, labels)
        left = _atlas(file, folder, names_in(layers), (model, weights, images))
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
    from ..atlas.serve import open_atlas, serve
    from ..provenance import reopen_network

    site = open_atlas(Path(folder))
    net = reopen_network(site.about["provenance"], model, weights)
    serve(Path(folder), site, net, port, partial(print, flush=True))


def _atlas(file: str, folder: Path, layers: list[str] | None, places: tuple[str | None, str | None, str | None]) -> str:
    """Puts the pictures and facts of a scan's atlas into a folder, and gives the name of the network."""
    from .. import report
    from ..atlas.build import build
    from ..layout import printable
    from ..provenance import reopen
    from ..scanned import read_scan

    top = read_scan(file)
    net, images = reopen(top.provenance, *places)
    chosen = mirrored(net, {layer: [] for layer in layers or report.with_maps(top)}, asked=bool(layers))
    build(folder, net, top, images, list(chosen), progress=True)
    return printable(report.network_name(top.provenance))


def _labels(file: str, labels: str | None) -> "Labels":
    """A teacher's words for the units of a scan, from a file; none without one."""
    from ..atlas.labels import check
    from ..config import read
    from ..scanned import read_scan

    return {} if labels is None else check(read(labels), read_scan(file), labels)
