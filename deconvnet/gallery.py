"""The strongest activations of a unit, each as a reconstruction beside the image patch that caused it."""

from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .contrast import FastContrast
from .descent import Stage, chosen_only, descend
from .errors import DeconvnetError, UnreadableImage, UsageError, check_least
from .forward import best_format
from .layout import TITLE, framed, line
from .patches import Inverse, cut, inverse_of
from .projection import Projection, field_of, project
from .render import legible, unit_sheet
from .scanned import Scan
from .tape import Tape, place_of, record_as_far_as
from .units import check_units, class_names

MEMORY = 3 * 2 ** 29  # bytes of tiles that are held at once: those of all units of ZFNet's five layers
TAPE, MOST = 2 ** 29, 24  # bytes of what is recorded together, and images: with more there is little to be gained
PIXEL = 3 * 4 + 3  # bytes of a tile's pixel: the reconstruction's as floats, the patch's as bytes


@dataclass(frozen=True, eq=False, repr=False)
class Gallery:
    """The k strongest activations of one unit, strongest first.

    Attributes:
        layer, unit: the unit's address.
        values: (k,) float, the activations.
        images: (k,) int64, the index of the image of each.
        positions: (k, 2) int64, where on the feature map each is, (y, x).
        files: the name of each image.
        origins: (k, 2) int64, the (y, x) in the image of each window's top-left pixel; negative at a border.
        reconstructions: (k, 3, h, w) float, signed: the projection of each activation on its receptive field.
        patches: (k, h, w, 3) uint8: the image's own pixels in the same window, mid-grey outside the image.
        missing: (name, reason) of the images that could not be read any more. Their activations are left out above.
        descent: the stages of the strongest one's way down, each with its strongest maps; empty if not asked for.
        name: the class that the unit stands for, where it is an output of a network that knows its classes.
    """

    layer: str
    unit: int
    values: np.ndarray
    images: np.ndarray
    positions: np.ndarray
    files: list[str]
    origins: np.ndarray
    reconstructions: np.ndarray
    patches: np.ndarray
    missing: list[tuple[str, str]] = field(default_factory=list)
    descent: list[Stage] = field(default_factory=list)
    name: str = ""

    @property
    def remark(self) -> str:
        """What a picture of the unit must say: its name, ``dead``, how many tiles are missing; mostly it is empty."""
        state = f"{len(self.missing)} missing" if self.missing else "" if len(self.values) else "dead"
        return ", ".join(filter(None, (self.name, state)))

    def __repr__(self) -> str:
        _, height, width, _ = self.patches.shape
        size = f", {height}×{width} pixels each" if len(self.values) else ""
        return f"Gallery {self.layer}:{self.unit}: {self.remark or 'complete'}, {len(self.values)} tiles{size}"

    def _repr_png_(self) -> bytes:
        """The gallery as a PNG file: a notebook shows it where it would print a name. Without tiles, words say why."""
        if not len(self.values):
            why = "no image of it can be read any more" if self.missing else "it fires in no image"
            return framed(line(f"{self.layer}:{self.unit} {self.remark}: {why}", TITLE)).png()
        return unit_sheet(self, zoom=legible(self)).png()


def gallery(net: nn.Module, top: Scan, layer: str, units: Sequence[int], images: Any, *, method: str = "deconvnet",
            unpool: str = "switches", inverse: Inverse | None = None, batch_size: int | None = None,
            tolerance: float = 1e-3, descent: int = 0, memory: int = MEMORY,
            progress: bool = False) -> Iterator[Gallery]:
    """The galleries of some units of a layer, in the order of ``units``, made as they are asked for.

    Args:
        net: the network of the scan.
        top: what ``scan`` found.
        layer: one of its layers.
        units: numbers of feature maps.
        images: the images of the scan: a tensor (N, C, H, W), or a Dataset of (C, H, W) or ((C, H, W), label), where C
            is 3, or 1 for grey.
        method, unpool: see ``project``.
        inverse: inputs (n, 3, H, W) → pixels (n, H, W, 3) uint8. By default that of ``images.preprocess`` or
            ``net.preprocess``; where there is neither, each image is stretched from its smallest to its largest value.
        batch_size: images that are recorded together. Default: as many as half a gigabyte holds, 24 at most.
        tolerance: how far, relatively, an activation may be from the scan's; of weak ones, relatively to a hundredth of
            the layer's strongest.
        descent: how many maps to keep of every stage of the strongest activation's way down; 0: no stages. It is the
            paper's way down, whatever the method.
        memory: bytes of tiles to hold at once, of as many units: an image that several of them need is recorded once.
        progress: show a progress bar.

    Memory holds one batch, and those tiles. An image that cannot be read any more is left out, and named
    in ``missing``. Raises UsageError for a layer or unit that does not exist, and DeconvnetError where the images are
    not those of the scan, or an activation is not the scan's because images or weights have changed.
    """
    return galleries(net, top, {layer: units}, images, method=method, unpool=unpool, inverse=inverse,
                     batch_size=batch_size, tolerance=tolerance, descent=descent, memory=memory, progress=progress)


