"""The built-in photographs, which scikit-image bundles: thousands of overlapping views of them."""

import importlib.util
from collections.abc import Iterator
from functools import cached_property
from math import ceil
from pathlib import Path

from PIL import Image

from .decoding import FORMATS, read_image
from .errors import DeconvnetError, UsageError
from .pictures import Images, manifest_of
from .preprocess import Preprocess, window

# What scikit-image bundles and a camera took; its drawings, and the near-double motorcycle_right, are left out.
PHOTOGRAPHS = {
    "astronaut": "astronaut.png", "chelsea": "chelsea.png", "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png", "rocket": "rocket.jpg", "camera": "camera.png", "coins": "coins.png",
    "brick": "brick.png", "grass": "grass.png", "gravel": "gravel.png", "page": "page.png", "text": "text.png",
    "moon": "moon.png", "hubble": "hubble_deep_field.jpg", "retina": "retina.jpg", "ihc": "ihc.png",
}
WINDOW = 224  # the side of a view, in pixels of the photograph after scaling
SPANS = (1, 2, 3, 4)  # a photograph is scaled until its short side is so many views long,
ENLARGEMENT = 2.25  # but enlarged no further than this: it would only be blurred


class Photographs(Images):
    """``builtin:photographs``: sixteen photographs that scikit-image bundles, as thousands of overlapping views.

    A view is a square of 224 pixels of a photograph that was scaled until its short side is 1, 2, 3 or 4 views long.
    It is called ``astronaut@0.44+112+056`` where it lies 112 pixels down and 56 right on the astronaut at 0.44 of its
    size; its class is its photograph. The views of one scale cover the photograph, neighbours sharing at least the part
    ``overlap`` (0 ≤ overlap < 1) of their side: 0.65 gives 2,558 views, 0 gives 472 that share little. Preprocess
    gives the size in pixels (224 is the view as it is), mean and std; its resize is not used. Read from the installed
    package, offline.
    """

    def __init__(self, preprocess: Preprocess, overlap: float = 0.65) -> None:
        if not 0 <= overlap < 1:
            raise UsageError(f"overlap must be at least 0 and below 1: {overlap}")
        self.preprocess = preprocess
        self.classes = list(PHOTOGRAPHS)
        self._pictures: dict[str, Image.Image] = {}  # decoded when first asked for; 16 MB for all
        self._views = [view for name in PHOTOGRAPHS for view in _views(name, overlap)]
        self.files = [f"{name}@{scale:.2f}+{y:03d}+{x:03d}" for name, scale, y, x in self._views]
        self.labels = [self.classes.index(name) for name, *_ in self._views]

    def view(self, index: int) -> Image.Image:
        """What the network sees of one view, as a PIL picture."""
        name, scale, y, x = self._views[index]
        box = (x / scale, y / scale, (x + WINDOW) / scale, (y + WINDOW) / scale)
        return self.preprocess.seen(window(self.photograph(name), box, self.preprocess.size))

    def photograph(self, name: str) -> Image.Image:
        """The whole photograph that one of the ``classes`` is called by, as a PIL picture."""
        if name not in self._pictures:
            self._pictures[name] = read_image(_bundled(name), PHOTOGRAPHS[name])
        return self._pictures[name]

    @cached_property
    def manifest(self) -> str:
        """SHA-256 (hex) over the names of all views and the sizes in bytes of their photographs."""
        sizes = {name: _bundled(name).stat().st_size for name in PHOTOGRAPHS}
        return manifest_of((file, sizes[name]) for file, (name, *_) in zip(self.files, self._views, strict=True))


def _bundled(name: str) -> Path:
    """Where the installed scikit-image keeps a photograph; found without importing it, and without its downloads."""
    spec = importlib.util.find_spec("skimage")
    folders = spec.submodule_search_locations if spec else None
    path = Path((folders or ["."])[0], "data", PHOTOGRAPHS[name])
    if not path.is_file():
        raise DeconvnetError(f"scikit-image has no {PHOTOGRAPHS[name]} in its data folder; reinstall scikit-image")
    return path


def _views(name: str, overlap: float) -> Iterator[tuple[str, float, int, int]]:
    """(photograph, scale, y, x) of its views, smallest scale first."""
    with Image.open(_bundled(name), formats=FORMATS) as image:  # the header only
        width, height = image.size
    for scale in (span * WINDOW / min(width, height) for span in SPANS):
        if scale > ENLARGEMENT:
            return
        rows, columns = (_places(round(side * scale), overlap) for side in (height, width))
        yield from ((name, scale, y, x) for y in rows for x in columns)


def _places(length: int, overlap: float) -> list[int]:
    """Where the windows begin along a side: evenly from end to end, none where the side is too short."""
    room = length - WINDOW
    if room < 0:
        return []
    steps = ceil(room / (WINDOW * (1 - overlap)))
    return [round(step * room / max(steps, 1)) for step in range(steps + 1)]


BUILTIN = {"builtin:photographs": 0.65, "builtin:photographs-apart": 0.0}  # name → overlap of neighbouring views
