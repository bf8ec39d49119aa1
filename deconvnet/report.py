"""What a gallery leaves in its folder: sheets of layers and units, and the numbers behind them."""

import csv
import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from torch import nn

from .drawing import counted, drawn
from .errors import UsageError
from .files import made_folder, sweep, write_whole
from .gallery import Gallery
from .layout import Sheet, printable
from .models import MODELS
from .render import Contrast, figure_2, layer_sheet, unit_sheet
from .scanned import Scan
from .units import parse_units

PAPER_MAPS = (9, 16, 12, 10, 10)  # how many maps of layers 1 to 5 the paper's Figure 2 shows (48 and layer 1's 9)

MOST = 128  # units on one sheet; more would be neither seen nor held in memory
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}  # on Windows

Chosen = dict[str, list[int]]  # layer → its units


def choose_units(top: Scan, layers: Sequence[str] | None = None, units: str | None = None, count: int | None = None,
                 seed: int = 0) -> Chosen:
    """The units to draw, by layer: those that are named, or a random choice of those that fire, as in the paper.

    ``layers`` defaults to all that have maps; ``units`` is such as ``3,17,90-95`` (of every layer) or
    ``conv5:147,conv3:5-9``; ``count`` defaults to the paper's. Raises UsageError for what does not exist.
    """
    if count is not None and not 1 <= count <= MOST:
        raise UsageError(f"--random must be from 1 to {MOST}: {count}. --units may name any number.")
    if units and (count is not None or (":" in units and layers)):
        raise UsageError("--units says which units: leave out --random, and --layers too where --units names layers")
    if units and ":" in units:
        return _by_address(top, units)
    chosen: Chosen = {}
    paper = dict(zip(with_maps(top), PAPER_MAPS, strict=False))
    for layer in layers or with_maps(top):
        total = len(top[layer].fired)
        if units:
            chosen[layer] = parse_units(units, layer, total)
        else:
            firing = (top[layer].fired > 0).nonzero()[:, 0].tolist()
            wanted = count or paper.get(layer, PAPER_MAPS[-1])
            chosen[layer] = sorted(random.Random(seed).sample(firing, min(wanted, len(firing))))
    return chosen


@dataclass
class Sheets:
    """Draws galleries into a folder while they are made: a sheet for each layer, all on one page, one for each unit.

    Attributes:
        folder, net, origin: where to, the network, and where it all comes from.
        k: places for each unit.
        contrast, tile, zoom: see ``layer_sheet`` and ``unit_sheet``.
        noted: the ``numbers`` of each that was drawn.
        missing: (name, reason) of the images that could not be read any more.
        without: why a layer has no sheet, by its name.
    """

    folder: Path
    net: nn.Module
    origin: Mapping[str, Any]
    k: int
    contrast: Contrast = "unit"
    tile: int = 80
    zoom: int = 1
    noted: list[dict[str, Any]] = field(default_factory=list)
    missing: set[tuple[str, str]] = field(default_factory=set)
    without: dict[str, str] = field(default_factory=dict)

    def draw(self, made: Iterator[Gallery], chosen: Chosen, units: bool) -> None:
        """Draws the galleries of the chosen units, which come in this order; ``units``: also a sheet for each."""
        if units:
            sweep(made_folder(self.folder / "units"))
        pages: list[list[Gallery]] = []
        layers = self._layers(made, chosen, pages)
        write = partial(_write_unit, self.folder, origin=self.origin, k=self.k, contrast=self.contrast, zoom=self.zoom)
        written = drawn(write, layers, processes=True) if units else layers
        for _ in counted(written, sum(map(len, chosen.values())), "sheets"):
            pass
        if len(pages) == len(PAPER_MAPS) and all(pages):
            titles = [printable(f"Layer {n}: {shown[0].layer}") for n, shown in enumerate(pages, 1)]
            filters = first_filters(self.net, pages[0])
            page = figure_2(pages, filters, self.tile, self.k, self.contrast, titles)
            _write(self.folder, "figure2", page, self.origin)

    def _layers(self, made: Iterator[Gallery], chosen: Chosen, pages: list[list[Gallery]]) -> Iterator[Gallery]:
        """The galleries; after those of each layer its sheet is written, and what has room on one page goes there."""
        for layer, units in chosen.items():
            shown = []
            for one in islice(made, len(units)):
                shown += [one] if len(units) <= MOST else []
                self.noted.append(numbers(one))
                self.missing.update(one.missing)
                yield one
            if shown:
                title = printable(f"{layer}: {_caption(self.origin)}")
                filters = first_filters(self.net, shown)
                _write(self.folder, layer, layer_sheet(shown, self.tile, self.k, self.contrast, filters, title),
                       self.origin)
            else:
                self.without[layer] = (f"{len(units)} units, and one has room for {MOST}" if units else
                                       "no unit fires")
            pages.append(shown if len(self.noted) <= MOST else [])
        next(made, None)  # ends its progress bar


def _write_unit(folder: Path, one: Gallery, origin: Mapping[str, Any], k: int, contrast: Contrast, zoom: int) -> None:
    """Writes the sheet of one unit, as units/conv5_147."""
    sheet = unit_sheet(one, zoom, k, contrast, printable(_caption(origin)))
    _write(folder / "units", f"{one.layer}_{one.unit}", sheet, origin)


def write_numbers(folder: Path, top: Scan, noted: Sequence[Mapping[str, Any]], origin: Mapping[str, Any]) -> None:
    """Writes gallery.json, the numbers of what was drawn, and units.csv, what the scan knows of every unit."""
    text = json.dumps({"provenance": origin, "units": noted}, indent=1)
    write_whole(folder / "gallery.json", text.encode())
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["unit", "maximum", "fires", "state", "class", "selectivity"])
    for layer in top:
        writer.writerows(_unit_rows(top, layer))
    write_whole(folder / "units.csv", table.getvalue().encode("utf-8"))