def galleries(net: nn.Module, top: Scan, chosen: Mapping[str, Sequence[int]], images: Any, *,
              method: str = "deconvnet", unpool: str = "switches", inverse: Inverse | None = None,
              batch_size: int | None = None, tolerance: float = 1e-3, descent: int = 0, memory: int = MEMORY,
              progress: bool = False) -> Generator[Gallery]:
    """The same for several layers: ``chosen`` has the units of each. An image is recorded once for all of them."""
    check_least(descent=(descent, 0), memory=(memory, 0), batch_size=(batch_size, 1))
    wanted = [(layer, unit) for layer, units in chosen.items()
              for unit in check_units(units, layer, len(top[layer].values))]
    _check_images(top, images)
    maker = _Maker(net, top, images, inverse or inverse_of(net, images), method, unpool, tolerance, descent)
    return maker.make(wanted, batch_size, memory, progress)


Address = tuple[str, int]  # a layer and a unit


def _parts(items: Sequence[int], size: int) -> list[Sequence[int]]:
    return [items[start:start + size] for start in range(0, len(items), size)]


class _Entry(NamedTuple):
    """One of the strongest activations, and for which gallery of its group it is."""

    slot: int
    layer: str
    image: int
    unit: int
    y: int
    x: int
    value: float
    strongest: bool


class _Tile(NamedTuple):
    entry: _Entry
    reconstruction: np.ndarray  # (3, h, w)
    patch: np.ndarray           # (h, w, 3)
    origin: np.ndarray          # (2,)
    way: list[Stage]


