"""What the pages say of layers and units, as plain data: it is kept in the atlas, so that pages can be made again."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..descent import Stage
from ..gallery import Gallery
from ..layout import printable
from ..receptive import Field
from ..scanned import LayerScan, Scan

Facts = dict[str, Any]

BINS = 24        # of the histogram of a unit's activations
CLASSES = 6      # that excite a unit most are named
NEIGHBOURS = 6   # units that answer to the same images
LITTLE = 0.1     # a correlation below this is no likeness


def layer_facts(top: Scan, layer: str, size: tuple[int, int], field: Field) -> Facts:
    """What is known of a layer, whose map is of ``size``, but for its pictures."""
    found = top[layer]
    return {
        "name": printable(layer),
        "units": len(found.fired),
        "map": list(size),
        "field": {"size": list(field.size), "stride": list(field.stride), "start": list(field.start)},
        "dead": len(found.dead),
        "always": len(found.always),
        "sample": len(found.sample.images),
        "strongest": float(found.maximum.max()),
        "selectivity": float(found.selectivity[found.fired > 0].mean()) if (found.fired > 0).any() else 0.0,
        "images": found.count,
    }


def unit_facts(top: Scan, layer: str) -> list[Facts]:
    """What the scan knows of every unit of a layer."""
    found = top[layer]
    dead, always = set(found.dead.tolist()), set(found.always.tolist())
    classes, neighbours = _classes(found), _neighbours(found)
    return [{
        "unit": unit,
        "state": "dead" if unit in dead else "always" if unit in always else "",
        "strongest": strongest, "fires": fires, "selectivity": selectivity, "preferred": preferred,
        "classes": classes[unit], "neighbours": neighbours[unit],
        "bins": _bins(found.sample.maxima[:, unit].double(), float(found.maximum[unit])),
    } for unit, (strongest, fires, selectivity, preferred) in enumerate(zip(
        _short(found.maximum), _short(found.fires), _short(found.selectivity), found.preferred.tolist(), strict=True))]


def tile_facts(one: Gallery) -> Facts:
    """What is known of the nine: value, image, (y, x) on the map, top-left pixel; and the way down of the strongest."""
    return {
        "values": [_rounded(value) for value in one.values.tolist()],
        "images": one.images.tolist(),
        "files": [printable(name) for name in one.files],
        "positions": one.positions.tolist(),
        "origins": one.origins.tolist(),
        "missing": [[printable(name), printable(reason)] for name, reason in one.missing],
        "steps": [_step_facts(stage) for stage in one.descent],
    }


def _step_facts(stage: Stage) -> Facts:
    return {"step": stage.step, "module": printable(stage.module), "how": stage.how, "passed": list(stage.passed),
            "window": list(stage.signal.shape[1:]), "size": list(stage.size), "maps": list(stage.chosen),
            "of": stage.count, "switches": stage.switches is not None, "follows": stage.follows}


def _classes(found: LayerScan) -> list[list[list[float]]]:
    """For each unit the classes that excite it most: label, and mean of the strongest activation in their images."""
    means = found.class_means                                                    # (classes, U)
    if not len(means):
        return [[] for _ in found.fired]
    values, labels = means.T.sort(descending=True, stable=True)                  # (U, classes)
    return [[[label, _rounded(value)] for label, value in zip(*row, strict=True) if value > 0]
            for row in zip(labels[:, :CLASSES].tolist(), values[:, :CLASSES].tolist(), strict=True)]


def _neighbours(found: LayerScan) -> list[list[list[float]]]:
    """For each unit those whose activations go along with its own: unit, and correlation over the sample of images."""
    likeness = found.sample.likeness()                                           # (U, U)
    likeness.fill_diagonal_(-1)
    values, units = likeness.sort(descending=True, stable=True)
    return [[[unit, round(value, 2)] for unit, value in zip(*row, strict=True) if value >= LITTLE]
            for row in zip(units[:, :NEIGHBOURS].tolist(), values[:, :NEIGHBOURS].tolist(), strict=True)]


def _bins(maxima: Tensor, strongest: float) -> list[int]:
    """How many images of the sample have their maximum in each of 24 steps from 0 to the strongest; not those at 0."""
    if strongest <= 0:
        return []
    return torch.histc(maxima[maxima > 0], BINS, 0, strongest).long().tolist()


def _short(values: Tensor) -> Sequence[float]:
    return [_rounded(value) for value in values.tolist()]


def _rounded(value: float) -> float:
    """Four digits: more are not shown, and the atlas is to be small."""
    return float(f"{value:.4g}")