def numbers(one: Gallery) -> dict[str, Any]:
    """A unit's name and activations: value, image, (y, x) on the map, half-open box [top left, bottom right] in pixels.
    """
    size = np.array(one.patches.shape[1:3])                                      # (2,)
    return {
        "unit": f"{one.layer}:{one.unit}",
        "name": one.name,
        "activations": one.values.tolist(),
        "images": one.files,
        "positions": one.positions.tolist(),
        "boxes": np.stack([one.origins, one.origins + size], axis=1).tolist(),   # (k, 2, 2)
        "missing": one.missing,
    }


def summarise(top: Scan) -> list[tuple[str, ...]]:
    """A row for each layer: name, units, dead ones, undiscriminating ones, the most class-selective ones."""
    return [(layer, str(len(found.fired)), _some(found.dead.tolist()), _some(found.always.tolist()),
             _most_selective(top, layer)) for layer, found in top.items()]


def file_name(name: str) -> str:
    """A name as any file system takes it, another one for each: what is not plain is escaped as in web addresses."""
    safe = quote(name, safe="", errors="surrogateescape").replace("~", "%7E")
    return f"~{safe}" if safe.partition(".")[0].lower() in _RESERVED else safe


def _by_address(top: Scan, units: str) -> Chosen:
    chosen: Chosen = {}
    for word in units.split(","):
        layer, colon, numbers = word.strip().rpartition(":")
        if not colon:
            raise UsageError(f"--units {units}: give a layer to each (conv5:147,conv3:5-9), or to none (3,17,90-95)")
        chosen.setdefault(layer, []).extend(parse_units(numbers, layer, len(top[layer].fired)))
    return {layer: list(dict.fromkeys(numbers)) for layer, numbers in chosen.items()}


def with_maps(top: Scan) -> list[str]:
    """The layers but the fully connected ones, all whose activations lie at (0, 0)."""
    flat = {layer for layer, found in top.items() if found.maximum.any() and not (found.positions > 0).any()}
    return [layer for layer in top if layer not in flat] or list(top)


def first_filters(net: nn.Module, shown: Sequence[Gallery]) -> np.ndarray | None:
    """The filters (units, 3, h, w), where a layer looks at pixels and so can be shown without a deconvnet."""
    module = dict(net.named_modules()).get(shown[0].layer)
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if module is not first or not isinstance(module, nn.Conv2d) or module.weight.shape[1] not in (1, 3):
        return None
    filters = module.weight.detach().cpu().expand(-1, 3, -1, -1).numpy()  # grey is repeated
    return filters[[one.unit for one in shown]]


def _write(folder: Path, name: str, sheet: Sheet, origin: Mapping[str, Any]) -> None:
    """The sheet as PNG and as PDF, each with where it comes from."""
    about, name = json.dumps(origin), file_name(name)
    write_whole(folder / f"{name}.png", sheet.png({"Software": "deconvnet", "Provenance": about}))
    write_whole(folder / f"{name}.pdf", sheet.pdf({"Title": name, "Subject": about}))


def network_name(origin: Mapping[str, Any]) -> str:
    """What a caption calls a network; of one's own, nobody here knows whether its weights are random."""
    ours = origin["model"] in MODELS or str(origin["model"]).startswith("torchvision:")
    weights = f" ({origin.get('weights') or 'random weights'})" if ours or origin.get("weights") else ""
    return f"{origin['model']}{weights}"


def _caption(origin: Mapping[str, Any]) -> str:
    settings = origin.get("gallery", {})
    how = {"method": "{}", "unpool": "unpooled to the {}", "contrast": "one scale for each {}"}
    usual = {"method": "deconvnet", "unpool": "switches", "contrast": "unit"}
    unusual = [words.format(settings[key]) for key, words in how.items() if settings.get(key, usual[key]) != usual[key]]
    return ", ".join([f"{network_name(origin)} on {origin['images']}", *unusual])


def _unit_rows(top: Scan, layer: str) -> list[tuple[Any, ...]]:
    found = top[layer]
    states = torch.zeros(len(found.fired), dtype=torch.int64)
    states[found.always], states[found.dead] = 1, 2
    names = ("", "undiscriminating", "dead")
    columns = zip(found.maximum.tolist(), found.fires.tolist(), states.tolist(), found.preferred.tolist(),
                  found.selectivity.tolist(), strict=True)
    return [(f"{layer}:{unit}", f"{maximum:.6g}", f"{fires:.4f}", names[state], _class(top, preferred), f"{value:.4f}")
            for unit, (maximum, fires, state, preferred, value) in enumerate(columns)]


def _class(top: Scan, label: int) -> str:
    return "" if label < 0 else printable(top.classes[label]) if label < len(top.classes) else str(label)


def _some(units: Sequence[int], most: int = 6) -> str:
    """How many, and the first few."""
    listed = ", ".join(map(str, units[:most])) + (", …" if len(units) > most else "")
    return f"{len(units)}: {listed}" if units else "0"


def _most_selective(top: Scan, layer: str, most: int = 3) -> str:
    found = top[layer]
    best = found.selectivity.argsort(descending=True)[:most].tolist()
    return ", ".join(f"{unit} {_class(top, int(found.preferred[unit]))} ({found.selectivity[unit]:.2f})"
                     for unit in best if found.selectivity[unit] > 0)
