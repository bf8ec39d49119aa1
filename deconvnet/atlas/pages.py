"""The pages of an atlas, from what is kept in it: plain HTML that holds nothing but text, links and pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from math import ceil
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

from ..errors import DeconvnetError
from ..files import flush_all, made_folder, write_whole
from .facts import Facts
from .labels import Labels
from .pictures import ACROSS, DOWN, GAP, MAP, MAPS
from .places import link
from .steps import sentence

STATIC = ("atlas.css", "atlas.js")
FORMAT = 1  # of atlas.json and units.json


def environment() -> Environment:
    """Jinja for the pages: everything that is put into one is escaped, and a name that is not there is an error."""
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       loader=PackageLoader("deconvnet.atlas"))
    made.globals.update(link=link, pair_name=pair_name, sentence=sentence, ceil=ceil)
    made.globals.update(across=ACROSS, down=DOWN, map=MAP, maps=MAPS, gap=GAP)
    made.filters.update(short=short, percent=percent, by=by)
    return made


def short(value: float) -> str:
    """A number in three digits."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def percent(share: float) -> str:
    """A share as a person says it: none and all only where it is none and all."""
    if 0.99 < share < 1:
        return f"{min(100 * share, 99.9):.1f} %"
    return f"{100 * share:.1g} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def by(pair: Sequence[int]) -> str:
    """A size: 13 by 13 as 13×13."""
    return "×".join(map(str, pair))


@dataclass(frozen=True)
class Site:
    """An atlas as its pages see it.

    Attributes:
        about: what atlas.json says.
        layers: what the units.json of each layer says, with its folder.
        labels: a teacher's words, by layer and unit.
        both: where the page that shows another network beside lies, seen from the overview; empty where there is none.
        other: the name of that network.
    """

    about: Facts
    layers: list[Facts]
    labels: Labels
    both: str = ""
    other: str = ""

    def labels_of(self, layer: Facts) -> Mapping[int, str]:
        """The teacher's words for the units of a layer."""
        return self.labels.get(layer["key"], {})

    def label(self, layer: Facts, unit: int) -> str:
        """The teacher's words for a unit, and the class that it stands for, if there are any."""
        names = layer.get("names", [])  # none in an atlas of before
        name, words = names[unit] if unit < len(names) else "", self.labels_of(layer).get(unit, "")
        return f"{words} ({name})" if words and name else words or name

    @property
    def labelled(self) -> bool:
        """Whether any unit that is shown has a label."""
        return any(map(self.labels_of, self.layers))

    def class_name(self, label: int) -> str:
        """The name of a class; its number where it has none."""
        return self.about["classes"][label] if label < len(self.about["classes"]) else str(label)

    def classes(self, layer: Facts) -> list[str]:
        """The names of the classes that some unit of a layer prefers."""
        return sorted({self.class_name(unit["preferred"]) for unit in layer["list"] if unit["preferred"] >= 0})


def load(folder: Path, labels: Labels | None = None, both: str = "", other: str = "") -> Site:
    """The atlas whose pictures and facts lie in a folder. Raises DeconvnetError where they are damaged or of old."""
    about = read(folder / "atlas.json", "folders")
    if about.get("format") != FORMAT:
        raise DeconvnetError(f"{folder} holds an atlas of another version of deconvnet: delete it and make it again")
    layers = [read(folder / place / "units.json", "list") | {"folder": place, "key": layer}
              for layer, place in about["folders"].items()]
    return Site(about, layers, labels or {}, both, other)


def beside(folder: Path) -> tuple[str, str]:
    """Where the page of two networks lies in an atlas, and the name of the other; two empty words if there is none."""
    if not (folder / "both" / "index.html").exists():
        return "", ""
    return "both/index.html", read(folder / "beside" / "atlas.json", "name")["name"]


def read(path: Path, key: str) -> Facts:
    """The content of a file of an atlas, which has a certain key. Raises DeconvnetError where it is damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or key not in known:
            raise ValueError(f"no {key} in it")
    except (OSError, ValueError) as error:
        raise DeconvnetError(f"{path} cannot be read ({error}): delete the atlas and make it again") from error
    return known


def write(folder: Path, site: Site, progress: bool = False) -> None:
    """Writes every page of an atlas, and what they share."""
    made = environment()
    unit_page, layer_page = made.get_template("unit.html"), made.get_template("layer.html")
    write_static(folder)
    for layer in site.layers:
        place = folder / layer["folder"]
        for unit in tqdm(layer["list"], f"pages of {layer['name']}", unit=" units", disable=not progress):
            page = unit_page.render(site=site, root="../../", layer=layer, unit=unit)
            write_whole(place / str(unit["unit"]) / "index.html", encoded(page), flush=False)
        write_whole(place / "index.html", encoded(layer_page.render(site=site, root="../", layer=layer)),
                    flush=False)
    flush_all(folder)
    write_whole(folder / "index.html", encoded(made.get_template("overview.html").render(site=site, root="")))


def encoded(page: str) -> bytes:
    """A page as bytes; what is no text in it, such as half a pair of surrogates, is escaped."""
    return page.encode("utf-8", "backslashreplace")


def write_both(folder: Path, left: Site, right: Site) -> None:
    """Writes the pages that show two networks side by side: an overview, and one for each pair of layers.

    The atlas on the left lies in ``folder``, the one on the right in its subfolder ``beside``.
    """
    place = made_folder(folder / "both")
    pairs = pairs_of(left.layers, right.layers)
    page, overview = environment().get_template("pair.html"), environment().get_template("both.html")
    sides = ((left, "../"), (right, "../beside/"))
    for number, pair in enumerate(pairs):
        text = page.render(site=left, sides=sides, pairs=pairs, number=number, pair=pair, root="../")
        write_whole(place / pair_name(pair), encoded(text))
    text = overview.render(site=left, sides=sides, pairs=pairs, root="../")
    write_whole(place / "index.html", encoded(text))


def pairs_of(left: Sequence[Facts], right: Sequence[Facts]) -> list[tuple[Facts, Facts]]:
    """Which layer of two networks stands beside which: those of one name, or where there are none, in their order."""
    named = {layer["key"]: layer for layer in right}
    alike = [(layer, named[layer["key"]]) for layer in left if layer["key"] in named]
    return alike or list(zip(left, right, strict=False))


def pair_name(pair: tuple[Facts, Facts]) -> str:
    """The file of the page of two layers."""
    return f"{pair[0]['folder']}.html"


def write_static(folder: Path) -> None:
    """Style and script, which all pages share."""
    place = made_folder(folder / "static")
    for name in STATIC:
        content = resources("deconvnet.atlas").joinpath("static", name).read_bytes()
        write_whole(place / name, content)
