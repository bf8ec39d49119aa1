"""Figure 5: how far features move, and what becomes of the class, as images are shifted, enlarged and turned."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from ..errors import UsageError
from ..exhibit import Exhibit
from ..images import GREY, Photographs, Preprocess
from ..layout import printable
from ..network import Network
from ..subject import Opened, Subject
from .panels import LARGE, SMALL, blank, panel, picture, words
from .responses import addresses, batched, respond
from .shown import Shown, choose, class_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of the photographs that ship, those views that the network takes for what they show; a cat, for want of a class of
# cats, is followed as the cougar's face that the network takes it for, and the rocket has no class at all.
DEFAULT: dict[str, str | int | None] = {
    "chelsea@0.75+000+056": "cougar_face", "coffee@0.56+000+056": "cup", "motorcycle@0.90+149+147": "Motorbikes",
    "camera@0.88+075+075": "camera", "rocket@0.52+000+056": None}
BATCH = 16
Outside = Literal["grey", "edge", "reflect"]
Kind = Literal["translation", "scale", "rotation"]
AXES: dict[Kind, str] = {"translation": "vertical translation (pixels)", "scale": "scale (ratio)",
                         "rotation": "rotation (degrees)"}


class Settings(Subject):
    """Which images, how they are changed, and whose features are compared."""

    images: Annotated[str, Field(min_length=1, description="as deconvnet scan --images")] = "builtin:photographs"
    shown: Annotated[dict[str, str | int | None], Field(
        description="image: its class among the network's, null for that of its folder; the default is for "
                    "builtin:photographs, and of other images so many random ones are shown")] = DEFAULT
    count: Annotated[int, Field(ge=1, le=10, description="how many random ones; the paper shows 5")] = 5
    seed: Annotated[int, Field(ge=0, description="of the random choice")] = 0
    layers: Annotated[tuple[str, str], Field(description="the two whose features are compared")] = ("conv1", "fc7")
    translation: Annotated[int, Field(ge=1, description="pixels that the images move up and down, at most")] = 60
    translations: Annotated[int, Field(ge=3, le=1000, description="how many steps from up to down")] = 31
    scale: Annotated[float, Field(gt=1, le=20, description="the largest ratio; it begins with 1")] = 1.8
    scales: Annotated[int, Field(ge=2, le=1000, description="how many ratios")] = 17
    rotation: Annotated[float, Field(gt=0, le=360, description="the largest angle, in degrees, counterclockwise")] = 350
    rotations: Annotated[int, Field(ge=2, le=1000, description="how many angles from 0 on")] = 36
    outside: Annotated[Outside, Field(description="what stands where the image does not reach: mid-grey, its last row "
                                                  "or column of pixels, or its mirror image")] = "grey"


@dataclass(frozen=True, eq=False)
class Sweep:
    """One kind of change, over a range; a row of the figure.

    Attributes:
        kind: translation, scale or rotation.
        values: (t,) pixels downwards, ratio, or degrees counterclockwise.
        distances: for each of two layers, (images, t), the Euclidean distance of the features from the original's.
        norms: for each layer, (images,), the Euclidean norm of the original's features.
        probability: (images, t) of the true class, NaN where an image has none.
        examples: (examples, images, h, w, 3) uint8.
        example_values: (examples,) their values.
    """

    kind: Kind
    values: np.ndarray
    distances: tuple[np.ndarray, np.ndarray]
    norms: tuple[np.ndarray, np.ndarray]
    probability: np.ndarray
    examples: np.ndarray
    example_values: np.ndarray

    def relative(self) -> tuple[np.ndarray, np.ndarray]:
        """The distances divided by the norms; NaN where the original has no features at all."""
        with np.errstate(invalid="ignore", divide="ignore"):
            one, two = (np.where(norm[:, None] > 0, distance / norm[:, None], np.nan)
                        for distance, norm in zip(self.distances, self.norms, strict=True))
        return one, two


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure, after a forward pass for each value of each change of each image."""
    opened = settings.open("figure 5")
    shown, notes = choose(opened.net, opened.images, settings.shown, DEFAULT, settings.count, settings.seed)
    side = shown[0].pixels.shape[0]
    if settings.translation >= side:
        raise UsageError(f"translation: {settings.translation} pixels would move all of the {side} out of the picture")
    layers = addresses(opened.net, shown[0].input, settings.layers)
    sweeps = [sweep(opened.net, shown, kind, values, layers, settings.outside, progress)
              for kind, values in ranges(settings).items()]
    names = [printable(one.title) for one in shown]
    data = {"images": [one.name for one in shown], "classes": _classes(opened.net, shown), "layers": layers,
            "changes": [_numbers(one) for one in sweeps]}
    return Exhibit(draw(sweeps, names, layers), data, _caption(opened, settings, shown, notes), opened.origin,
                   pages={"relative": draw(sweeps, names, layers, relative=True)})


