"""What a gallery leaves in its folder: sheets of layers and units, and the numbers behind them."""

import csv
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import UsageError
from .files import write_whole
from .gallery import Gallery, parse_units
from .render import Contrast, Sheet, figure_2, layer_sheet, unit_sheet
from .scanned import Scan

PAPER_MAPS = (9, 16, 12, 10, 10)  # how many maps of layers 1 to 5 the paper's Figure 2 shows (48 and layer 1's 9)

Chosen = dict[str, list[int]]  # layer → its units


def choose_units(top: Scan, layers: Sequence[str] | None = None, units: str | None = None, count: int | None = None,
                 seed: int = 0) -> Chosen:
    """The units to draw, by layer: those that are named, or a random choice of those that fire, as in the paper.

    ``layers`` defaults to all that have maps; ``units`` is such as ``3,17,90-95`` (of every layer) or
    ``conv5:147,conv3:5-9``; ``count`` defaults to the paper's. Raises UsageError for what does not exist.
    """
    if units and ":" in units:
        return _by_address(top, units)
    chosen: Chosen = {}
    for number, layer in enumerate(layers or _with_maps(top)):
        total = len(top[layer].fired)
        if units:
            chosen[layer] = parse_units(units, total)
        else:
            firing = (top[layer].fired > 0).nonzero()[:, 0].tolist()
            wanted = PAPER_MAPS[number] if count is None and number < len(PAPER_MAPS) else count or PAPER_MAPS[-1]
            chosen[layer] = sorted(random.Random(seed).sample(firing, min(wanted, len(firing))))
    return chosen


def write_sheets(folder: Path, net: nn.Module, galleries: Mapping[str, Sequence[Gallery]], origin: Mapping[str, Any],
                 k: int, contrast: Contrast = "unit", tile: int = 80) -> None:
    """Writes a sheet for each layer, with k places per unit, and where there are five the paper's page as figure2."""
    filters = {layer: _filters(net, layer, shown) for layer, shown in galleries.items()}
    for layer, shown in galleries.items():
        if shown:
            sheet = layer_sheet(shown, tile, k, contrast, filters[layer], f"{layer}: {_caption(origin)}")
            _write(folder, layer, sheet, origin)
    pages = list(galleries.values())
    if len(pages) == len(PAPER_MAPS) and all(pages):
        titles = [f"Layer {n}: {layer}" for n, layer in enumerate(galleries, 1)]
        first = filters[next(iter(galleries))]
        _write(folder, "figure2", figure_2(pages, first, tile, k, contrast, titles), origin)


def write_unit_sheets(folder: Path, galleries: Mapping[str, Sequence[Gallery]], origin: Mapping[str, Any],
                      k: int, contrast: Contrast = "unit", zoom: int = 1) -> None:
    """Writes a sheet for each unit, as ``conv5_147``."""
    for layer, shown in galleries.items():
        for one in shown:
            _write(folder, f"{layer}_{one.unit}", unit_sheet(one, zoom, k, contrast), origin)


def write_numbers(folder: Path, top: Scan, galleries: Mapping[str, Sequence[Gallery]],
                  origin: Mapping[str, Any]) -> None:
    """Writes gallery.json, the activations that were drawn, and units.csv, what the scan knows of every unit."""
    drawn = [_numbers(one) for shown in galleries.values() for one in shown]
    text = json.dumps({"provenance": origin, "units": drawn}, indent=1)
    write_whole(folder / "gallery.json", text.encode())
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["unit", "maximum", "fires", "state", "class", "selectivity"])
    for layer in top:
        writer.writerows(_unit_rows(top, layer))
    write_whole(folder / "units.csv", table.getvalue().encode("utf-8", "replace"))


def summarise(top: Scan) -> list[tuple[str, ...]]:
    """A row for each layer: name, units, dead ones, those that fire for everything, the most class-selective ones."""
    return [(layer, str(len(found.fired)), _some(found.dead.tolist()), _some(found.always.tolist()),
             _most_selective(top, layer)) for layer, found in top.items()]


