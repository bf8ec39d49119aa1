"""Names from outside are text on every page, whatever they look like, and folders of the atlas, wherever they point."""

import copy
import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import checks
import pytest
import tiny
from dom import read
from hypothesis import example, given, settings
from hypothesis import strategies as st
from payloads import PAYLOADS, TRICKS, UNTEXT
from torch import nn

import deconvnet
from deconvnet.atlas import pages
from deconvnet.atlas.labels import check
from deconvnet.atlas.places import OWN, folders, link
from deconvnet.errors import UnreadableImage
from deconvnet.images import Images

PLAIN = "plainword"
NAMES = {"name", "key", "files", "missing", "module", "how", "command", "model", "weights", "images", "classes",
         "weights_sha256", "images_sha256", "deconvnet", "torch", "python", "numpy"}  # whose text is from outside


def renamed(value, word, key=""):
    """Data with every text that comes from outside replaced by a word."""
    if isinstance(value, dict):
        return {inner: renamed(item, word, inner) for inner, item in value.items()}
    if isinstance(value, list):
        return [f"{word}{n}" if key == "classes" and isinstance(item, str) else renamed(item, word, key)
                for n, item in enumerate(value)]
    return word if isinstance(value, str) and key in NAMES else value


@pytest.fixture(scope="module")
def known(small_atlas):
    """What the pages of the atlas are made from, of few units; one without images that can be read."""
    site = pages.load(small_atlas.folder)
    layers = []
    for layer in site.layers[:2]:
        few = copy.deepcopy(layer) | {"list": copy.deepcopy(layer["list"][:3])}
        few["units"] = len(few["list"])
        for unit in few["list"]:
            unit["missing"] = [["file", "reason"]]
            for key in ("values", "images", "files", "positions", "origins", "steps"):
                unit[key] = unit[key][:3]
        few["list"][2] |= {"values": [], "steps": []}
        layers.append(few)
    return site.about, layers


def render(folder, known, word):
    """The pages of an atlas, and of one beside it, whose names are all this word."""
    about, layers = renamed(known[0], word), [renamed(layer, word) for layer in known[1]]
    layers[1]["key"] += "2"
    for layer in layers:
        for unit in layer["list"]:
            (folder / layer["folder"] / str(unit["unit"])).mkdir(parents=True)
    labels = {layer["key"]: {0: word, 1: word} for layer in layers}
    site = pages.Site(about, layers, labels, "both/index.html", word)
    pages.write(folder, site)
    pages.write_both(folder, site, site)
    return {page.relative_to(folder).as_posix(): read(page) for page in folder.rglob("*.html")}


@pytest.fixture(scope="module")
def plain(known, tmp_path_factory):
    return render(tmp_path_factory.mktemp("plain"), known, PLAIN)


def differences(plain, hostile, word):
    """Where the elements of two pages differ in more than that one says the word where the other says the plain one."""
    if len(list(plain)) != len(list(hostile)):
        return [f"{len(list(hostile))} elements in place of {len(list(plain))}"]
    found = []
    for one, other in zip(plain, hostile, strict=True):
        wanted = {name: value and value.replace(PLAIN, word) for name, value in one.attributes.items()}
        texts = [[inner for inner in element.inside if isinstance(inner, str)] for element in (one, other)]
        if (one.tag, wanted) != (other.tag, other.attributes):
            found.append(f"<{other.tag} {other.attributes}>, not <{one.tag} {wanted}>")
        if "".join(texts[0]).replace(PLAIN, word) != "".join(texts[1]):
            found.append(f"{texts[1]}, not {texts[0]}")
    return found