def ranges(settings: Settings) -> dict[Kind, np.ndarray]:
    """The values of each change, in the order of the rows."""
    return {"translation": np.linspace(-settings.translation, settings.translation, settings.translations),
            "scale": np.linspace(1, settings.scale, settings.scales),
            "rotation": np.linspace(0, settings.rotation, settings.rotations)}


# ---- what is measured ----


def change(pixels: np.ndarray, kind: Kind, value: float, outside: Outside = "grey") -> np.ndarray:
    """The pixels (H, W, 3) uint8 moved down by ``value`` pixels, enlarged ``value`` times, or turned by degrees.

    Enlarged and turned about the middle, bicubic; what falls outside is lost. A move by whole pixels, a ratio of 1 and
    turns by right angles leave every pixel that stays as it was.
    """
    height, width = pixels.shape[:2]
    border = max(height, width)  # enough for any turn, and for any move that leaves something
    if outside == "grey":
        wide = np.pad(pixels, ((border, border), (border, border), (0, 0)), constant_values=GREY)
    else:
        mode: Any = {"edge": "edge", "reflect": "symmetric"}[outside]
        wide = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode=mode)
    coefficients = _backwards(kind, value, (height, width), border)
    moved = Image.fromarray(wide).transform((width, height), Image.Transform.AFFINE, coefficients,
                                            Image.Resampling.BICUBIC)
    return np.asarray(moved)


def _backwards(kind: Kind, value: float, size: tuple[int, int], border: int) -> tuple[float, ...]:
    """(a, b, c, d, e, f) of Pillow's affine map, from the middle of a pixel to where it comes from."""
    middle_y, middle_x = size[0] / 2, size[1] / 2
    if kind == "translation":
        return 1, 0, border, 0, 1, border - value
    angle, ratio = (np.deg2rad(value), 1.0) if kind == "rotation" else (0.0, value)
    cosine, sine = np.cos(angle) / ratio, np.sin(angle) / ratio
    if kind == "rotation" and value % 90 == 0:  # exactly, so that not a pixel is blurred by the last bit
        cosine, sine = round(cosine), round(sine)
    return (cosine, -sine, border + middle_x - cosine * middle_x + sine * middle_y,
            sine, cosine, border + middle_y - sine * middle_x - cosine * middle_y)


def sweep(net: Network, shown: Sequence[Shown], kind: Kind, values: np.ndarray, layers: Sequence[str],
          outside: Outside = "grey", progress: bool = False, batch_size: int = BATCH) -> Sweep:
    """What one kind of change does to features and probabilities. ``layers`` are full addresses of two."""
    found = [_one(net, one, kind, values, layers, outside, batch_size)
             for one in tqdm(shown, desc=kind, unit=" images", disable=not progress)]
    distances, norms, chances = zip(*found, strict=True)
    first, second = (np.stack([d[layer] for d in distances]) for layer in layers)
    norm1, norm2 = (np.array([n[layer] for n in norms]) for layer in layers)
    picked = values[np.linspace(0, len(values) - 1, 3 if kind == "translation" else 4).round().astype(int)]
    examples = np.stack([[change(one.pixels, kind, v, outside) for one in shown] for v in picked])
    return Sweep(kind, values, (first, second), (norm1, norm2), np.stack(chances), examples, picked)


