"""The pictures and facts of an atlas, from a scan: layer by layer, so that it goes on where it was cut off."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ..drawing import counted, drawn
from ..errors import UsageError
from ..files import begun, flush_all, made_folder, sweep, write_whole
from ..gallery import Gallery, gallery
from ..images import Images
from ..layout import printable
from ..projection import field_of
from ..report import network_name
from ..scanned import Scan, encode
from ..tape import place_of, record
from ..units import class_names
from .facts import Facts, layer_facts, tile_facts, unit_facts
from .pages import FORMAT, read
from .pictures import MAPS, Sprites, unit_picture, way_picture, whole_picture
from .places import folders

MEMORY = 2 ** 30  # bytes of tiles at once: all of a layer of 256 units of 139×139 pixels, while others are drawn
SIDES = ((500, 224), (1500, 128), (10**9, 96))  # so many images at most, and so large each: the atlas stays small


def build(folder: Path, net: nn.Module, top: Scan, images: Images, layers: Sequence[str],
          progress: bool = False) -> None:
    """Puts the pictures and facts of some layers into a folder; ``pages.write`` then makes the pages.

    Args:
        folder: where they go: empty, or with an atlas of the same scan in it, of which what is there is kept. So the
            same call goes on where it was cut off.
        net: the network of the scan.
        top: what ``scan`` found, with provenance.
        images: the images of the scan.
        layers: those that the atlas shows; each must be one that ``project`` can begin at.
        progress: show progress bars.

    Raises UsageError where the folder holds something else, and DeconvnetError where it cannot be written, or the
    images are not those of the scan.
    """
    about = _about(top, images, layers)
    used = {int(n) for layer in layers for n in top[layer].images.flatten() if n >= 0}
    side = next(side for most, side in SIDES if len(used) <= most)
    _take(folder, about)
    views = _Views(images, folder / "images", side, used)
    zeros = torch.zeros(1, images.preprocess.channels, *about["size"]).to(*place_of(net))
    tape = record(net, zeros)
    for layer in layers:
        place = folder / about["folders"][layer]
        if not (place / "units.json").exists():
            height, width = tape.maps(layer).shape[2:]
            facts = layer_facts(top, layer, (height, width), field_of(tape, layer))
            facts["names"] = class_names(net, layer, facts["units"], zeros)
            _make_layer(place, net, top, layer, views, facts, progress)


def _about(top: Scan, images: Images, layers: Sequence[str]) -> Facts:
    """What the atlas is of; kept in atlas.json, by which the same atlas is known again."""
    places = folders(layers)
    return {
        "format": FORMAT,
        "scan_sha256": sha256(encode(top)).hexdigest(),
        "name": printable(network_name(top.provenance)),
        "provenance": top.provenance,
        "folders": places,
        "classes": [printable(name) for name in top.classes],
        "count": top.count,
        "k": top.k,
        "size": [images.preprocess.size] * 2,
    }


def _take(folder: Path, about: Facts) -> None:
    """Makes sure that the folder is free, or holds the same atlas, whole or begun."""
    there = folder / "atlas.json"
    if there.exists():
        if read(there, "folders") != json.loads(json.dumps(about)):
            raise UsageError(f"{folder} holds an atlas of another scan, or of other layers: choose another --out, or "
                             "delete it")
    elif not all(map(begun, folder.iterdir())):
        raise UsageError(f"{folder} is not empty, and not an atlas: choose another --out")
    sweep(folder)
    if not there.exists():
        write_whole(there, json.dumps(about, indent=1).encode())


def _make_layer(place: Path, net: nn.Module, top: Scan, layer: str, views: "_Views", facts: Facts,
                progress: bool) -> None:
    """The pictures of a layer, and then units.json, which says that all of them are there."""
    made_folder(place)
    units = unit_facts(top, layer)
    sprites = Sprites(len(units), top.k)
    facts["tile"] = [1, 1]

    def noted() -> Iterator[Gallery]:
        for one in gallery(net, top, layer, range(len(units)), views, descent=MAPS, memory=MEMORY, progress=progress):
            units[one.unit] |= tile_facts(one)
            yield one

    with closing(drawn(lambda one: _write_unit(made_folder(place / str(one.unit)), one, sprites), noted())) as written:
        for found in counted(written, len(units), f"{layer}: pictures") if progress else written:
            facts |= found
    for name, content in sprites.files().items():
        write_whole(place / name, content, flush=False)
    flush_all(place)
    write_whole(place / "units.json", json.dumps(facts | {"list": units}, separators=(",", ":")).encode())


def _write_unit(own: Path, one: Gallery, sprites: Sprites) -> Facts:
    """The pictures of a unit, in its own folder and in its cell of the layer's; what a layer's pages need to know."""
    if one.descent:
        write_whole(own / "way.webp", way_picture(one.descent), flush=False)
    if not len(one.values):
        return {}
    sprites.add(one)
    picture, size = unit_picture(one)
    write_whole(own / "unit.webp", picture, flush=False)
    return {"tile": list(size), "window": list(one.patches.shape[1:3])}


class _Views(Dataset):
    """The images of a scan, each of which is kept as a small picture when it is first read."""

    def __init__(self, images: Images, folder: Path, side: int, used: set[int]) -> None:
        self.images, self.folder, self.side = images, made_folder(folder), side
        self.files, self.preprocess = images.files, images.preprocess
        kept = {path.name for path in folder.iterdir() if path.stat().st_size}  # a power cut may leave an empty file
        self.missing = {n for n in used if f"{n}.webp" not in kept}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Any:
        item = self.images[number]
        if number in self.missing:
            pixels = self.preprocess.inverse(item[0])                            # (H, W, 3)
            write_whole(self.folder / f"{number}.webp", whole_picture(pixels, self.side), flush=False)
            self.missing.discard(number)
        return item
