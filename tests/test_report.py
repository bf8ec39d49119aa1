"""What a gallery leaves in its folder: names that any file system takes, and choices of units."""

import numpy as np
import pytest
import torch
from torch import nn

from deconvnet import processes, report
from deconvnet.errors import UsageError
from deconvnet.gallery import Gallery
from deconvnet.layout import printable
from deconvnet.sample import Sample
from deconvnet.scanned import LayerScan, Scan
from deconvnet.topk import TopK

NAMES = ["conv1", "a/b", "a_b", "a b", "a:b?", "layer1.0.relu#1", "layer1.0.relu#2", "con", "NUL.x", "~con", "..",
         "a\\b", "é", "\udcff", "a%2Fb", "<img onerror=x>", "{{7*7}}", "figure\n2", "-rf"]


def test_every_layer_has_a_name_of_its_own_that_any_file_system_takes():
    made = [report.file_name(name) + ".png" for name in NAMES]
    assert len({name.lower() for name in made}) == len(NAMES)
    for name in made:
        assert name.isascii() and not set(name) & set('/\\:*?"<>|\n\0 #&')
        assert name.split(".")[0].lower() not in ("con", "nul", "prn", "aux")
        assert name not in ("..png", "...png") or name.strip(".") == "png"
    assert report.file_name("layer1.0.conv2") == "layer1.0.conv2"


@pytest.mark.parametrize("text", ["plain", "é", "\udcff", "a\udc80b"])
def test_any_name_can_be_printed(text):
    printable(text).encode("utf-8")


@pytest.fixture
def top():
    """Ten units of two layers, of which the even ones fire, and a fully connected layer."""
    def layer(units, place):
        values = torch.zeros(units, 1)
        values[::2] = 1
        images, places = torch.where(values > 0, 0, -1), torch.where(values > 0, place, -1)
        state = {"values": values, "images": images, "positions": places[:, :, None].expand(-1, -1, 2)}
        fired, no_classes = (values[:, 0] > 0).long(), (torch.zeros(0, units), torch.zeros(0).long())
        return LayerScan(TopK.from_state(state), fired, *no_classes, Sample.blank(units), 1)

    return Scan({"conv1": layer(10, 3), "conv2": layer(10, 1), "fc6": layer(4, 0)}, k=1)


def test_the_choice_is_random_among_those_that_fire_and_leaves_out_flat_layers(top):
    chosen = report.choose_units(top, count=3, seed=1)
    assert list(chosen) == ["conv1", "conv2"] and all(len(units) == 3 for units in chosen.values())
    assert all(unit % 2 == 0 for units in chosen.values() for unit in units)
    assert chosen == report.choose_units(top, count=3, seed=1) != report.choose_units(top, count=3, seed=2)
    assert report.choose_units(top)["conv1"] == [0, 2, 4, 6, 8], "no more than there are"


def test_a_layer_gets_as_many_as_the_paper_shows_of_it_whichever_are_asked_for(top, monkeypatch):
    monkeypatch.setattr(report, "PAPER_MAPS", (1, 3))
    assert {layer: len(units) for layer, units in report.choose_units(top).items()} == {"conv1": 1, "conv2": 3}
    assert report.choose_units(top, ["conv2"])["conv2"] == report.choose_units(top)["conv2"]


@pytest.mark.parametrize("units, chosen", [
    ("3,1", {"conv1": [3, 1], "conv2": [3, 1]}), ("conv2:3,conv1:7-8,conv2:3", {"conv2": [3], "conv1": [7, 8]}),
    ("fc6:0-3", {"fc6": [0, 1, 2, 3]}),
])
def test_units_by_number_and_by_address(top, units, chosen):
    assert report.choose_units(top, units=units) == chosen


@pytest.mark.parametrize("options, says", [
    ({"units": "12"}, "0 to 9"), ({"units": "conv3:1"}, "conv2"), ({"units": "conv2:1,3"}, "give a layer to each"),
    ({"count": 0}, "from 1"), ({"count": -3}, "from 1"), ({"count": 10_000}, "to 128"),
    ({"units": "3", "count": 2}, "leave out"), ({"units": "conv1:3", "layers": ["conv2"]}, "leave out"),
])
def test_what_cannot_be_chosen_is_refused(top, options, says):
    with pytest.raises(UsageError, match=says):
        report.choose_units(top, **options)


@pytest.mark.parametrize("settings, caption", [
    ({}, "zfnet (demo) on photos"),
    ({"method": "deconvnet", "unpool": "switches", "contrast": "unit"}, "zfnet (demo) on photos"),
    ({"method": "guided", "unpool": "center", "contrast": "tile"},
     "zfnet (demo) on photos, guided, unpooled to the center, one scale for each tile"),
])
def test_a_caption_says_what_is_not_as_usual(settings, caption):
    assert report._caption({"model": "zfnet", "weights": "demo", "images": "photos", "gallery": settings}) == caption


ORIGIN = {"model": "zfnet", "images": "photographs", "gallery": {"method": "deconvnet", "unpool": "switches"}}


def galleries(chosen):
    """One of one tile for each unit."""
    for layer, units in chosen.items():
        for unit in units:
            yield Gallery(layer, unit, np.ones(1, np.float32), np.zeros(1, int), np.zeros((1, 2), int), ["a.png"],
                          np.zeros((1, 2), int), np.ones((1, 3, 2, 2), np.float32), np.zeros((1, 2, 2, 3), np.uint8))


def test_a_layer_has_no_sheet_where_no_unit_fires_or_where_too_many_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "MOST", 3)
    monkeypatch.setattr(processes, "SLOW", 0)
    chosen = {"one": [5], "none": [], "many": range(4)}
    sheets = report.Sheets(tmp_path, nn.Identity(), ORIGIN, k=1)
    sheets.draw(galleries(chosen), chosen, units=False)
    assert "sheets: " in capsys.readouterr().err, "that it draws is told, though all images have been gone through"
    assert sheets.without == {"none": "no unit fires", "many": "4 units, and one has room for 3"}
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "one.pdf"}
    assert [one["unit"] for one in sheets.noted] == ["one:5", *(f"many:{unit}" for unit in range(4))]


@pytest.mark.parametrize("each, page", [(1, True), (2, False)])
def test_five_layers_are_on_one_page_if_they_have_room_on_it(each, page, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST", 5)
    chosen = {f"conv{n}": range(each) for n in range(1, 6)}
    sheets = report.Sheets(tmp_path, nn.Identity(), ORIGIN, k=1)
    sheets.draw(galleries(chosen), chosen, units=False)
    assert (tmp_path / "figure2.png").is_file() is page and not sheets.without
