"""The pages of an atlas, from what is kept in it: plain HTML that holds nothing but text, links and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from math import ceil
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

from ..files import write_whole
from .facts import Facts
from .labels import Labels
from .pictures import ACROSS, DOWN, MAP, MAPS
from .places import link
from .steps import sentence

STATIC = ("atlas.css", "atlas.js")


def environment() -> Environment:
    """Jinja for the pages: everything that is put into one is escaped, and a name that is not there is an error."""
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       loader=PackageLoader("deconvnet.atlas"))
    made.globals.update(link=link, sentence=sentence, across=ACROSS, down=DOWN, map=MAP, maps=MAPS, ceil=ceil)
    made.filters.update(short=short, percent=percent, by=by)
    return made


def short(value: float) -> str:
    """A number in three digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(share: float) -> str:
    """A share as a person says it."""
    return f"{100 * share:.0f} %" if not 0 < share < 0.01 else f"{100 * share:.1g} %"


def by(pair: Sequence[int]) -> str:
    """A size: 13 by 13 as 13×13."""
    return "×".join(map(str, pair))


@dataclass
class Site:
    """An atlas as its pages see it.

    Attributes:
        about: what atlas.json says.
        layers: what the units.json of each layer says, with its folder.
        labels: a teacher's words, by folder and unit.
        up: where the page that shows two networks side by side lies, seen from the atlas; empty where there is none.
    """

    about: Facts
    layers: list[Facts]
    labels: Mapping[str, Mapping[int, str]]
    both: str = ""

    def label(self, layer: Facts, unit: int) -> str:
        """The teacher's words for a unit, or none."""
        return self.labels.get(layer["folder"], {}).get(unit, "")

    def class_name(self, label: int) -> str:
        """The name of a class; its number where it has none."""
        return self.about["classes"][label] if label < len(self.about["classes"]) else str(label)

    def classes(self, layer: Facts) -> list[tuple[int, str]]:
        """The classes that some unit of a layer prefers, by name."""
        found = {unit["preferred"] for unit in layer["list"] if unit["preferred"] >= 0}
        return sorted(((label, self.class_name(label)) for label in found), key=lambda pair: pair[1])


def write(folder: Path, about: Facts, layers: Sequence[Facts], labels: Labels, progress: bool = False,
          both: str = "") -> None:
    """Writes every page of an atlas, and what they share."""
    places = list(about["folders"].items())
    whole = [facts | {"folder": place} for facts, (_, place) in zip(layers, places, strict=True)]
    site = Site(about, whole, {place: labels.get(layer, {}) for layer, place in places}, both)
    write_static(folder)
    made = environment()
    total = sum(len(layer["list"]) for layer in whole)
    with tqdm(total=total, desc="pages", unit=" units", disable=not progress) as bar:
        for layer in whole:
            page = made.get_template("unit.html")
            for unit in layer["list"]:
                text = page.render(site=site, root="../../", layer=layer, unit=unit)
                write_whole(folder / layer["folder"] / str(unit["unit"]) / "index.html", _encoded(text))
                bar.update()
            text = made.get_template("layer.html").render(site=site, root="../", layer=layer)
            write_whole(folder / layer["folder"] / "index.html", _encoded(text))
    write_whole(folder / "index.html", _encoded(made.get_template("overview.html").render(site=site, root="")))


def write_static(folder: Path) -> None:
    """Style and script, which all pages share."""
    (folder / "static").mkdir(exist_ok=True)
    for name in STATIC:
        content = resources("deconvnet.atlas").joinpath("static", name).read_bytes()
        write_whole(folder / "static" / name, content)


def _encoded(page: str) -> bytes:
    return page.encode("utf-8")
