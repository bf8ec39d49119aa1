"""The command, from a scan to an atlas; and two networks side by side."""

import re
import shutil
from pathlib import Path

import checks
import pytest
import tiny
from dom import read

from deconvnet import processes, read_scan
from deconvnet.atlas import pages
from deconvnet.cli import main


@pytest.fixture(scope="module")
def other(small_atlas, tmp_path_factory):
    """A scan of the same network at two layers, of fewer images."""
    root = tmp_path_factory.mktemp("other")
    for path in sorted((small_atlas.folder.parent / "photographs").rglob("c*/*.png")):
        (root / path.parent.name).mkdir(exist_ok=True)
        (root / path.parent.name / path.name).write_bytes(path.read_bytes())
    images = tiny.open_images(root, small_atlas.net)
    tiny.scan(small_atlas.net, images, ("conv3", "conv2")).save(root.parent / "other.safetensors")
    return root.parent / "other.safetensors", root


def command(small_atlas, *words):
    root = small_atlas.folder.parent
    return main(["atlas", str(root / "top.safetensors"), "--model", f"{Path(tiny.__file__)}:Tiny",
                 "--images", str(root / "photographs"), *map(str, words)])


@pytest.fixture(scope="module")
def both(small_atlas, tmp_path_factory):
    """An atlas with the same scan beside it, which has the same images: the command asks for one folder of them."""
    out, labels = tmp_path_factory.mktemp("both") / "out", tmp_path_factory.mktemp("labels") / "labels.yaml"
    labels.write_text("\n".join(f"{layer}:{unit}: {text}" for layer, texts in tiny.LABELS.items()
                                for unit, text in texts.items()))
    top = small_atlas.folder.parent / "top.safetensors"
    assert command(small_atlas, "--out", out, "--labels", labels, "--beside", top, "--model2",
                   f"{Path(tiny.__file__)}:Tiny") == 0
    return out


def test_the_command_makes_the_same_atlas(small_atlas, both):
    """But for the links to what stands beside."""
    found = tiny.content(both)
    for name, content in tiny.content(small_atlas.folder).items():
        if name != "index.html":
            assert found.pop(name) == content, name
    left = {name for name in found if not name.startswith("beside/")}
    assert left == {"index.html", "both/index.html", *(f"both/{layer}.html" for layer in tiny.LAYERS)}


def test_that_pictures_are_drawn_is_told(small_atlas, tmp_path, monkeypatch, capsys):
    """Though all images have been gone through, and their bar is full."""
    monkeypatch.setattr(processes, "SLOW", 0)
    assert command(small_atlas, "--out", tmp_path / "out", "--layers", tiny.LAYERS[0]) == 0
    assert f"{tiny.LAYERS[0]}: pictures" in capsys.readouterr().err


def test_every_page_of_two_networks_leads_somewhere(both):
    found = {page: checks.faults(both, page) for page in checks.pages(both)}
    assert not {page: faults for page, faults in found.items() if faults}
    for page, address in (("index.html", "both/index.html"), ("beside/index.html", "../both/index.html")):
        assert address in {a["href"] for a in read(both / page).one("nav").all("a")}
    addresses = {a["href"] for a in read(both / "both" / "index.html").one("table").all("a")}
    assert addresses == {f"{layer}.html" for layer in tiny.LAYERS}


@pytest.mark.parametrize("layer", tiny.LAYERS)
def test_the_two_grids_of_a_pair_are_those_of_the_layers(small_atlas, both, layer):
    """Each tile shows the sprites of its own atlas and leads to its own unit."""
    own = read(both / layer / "index.html").one("ul", "grid").all("li")
    for base, grid in zip(("../", "../beside/"), read(both / "both" / f"{layer}.html").all("ul", "grid"), strict=True):
        for mine, li in zip(own, grid.all("li"), strict=True):
            facts = [{k: v for k, v in e.attributes.items() if k != "data-label"} for e in (mine, li)]
            assert facts[0] == facts[1]
            assert li.one("a")["href"] == f"{base}{layer}/{mine['data-n']}/index.html"
            assert [img["src"] for img in li.all("img")] == [f"{base}{layer}/{img['src']}" for img in mine.all("img")]


def test_the_table_holds_both(small_atlas, both):
    rows = {row.one("th").words: [cell.words for cell in row.all("td")]
            for row in read(both / "both" / "index.html").one("tbody").all("tr")}
    for row in read(both / "index.html").one("table", "layers").one("tbody").all("tr"):
        assert rows[row.one("th").words] == [f"{cell.words} · {cell.words}" for cell in row.all("td")]


def test_scans_of_other_images_are_said_not_to_be_comparable(small_atlas, other, tmp_path):
    out = tiny.make(tmp_path / "out", small_atlas.net, small_atlas.top, small_atlas.images)
    top = read_scan(other[0])
    tiny.make(out / "beside", small_atlas.net, top, tiny.open_images(other[1], small_atlas.net), ("conv3", "conv2"), {})
    pages.write_both(out, pages.load(out, tiny.LABELS), pages.load(out / "beside"))
    page = read(out / "both" / "index.html")
    assert "not the same" in page.one("main").words and "cannot be compared" in page.one("main").words
    assert {row.one("th").words for row in page.one("tbody").all("tr")} == {"conv2", "conv3"}  # those of both
    assert not [fault for name in (out / "both").iterdir() for fault in checks.faults(out, name)]


@pytest.mark.parametrize(("words", "code", "says"), [
    (["--layers", "conv9"], 2, "conv9"), (["--layers", "relu1"], 2, "relu1"),
    (["--labels", "gone.yaml"], 2, r"gone\.yaml: no such file"),
    (["--beside", "gone.safetensors"], 1, r"gone\.safetensors"), (["--layers", "conv1,conv1"], 0, "")])
def test_what_the_command_refuses(small_atlas, tmp_path, capsys, words, code, says):
    assert command(small_atlas, "--out", tmp_path / "out", *words) == code
    shown = capsys.readouterr()
    assert re.search(says, shown.err) and "Traceback" not in shown.err
    assert (tmp_path / "out").exists() is (code != 2)
    if code == 0:
        assert not [fault for page in checks.pages(tmp_path / "out") for fault in checks.faults(tmp_path / "out", page)]


def test_what_is_not_shown_or_not_renewed_is_said(small_atlas, both, tmp_path, capsys):
    """Labels of layers that the atlas leaves out; and pages of two networks, which need both scans."""
    out, labels = tmp_path / "out", tmp_path / "labels.yaml"
    shutil.copytree(both, out)
    labels.write_text("conv2:1: other words")
    assert command(small_atlas, "--out", out, "--labels", labels) == 0
    assert "give --beside again" in capsys.readouterr().out
    assert "other words" not in (out / "both" / "conv2.html").read_text(encoding="utf-8")
    assert 'href="both/index.html"' in (out / "index.html").read_text(encoding="utf-8"), "the way to them is lost"
    assert command(small_atlas, "--out", tmp_path / "few", "--labels", labels, "--layers", "conv1") == 0
    shown = capsys.readouterr().out
    assert "--beside" not in shown and "labels of layers that are not in this atlas: conv2" in shown


def test_the_command_refuses_a_folder_with_something_else_in_it(small_atlas, tmp_path, capsys):
    (tmp_path / "mine").write_text("x")
    assert command(small_atlas, "--out", tmp_path) == 2
    assert "is not empty, and not an atlas" in capsys.readouterr().err
    assert tiny.content(tmp_path) == {"mine": b"x"}