@dataclass
class _Maker:
    """Makes galleries: every image that a group of units needs is read and recorded once, for all of them."""

    net: nn.Module
    top: Scan
    images: Any
    inverse: Inverse
    method: str
    unpool: str
    tolerance: float
    descent: int
    peeked: dict[int, Tensor] = field(default_factory=dict)  # the image that was read to know how large tiles are
    names: dict[str, list[str]] = field(default_factory=dict)  # by layer, what its units are called, if they are
    format: torch.memory_format | None = None  # in which the network is fastest

    def make(self, wanted: Sequence[Address], batch_size: int | None, memory: int, progress: bool
             ) -> Generator[Gallery]:
        layers = list(dict.fromkeys(layer for layer, _ in wanted))
        sizes, recorded = self._peek(layers, self._entries(wanted))
        batch_size = batch_size or max(min(TAPE // recorded, MOST), 1)
        groups = [(group, self._entries(group)) for group in self._groups(wanted, sizes, memory)]
        total = sum(len({entry.image for entry in entries}) for _, entries in groups)
        title = layers[0] if len(layers) == 1 else f"{len(layers)} layers"
        with tqdm(total=total, desc=title, unit=" images", disable=not progress) as bar:
            for group, entries in groups:
                by_image = defaultdict(list)
                for entry in entries:
                    by_image[entry.image].append(entry)
                tiles: list[_Tile] = []
                missing: dict[int, str] = {}
                for part in _parts(sorted(by_image), batch_size):
                    tiles += self._tiles({number: by_image[number] for number in part}, missing)
                    bar.update(len(part))
                if bar.n == total:
                    bar.close()
                yield from self._galleries(group, entries, tiles, missing)

    def _groups(self, wanted: Sequence[Address], sizes: Mapping[str, int], memory: int) -> list[list[Address]]:
        """The units in groups whose tiles have room in memory, one unit at least in each."""
        groups: list[list[Address]] = []
        room = -1
        for layer, unit in wanted:
            room -= self.top.k * sizes[layer]
            if room < 0:
                groups.append([])
                room = memory - self.top.k * sizes[layer]
            groups[-1].append((layer, unit))
        return groups

    def _peek(self, layers: Collection[str], entries: Sequence[_Entry]) -> tuple[dict[str, int], int]:
        """Reads the first image that can be, which tells the names of units; and how many bytes a tile of each layer
        takes, and what is recorded of an image.
        """
        numbers = sorted({entry.image for entry in entries})
        self.peeked = next(filter(None, (self._read([number], {}) for number in numbers)), {})
        if not self.peeked:
            return dict.fromkeys(layers, 0), TAPE
        tape, (image,) = self._record(self.peeked, layers), self.peeked.values()
        one = image[None].to(*place_of(self.net))                                # (1, C, H, W)
        self.names = {layer: class_names(self.net, layer, len(self.top[layer].fired), one) for layer in layers}
        sizes = {layer: torch.tensor(field_of(tape, layer).size) for layer in layers}
        whole = torch.tensor(image.shape[-2:])
        return {layer: PIXEL * int(size.minimum(whole).prod()) for layer, size in sizes.items()}, tape.memory

    def _entries(self, group: Sequence[Address]) -> list[_Entry]:
        """The activations of the units, the strongest first, without those places that have none."""
        return [_Entry(slot, layer, image, unit, y, x, value, rank == 0) for slot, (layer, unit) in enumerate(group)
                for rank, (image, (y, x), value) in enumerate(zip(
                    self.top[layer].images[unit].tolist(), self.top[layer].positions[unit].tolist(),
                    self.top[layer].values[unit].tolist(), strict=True)) if image >= 0]

    def _read(self, numbers: Sequence[int], missing: dict[int, str]) -> dict[int, Tensor]:
        """The images of these numbers, each (C, H, W); those not to be read go to ``missing``, with the reason."""
        inputs: dict[int, Tensor] = {}
        for number in numbers:
            try:
                item = self.peeked.pop(number) if number in self.peeked else self.images[number]
            except UnreadableImage as error:
                missing[number] = error.reason
            else:
                inputs[number] = item[0] if isinstance(item, tuple | list) else item
        return inputs

    def _record(self, inputs: Mapping[int, Tensor], layers: Collection[str]) -> Tape:
        batch = torch.stack(list(inputs.values())).to(*place_of(self.net))       # (n, C, H, W)
        if batch.shape[1] not in (1, 3):
            raise UsageError(f"the images have {batch.shape[1]} channels, and a picture shows 1 or 3. Choose those to "
                             "show yourself: deconvnet.project(…).pixels[:, [2, 1, 0]]")

        def maps(images: Tensor) -> dict[str, Tensor]:
            tape = record_as_far_as(self.net, images, *layers)
            return {layer: tape.maps(layer) for layer in layers}

        with FastContrast():
            self.format = self.format or best_format(maps, batch[:1])
            return record_as_far_as(self.net, batch.contiguous(memory_format=self.format), *layers)

    def _tiles(self, entries: Mapping[int, Sequence[_Entry]], missing: dict[int, str]) -> list[_Tile]:
        """The tiles of some entries, by their image; the images that cannot be read go to ``missing``."""
        inputs = self._read(list(entries), missing)
        if not inputs:
            return []
        rows = {number: row for row, number in enumerate(inputs)}
        by_layer = defaultdict(list)
        for entry in (entry for number in inputs for entry in entries[number]):
            by_layer[entry.layer].append(entry)
        tape = self._record(inputs, by_layer)
        shown = self.inverse(torch.stack(list(inputs.values())))                 # (n, H, W, 3)
        tiles = []
        for layer, ours in by_layer.items():
            for part, (p, ways) in self._projected(tape, layer, ours, rows):
                self._compare(part, p.values.tolist())
                signed = p.pixels.float().cpu().expand(-1, 3, -1, -1).numpy()    # (e, 3, h, w); grey is repeated
                for entry, pixels, origin, way in zip(part, signed, p.origin.cpu().numpy(), ways, strict=True):
                    patch = cut(shown[rows[entry.image]], origin, pixels.shape[1:])
                    tiles.append(_Tile(entry, pixels, patch, origin, way))
        return tiles

    def _projected(self, tape: Tape, layer: str, entries: Sequence[_Entry], rows: dict[int, int]
                   ) -> Iterator[tuple[list[_Entry], tuple[Projection, list[list[Stage]]]]]:
        """The projections of the entries, and of those whose way down is asked for also the stages."""
        def units(part: list[_Entry]) -> list[tuple[int, int, int, int]]:
            return [(rows[e.image], e.unit, e.y, e.x) for e in part]

        height, width = tape.maps(layer).shape[2:]
        if any(entry.y >= height or entry.x >= width for entry in entries):
            raise DeconvnetError(f"The maps of {layer} are {height}×{width}, and those of the scan were larger: give "
                                 "the images as they were scanned, with the same preprocess")
        noted = [entry for entry in entries if entry.strongest and self.descent]
        plain = [entry for entry in entries if not (entry.strongest and self.descent)]
        if plain:
            p = project(tape, layer, units(plain), method=self.method, unpool=self.unpool)
            yield plain, (p, [[] for _ in plain])
        if noted:
            p, ways = descend(tape, layer, units(noted), before_relu=False,
                              keep=lambda stages, unit: chosen_only(stages, unit, self.descent))
            if (self.method, self.unpool) != ("deconvnet", "switches"):
                p = project(tape, layer, units(noted), method=self.method, unpool=self.unpool)
            yield noted, (p, ways)

    def _compare(self, entries: Sequence[_Entry], values: Sequence[float]) -> None:
        largest = float(self.top[entries[0].layer].maximum.max())  # what rounding is relative to, in weak ones too
        for entry, value in zip(entries, values, strict=True):
            if abs(value - entry.value) > self.tolerance * max(entry.value, 0.01 * largest):
                raise DeconvnetError(
                    f"{entry.layer}:{entry.unit} is {value:.6g} at ({entry.y}, {entry.x}) of "
                    f"{self._name(entry.image)}, and the scan found {entry.value:.6g}: the images, their "
                    "preprocessing or the weights are not those of the scan. Scan again, or give those that were "
                    "scanned")

    def _name(self, image: int) -> str:
        return self.top.files[image] if self.top.files else f"image {image}"

    def _galleries(self, group: Sequence[Address], entries: Sequence[_Entry], tiles: Sequence[_Tile],
                   missing: dict[int, str]) -> Iterator[Gallery]:
        """Puts the tiles in the order of the entries, unit by unit."""
        made = {tile.entry: tile for tile in tiles}
        sizes = {tile.entry.layer: tile.patch.shape[:2] for tile in tiles}
        by_slot = defaultdict(list)
        for entry in entries:
            by_slot[entry.slot].append(entry)
        for slot, (layer, unit) in enumerate(group):
            height, width = sizes.get(layer, (1, 1))
            mine = by_slot[slot]
            ours = [made[entry] for entry in mine if entry in made]
            shown = [tile.entry for tile in ours]
            yield Gallery(
                layer, unit,
                values=np.array([entry.value for entry in shown], dtype=np.float32),
                images=np.array([entry.image for entry in shown], dtype=np.int64),
                positions=np.array([(entry.y, entry.x) for entry in shown], dtype=np.int64).reshape(-1, 2),
                files=[self._name(entry.image) for entry in shown],
                origins=np.array([tile.origin for tile in ours], dtype=np.int64).reshape(-1, 2),
                reconstructions=np.array([t.reconstruction for t in ours], np.float32).reshape(-1, 3, height, width),
                patches=np.array([tile.patch for tile in ours], dtype=np.uint8).reshape(-1, height, width, 3),
                missing=[(self._name(entry.image), missing[entry.image]) for entry in mine if entry not in made],
                descent=next((tile.way for tile in ours if tile.way), []),
                name=self.names[layer][unit] if self.names.get(layer) else "",
            )


def _check_images(top: Scan, images: Any) -> None:
    """Refuse images that are not those of the scan, as far as their number and names tell."""
    if not hasattr(images, "__getitem__") or not hasattr(images, "__len__"):
        raise UsageError("a gallery needs images by number: a tensor (N, 3, H, W) or a Dataset, not an iterable")
    if top.files and list(getattr(images, "files", top.files)) != top.files:
        raise DeconvnetError(f"the {len(images)} images are not those of the scan, which had {len(top.files)}: the "
                             "names differ. Scan again, or give the images that were scanned")
    last = max((int(found.images.max()) for found in top.values() if found.images.numel()), default=-1)
    if last >= len(images):
        raise DeconvnetError(f"the scan knows image {last}, and there are only {len(images)} images: give the images "
                             "that were scanned")