def test_there_are_enough_payloads_and_they_are_everywhere(plain, known):
    assert len(set(PAYLOADS)) >= 25 and len(set(TRICKS)) >= 40
    text = renamed(known[0], PLAIN)
    assert text["name"] == text["provenance"]["command"] == PLAIN and text["classes"][4] == f"{PLAIN}4"
    unit = plain["conv2/1/index.html"]
    places = {"title": 2, "h1": 2, "nav": 2, "footer": 1, "aside": 1, "ol": 6}  # how often it is said in each
    for tag, times in places.items():
        assert len(re.findall(PLAIN, "".join(e.text for e in unit.all(tag)))) >= times, tag
    assert PLAIN in plain["both/index.html"].text and PLAIN in plain["conv2/2/index.html"].text
    assert plain["index.html"].one("dl", "facts", lambda e: "command" in e.text).text.count(PLAIN) >= 6


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_name_is_text_whatever_it_looks_like(known, plain, tmp_path, payload):
    hostile = render(tmp_path, known, payload)
    assert set(hostile) == set(plain)
    for name in plain:
        assert not differences(plain[name], hostile[name], payload), name


@pytest.mark.parametrize("payload", UNTEXT, ids=range(len(UNTEXT)))
def test_what_is_no_text_is_shown_escaped(known, plain, tmp_path, payload):
    word = payload.encode("utf-8", "backslashreplace").decode()
    for name, page in render(tmp_path, known, payload).items():
        assert not differences(plain[name], page, word), name


def test_the_comparison_bites(known, plain, tmp_path, monkeypatch):
    """With the escaping off, most payloads are more than text."""
    careless = pages.environment.__wrapped__()
    careless.autoescape = False
    monkeypatch.setattr(pages, "environment", lambda: careless)
    for number, payload in enumerate(['"><img src=x onerror=alert(1)>', "<b>bold</b>", "&quot;&lt;b&gt;"]):
        try:
            hostile = render(tmp_path / str(number), known, payload)
            found = [differences(plain[name], hostile[name], payload) for name in plain]
        except AssertionError:  # tags that do not fit into each other
            continue
        assert any(found)


# ---- from end to end ----


class Hostile(Images):
    """The images of the small atlas under names that anyone may have given them; one cannot be read any more."""

    def __init__(self, images, names, gone=None):
        self.preprocess, self.real, self.gone = images.preprocess, images, gone
        self.files = [names[n % len(names)] + f"/{n}" for n in range(len(images))]
        self.classes = [name.replace("\0", "") for name in names]
        self.labels = [n % len(names) for n in range(len(images))]

    def view(self, index):
        if index == self.gone:
            raise UnreadableImage(self.files[index], self.classes[0])
        return self.real.view(index)


class Odd(nn.Module):
    """A network whose layers have the names that they are given."""

    def __init__(self, names):
        super().__init__()
        small = tiny.Tiny()
        self.preprocess = small.preprocess
        self.names = [*names, "2", "3", "4"][:4]
        for name, layer in zip(self.names, list(small)[:4], strict=True):
            self.add_module(name, layer)
        self.eval()

    def forward(self, x):
        for name in self.names:
            x = self._modules[name](x)
        return x


def whole(root, images, names, layers, gone=None):
    """The atlas of a network and of images with these names, in ``root/out``."""
    net = Odd(layers)
    views = Hostile(images, names)
    origin = {key: names[0] for key in ("command", "model", "weights", "images", "weights_sha256", "images_sha256")}
    found = deconvnet.scan(net, views, layers=[layers[0], layers[3]], k=3, provenance=origin | {"versions": {}})
    views.gone = gone
    labels = check({f"{layers[0]}:1": names[0], f"{layers[3]}:2": "\n".join(names[:2])[:200]}, found, "labels.yaml")
    return tiny.make(root / "out", net, found, views, (layers[0], layers[3]), labels)


@pytest.fixture(scope="module")
def everyday(small_atlas, tmp_path_factory):
    names = [f"plain{n}" for n in range(len(PAYLOADS) + len(UNTEXT))]
    return whole(tmp_path_factory.mktemp("everyday"), small_atlas.images, names, ["conv1", "relu1", "pool1", "conv2"])