def _by_address(top: Scan, units: str) -> Chosen:
    chosen: Chosen = {}
    for word in units.split(","):
        layer, colon, numbers = word.strip().rpartition(":")
        if not colon:
            raise UsageError(f"--units {units}: give a layer to each (conv5:147,conv3:5-9), or to none (3,17,90-95)")
        chosen.setdefault(layer, []).extend(parse_units(numbers, len(top[layer].fired)))
    return chosen


def _with_maps(top: Scan) -> list[str]:
    """The layers that are no fully connected ones: some activation lies elsewhere than at (0, 0)."""
    return [layer for layer, found in top.items() if bool((found.positions > 0).any())] or list(top)


def _filters(net: nn.Module, layer: str, shown: Sequence[Gallery]) -> np.ndarray | None:
    """The filters (units, 3, h, w), where a layer looks at pixels and so can be shown without a deconvnet."""
    module = dict(net.named_modules()).get(layer)
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if module is not first or not isinstance(module, nn.Conv2d) or module.weight.shape[1] != 3:
        return None
    return module.weight.detach().cpu().numpy()[[one.unit for one in shown]]


def _write(folder: Path, name: str, sheet: Sheet, origin: Mapping[str, Any]) -> None:
    """The sheet as PNG and as PDF, each with where it comes from."""
    about = json.dumps(origin)
    name = name.replace("/", "_").replace("#", "_call")
    write_whole(folder / f"{name}.png", sheet.png({"Software": "deconvnet", "Provenance": about}))
    write_whole(folder / f"{name}.pdf", sheet.pdf({"Title": name, "Subject": about}))


def _caption(origin: Mapping[str, Any]) -> str:
    weights = f" ({origin['weights']})" if origin.get("weights") else ""
    return f"{origin['model']}{weights} on {origin['images']}"


def _numbers(one: Gallery) -> dict[str, Any]:
    """A unit's activations: value, image, (y, x) on the map, the half-open box [top left, bottom right] in pixels."""
    size = np.array(one.patches.shape[1:3])                                      # (2,)
    return {
        "unit": f"{one.layer}:{one.unit}",
        "activations": one.values.tolist(),
        "images": one.files,
        "positions": one.positions.tolist(),
        "boxes": np.stack([one.origins, one.origins + size], axis=1).tolist(),   # (k, 2, 2)
        "missing": one.missing,
    }


def _unit_rows(top: Scan, layer: str) -> list[tuple[Any, ...]]:
    found = top[layer]
    states = torch.zeros(len(found.fired), dtype=torch.int64)
    states[found.always], states[found.dead] = 1, 2
    names = ("", "fires for everything", "dead")
    columns = zip(found.maximum.tolist(), found.fires.tolist(), states.tolist(), found.preferred.tolist(),
                  found.selectivity.tolist(), strict=True)
    return [(f"{layer}:{unit}", f"{maximum:.6g}", f"{fires:.4f}", names[state], _class(top, preferred), f"{value:.4f}")
            for unit, (maximum, fires, state, preferred, value) in enumerate(columns)]


def _class(top: Scan, label: int) -> str:
    return "" if label < 0 else top.classes[label] if label < len(top.classes) else str(label)


def _some(units: Sequence[int], most: int = 6) -> str:
    """How many, and the first few."""
    listed = ", ".join(map(str, units[:most])) + (", …" if len(units) > most else "")
    return f"{len(units)}: {listed}" if units else "0"


def _most_selective(top: Scan, layer: str, most: int = 3) -> str:
    found = top[layer]
    best = found.selectivity.argsort(descending=True)[:most].tolist()
    return ", ".join(f"{unit} {_class(top, int(found.preferred[unit]))} ({found.selectivity[unit]:.2f})"
                     for unit in best if found.selectivity[unit] > 0)