def _one(net: Network, one: Shown, kind: Kind, values: np.ndarray, layers: Sequence[str], outside: Outside,
         batch_size: int) -> tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]:
    """Of one image: by layer the distances (t,) and the norm of the original, and the probability (t,) of its class."""
    plain = respond(net, [one.input[None]], dict.fromkeys(layers, _row)).kept    # each (1, features)
    keep = {layer: _distance_from(plain[layer]) for layer in layers}
    seen = respond(net, batched(_inputs(net.preprocess, one.pixels, kind, values, outside), batch_size), keep)
    chance = np.full(len(values), np.nan)
    if one.target is not None and seen.probabilities is not None:
        if one.target >= seen.probabilities.shape[1]:
            raise UsageError(f"there is no class {one.target}: the network puts out {seen.probabilities.shape[1]}")
        chance = seen.probabilities[:, one.target].double().numpy()
    norms = {layer: float(torch.linalg.vector_norm(plain[layer])) for layer in layers}
    return {layer: seen.kept[layer].double().numpy() for layer in layers}, norms, chance


def _inputs(preprocess: Preprocess, pixels: np.ndarray, kind: Kind, values: np.ndarray, outside: Outside
            ) -> Iterator[Tensor]:
    for value in values:
        yield preprocess.tensor(Image.fromarray(change(pixels, kind, float(value), outside)))


def _row(maps: Tensor) -> Tensor:
    return maps.flatten(1)