@pytest.mark.parametrize("first", range(0, len(PAYLOADS), 13))
def test_hostile_from_end_to_end(small_atlas, everyday, tmp_path, first):
    """Through scan, facts and pages: the same elements as with everyday names, in folders below the output's."""
    names = [*PAYLOADS[first:], *UNTEXT, *PAYLOADS[:first]]
    layers = [name.replace(".", "·") + "!" for name in names[:4]]
    folder = whole(tmp_path, small_atlas.images, names, layers)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    place = dict(zip(("conv1", "conv2"), folders([layers[0], layers[3]]).values(), strict=True))
    for page in everyday.rglob("*.html"):
        parts = page.relative_to(everyday).parts
        mine = folder.joinpath(place.get(parts[0], parts[0]), *parts[1:])
        assert read(mine).shape() == read(page).shape(), parts
        assert not checks.faults(folder, mine)
    shown = read(folder / place["conv1"] / "1" / "index.html")
    assert " ".join(names[0].split())[:200] in shown.one("h1").words


def test_the_reason_why_an_image_cannot_be_read_is_text(small_atlas, tmp_path):
    names = ["<b>gone</b>"] * 31
    layers = ["conv1", "relu1", "pool1", "conv2"]
    top = deconvnet.scan(Odd(layers), Hostile(small_atlas.images, names), layers=["conv2"], k=1)
    folder = whole(tmp_path, small_atlas.images, names, layers, gone=int(top["conv2"].images[0, 0]))
    text = "".join(page.read_text() for page in folder.rglob("*.html"))
    assert "&lt;b&gt;gone" in text and "<b>gone" not in text


# ---- paths ----


def test_each_layer_has_a_folder_of_its_own_that_any_system_can_make():
    unique = list(dict.fromkeys(TRICKS))
    places = folders(unique)
    assert list(places) == unique and len(places) == len(unique) >= 40
    check_places(list(places.values()))
    for layer in unique:
        check_places([folders([layer])[layer]])


def check_places(places):
    reserved = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
    seen = set()
    for place in places:
        assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", place) and len(place) <= 200, place
        assert place[0] != "." and place[-1] not in ". " and place.partition(".")[0].lower() not in reserved, place
        same = unicodedata.normalize("NFKC", place).casefold()
        assert same not in seen and same not in OWN and f"{same}.html" not in OWN, place
        seen.add(same)
        assert unquote(link(place)) == place and "/" not in link(place)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.characters() | st.sampled_from("./\\:~% Aa0"), max_size=130), unique=True, max_size=6))
@example(["a" * 101, "A" * 101, "a" * 101 + "~"])
def test_any_names_have_folders_of_their_own(layers):
    check_places(folders(layers).values())


def test_path_tricks_leave_nothing_outside_the_folder(known, tmp_path):
    """Pages are written for layers of all these names; the folder above holds nothing new, each link leads there."""
    (tmp_path / "before").write_text("x")
    about, (layer, _) = known
    places = folders(list(dict.fromkeys(TRICKS)))
    layers = [layer | {"folder": place, "key": name, "name": name, "list": layer["list"][:1], "units": 1}
              for name, place in places.items()]
    out = tmp_path / "out"
    for place in places.values():
        (out / place / "0").mkdir(parents=True)
    site = pages.Site(about, layers, {})
    pages.write(out, site)
    (out / "beside" / "0").mkdir(parents=True)
    pages.write_both(out, site, site)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "out"]
    assert {path.name for path in out.iterdir()} == {*places.values(), "index.html", "static", "both", "beside"}
    links = {a["href"] for row in read(out / "index.html").one("table", "layers").all("th") for a in row.all("a")}
    assert {Path(os.path.normpath(out / unquote(address))) for address in links} == {
        out / place / "index.html" for place in places.values()}
    assert len(list((out / "both").iterdir())) == len(places) + 1


def test_images_and_weights_with_paths_for_names_write_no_file_of_that_name(small_atlas, tmp_path):
    layers = ["conv1", "relu1", "pool1", "conv2"]
    folder = whole(tmp_path / "deep" / "er", small_atlas.images, [*TRICKS[:31]], layers)
    ours = {"atlas.json", "index.html", "static", "images", "conv1", "conv2"}
    assert {path.name for path in folder.iterdir()} == ours
    assert all(re.fullmatch(r"\d+\.webp", path.name) for path in (folder / "images").iterdir())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["er"]