def _distance_from(plain: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda maps: torch.linalg.vector_norm(maps.flatten(1) - plain.to(maps), dim=1)


# ---- the drawing ----

TILE, PLOT, GAP, HEAD, FOOT, LEFT, STEP = 62, 260, 66, 34, 62, 66, 8  # pixels


def draw(sweeps: Sequence[Sweep], names: Sequence[str], layers: Sequence[str], relative: bool = False) -> "Figure":
    """The figure: a row for each change; examples, the distances in two layers, the probability of the true class.

    ``relative``: distances are divided by the norm of the original's features. Each image has the colour of its frame
    in all plots. The last column is left out where no image has a class.
    """
    with_class = any(np.isfinite(one.probability).any() for one in sweeps)
    tiles = len(names) * (TILE + STEP)
    heads = [f"{layer}: distance" + (" / ‖x₀‖" if relative else "") for layer in layers]
    heads += ["probability of the true class"] * with_class
    start = LEFT + tiles + GAP
    figure = blank(start + len(heads) * (PLOT + GAP) - GAP // 2, 12 + len(sweeps) * (HEAD + PLOT + FOOT) + 20)
    for place, one in enumerate(sweeps):
        y = HEAD + place * (HEAD + PLOT + FOOT)
        words(figure, 8, y - 26, f"({chr(97 + place)})", LARGE)
        _draw_examples(figure, one, y)
        curves = [*(one.relative() if relative else one.distances), *([one.probability] if with_class else [])]
        for column, (head, lines) in enumerate(zip(heads, curves, strict=True)):
            axes = panel(figure, (start + column * (PLOT + GAP), y, PLOT, PLOT))
            _draw_curves(axes, one, lines, head)
            axes.set_ylim(0, 1 if column == 2 else None)
    _draw_names(figure, names, 12 + len(sweeps) * (HEAD + PLOT + FOOT) - 14)
    return figure


def _draw_examples(figure: "Figure", one: Sweep, y: int) -> None:
    unit = {"translation": " px", "scale": "×", "rotation": "°"}[one.kind]
    words(figure, LEFT, y - 24, one.kind, LARGE)
    for row, (value, tiles) in enumerate(zip(one.example_values, one.examples, strict=True)):
        top = y + row * (PLOT // len(one.examples))
        words(figure, LEFT - 6, top + TILE / 2 - 8, f"{value:.3g}{unit}".replace("-", "−"), align="right")
        for column, tile in enumerate(tiles):
            picture(figure, (LEFT + column * (TILE + STEP), top, TILE, TILE), tile, _colour(column))


def _draw_curves(axes: "Axes", one: Sweep, lines: np.ndarray, head: str) -> None:
    for number, line in enumerate(lines):
        if np.isfinite(line).any():
            axes.plot(one.values, line, color=_colour(number), linewidth=1.2)
    axes.set_title(head, fontsize=LARGE, pad=5)
    axes.set_xlabel(AXES[one.kind], fontsize=SMALL, labelpad=2)
    axes.set_xlim(float(one.values[0]), float(one.values[-1]))
    axes.tick_params(labelsize=6, length=2, pad=2)
    axes.grid(linewidth=0.3, color="0.85")


def _draw_names(figure: "Figure", names: Sequence[str], y: float) -> None:
    width = figure.get_size_inches()[0] * 144
    step = (width - LEFT) / max(len(names), 1)
    for number, name in enumerate(names):
        panel(figure, (round(LEFT + number * step), round(y) + 4, 22, 6)).set(facecolor=_colour(number), xticks=[],
                                                                              yticks=[])
        words(figure, LEFT + number * step + 30, y, name if len(name) < 30 else name[:29] + "…")


def _colour(number: int) -> str:
    return f"C{number % 10}"


# ---- what is said ----


def _classes(net: Network, shown: Sequence[Shown]) -> list[str | None]:
    return [None if one.target is None else class_name(net, one.target) for one in shown]


def _numbers(one: Sweep) -> dict[str, Any]:
    def plain(values: np.ndarray) -> list[list[float | None]]:
        return [[None if np.isnan(value) else float(value) for value in row] for row in values]

    return {"kind": one.kind, "values": one.values.tolist(), "distances": [plain(d) for d in one.distances],
            "relative": [plain(d) for d in one.relative()], "norms": [n.tolist() for n in one.norms],
            "probability": plain(one.probability)}


_FILLED = {"grey": "filled with mid-grey (128)", "edge": "filled with the image's last row or column of pixels",
           "reflect": "filled with the image mirrored at its border"}


def _caption(opened: Opened, settings: Settings, shown: Sequence[Shown], notes: Sequence[str]) -> str:
    first, second = settings.layers
    names = ", ".join(printable(one.name) for one in shown)
    parts = [
        f"Figure 5 for {opened}: {names}, (a) moved by −{settings.translation} to {settings.translation} pixels "
        f"({settings.translations} steps; down is positive), (b) enlarged 1 to {settings.scale:g} times "
        f"({settings.scales} steps), (c) turned by 0 to {settings.rotation:g} degrees counterclockwise "
        f"({settings.rotations} steps). Columns: some of the changed images; the Euclidean distance of the features of "
        f"{first} and of {second}, activations after the ReLU, from those of the image as it is (x₀), and on the "
        "second page the same divided by ‖x₀‖; the probability of the true class. The change is made on what the "
        "network sees, about its middle, bicubic; where the image does not reach, the picture is "
        f"{_FILLED[settings.outside]}."]
    if settings.shown == DEFAULT and isinstance(opened.images, Photographs):
        parts.append("The images are views of scikit-image's photographs, the classes those that the network, trained "
                     "on Caltech-101, takes them for: the cat, of which it has no class, is followed as a cougar's "
                     "face.")
    parts.append("The paper says neither how far apart its steps are, nor what it fills with, nor the unit of its "
                 "distances; its networks and images are ImageNet's.")
    return " ".join([*parts, *notes])
