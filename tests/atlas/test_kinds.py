"""Atlases of other networks and scans than the usual: no classes, one tile or many, fully connected, large fields."""

import io
from dataclasses import replace

import checks
import numpy as np
import pytest
import tiny
import torch
from dom import read
from PIL import Image
from test_pages import check_nearest, crop, shaded
from torch import nn

from deconvnet.atlas.pages import by, percent, short
from deconvnet.atlas.pictures import LARGEST, MAP, MAPS, SMALL, TINY, unit_picture, way_picture
from deconvnet.descent import Stage
from deconvnet.gallery import Gallery, gallery


class Headed(tiny.Tiny):
    """With two layers that have no map, whose units see the whole image and more."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.flat, self.fc4, self.relu4, self.fc5 = nn.Flatten(), nn.Linear(7 * 36, 5), nn.ReLU(), nn.Linear(5, 33)
        with torch.no_grad():
            for layer in (self.fc4, self.fc5):
                layer.weight.normal_(0, 0.3)
        self.eval()


@pytest.fixture(scope="module")
def flat(small_atlas, tmp_path_factory):
    """Ten of the photographs in one folder, without classes."""
    root = tmp_path_factory.mktemp("flat")
    for number, path in enumerate(sorted((small_atlas.folder.parent / "photographs").rglob("*@*.png"))[::3]):
        (root / f"{number}.png").write_bytes(path.read_bytes())
    return root


@pytest.mark.parametrize("k", [1, 2, 16])
def test_any_number_of_tiles_and_layers_without_maps(flat, tmp_path, monkeypatch, k):
    monkeypatch.setattr(tiny, "K", k)
    net, layers = Headed(), ("conv1", "fc4", "fc5")
    images = tiny.open_images(flat, net)
    top = tiny.scan(net, images, layers)
    folder = tiny.make(tmp_path / "out", net, top, images, layers, {"fc5": {32: "the last"}})
    assert not [fault for page in checks.pages(folder) for fault in checks.faults(folder, page)]
    overview = read(folder / "index.html")
    assert not [page for page in checks.pages(folder) if "0×0" in (folder / page).read_text(encoding="utf-8")]
    assert "selectivity" not in overview.one("table").words.lower() and not overview.all("table", "classes")
    for layer in layers:
        page = read(folder / layer / "index.html")
        assert not page.all("select", where=lambda e: e["name"] == "class")
        shown, wanted = [], []
        for one in gallery(net, top, layer, range(len(top[layer].fired)), images):
            if not len(one.values):
                continue
            place = folder / layer / str(one.unit)
            unit = read(place / "index.html")
            assert len(unit.all("button", "tr")) == len(one.values) == min(k, int(top[layer].fired[one.unit]))
            shown += [crop(place / "unit.webp", svg) for b in unit.all("button", "tr") for svg in b.all("svg")]
            times = len(shown[-1]) // one.patches.shape[1]
            wanted += list(np.moveaxis(shaded(one.reconstructions), 1, -1).repeat(times, 1).repeat(times, 2))
        check_nearest(shown, wanted)


def test_an_output_unit_is_called_by_its_class_behind_the_words_of_the_teacher(flat, tmp_path):
    net, layers = Headed(), ("fc4", "fc5")
    net.classes = [f"class <{number}>" for number in range(33)]
    images = tiny.open_images(flat, net)
    folder = tiny.make(tmp_path / "out", net, tiny.scan(net, images, layers), images, layers, {"fc5": {32: "the last"}})
    said = {place: read(folder / place / "index.html").one("h1").words for place in ("fc4/4", "fc5/4", "fc5/32")}
    assert "class" not in said["fc4/4"]
    assert said["fc5/4"].startswith("fc5:4 class <4>") and said["fc5/32"].startswith("fc5:32 the last (class <32>)")
    cells = read(folder / "fc5" / "index.html").one("ul", "grid").all("li")
    assert [li["data-n"] for li in cells if "data-label" in li.attributes] == ["32"]
    labelled = read(folder / "index.html").one("ul", "labels")
    assert len(labelled.all("li")) == 1, "the classes are many, and nobody put them there"


def test_a_scan_in_which_nothing_fires_has_an_atlas(flat, tmp_path):
    net = tiny.Tiny()
    with torch.no_grad():
        net.conv1.weight.zero_()
        net.conv1.bias.fill_(-1)
    images = tiny.open_images(flat, net)
    top = tiny.scan(net, images, ("conv1",))
    folder = tiny.make(tmp_path / "out", net, top, images, ("conv1",), {})
    assert not [fault for page in checks.pages(folder) for fault in checks.faults(folder, page)]
    assert "6 dead" in read(folder / "conv1" / "index.html").one("p", "lead").words
    assert list((folder / "images").iterdir()) == []


def test_images_that_are_gone_are_named_and_the_others_shown(small_atlas, tmp_path):
    images = tiny.open_images(small_atlas.folder.parent / "photographs", small_atlas.net)
    gone = int(small_atlas.top["conv3"].images[1, 0])
    images.files[gone] = "gone.png"
    top = replace(small_atlas.top, files=list(images.files))
    folder = tiny.make(tmp_path / "out", small_atlas.net, top, images, ("conv3",), {})
    assert not [fault for page in checks.pages(folder) for fault in checks.faults(folder, page)]
    page = read(folder / "conv3" / "1" / "index.html")
    left = int((top["conv3"].images[1] >= 0).sum()) - 1
    assert len(page.all("button", "tr")) == left and not (folder / "images" / f"{gone}.webp").exists()
    assert "1 missing: the image could not be read any more" in page.one("main").words
    assert "gone.png" not in page.one("ol", "places").words


# ---- pictures ----


def made(height, width, k=4):
    random = np.random.default_rng(0)
    smooth = np.kron(random.normal(size=(k, 3, 4, 4)), np.ones((1, 1, height // 4 + 1, width // 4 + 1)))
    pixels = smooth[:, :, :height, :width].astype(np.float32)
    places = np.zeros((k, 2), int)
    return Gallery("conv1", 0, np.ones(k), np.arange(k), places, ["x"] * k, places, pixels,
                   (pixels.transpose(0, 2, 3, 1) * 40 + 128).clip(0, 255).astype(np.uint8))


SIZES = [(200, 200), (223, 120), (90, 321), (1, 400), (160, 160), (41, 41), (40, 40), (17, 9), (16, 16), (1, 1)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_large_tiles_are_shrunk_and_small_ones_kept(height, width):
    one = made(height, width)
    content, (h, w) = unit_picture(one)
    longest = max(height, width)
    times = 2 if TINY < longest <= SMALL else 1
    assert max(h, w) == min(LARGEST, longest) * times
    assert h == max(1, round(height * min(1, LARGEST / longest))) * times
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)
    assert picture.shape == (2 * h, 6 * w, 3)
    colours = np.moveaxis(shaded(one.reconstructions), 1, -1).astype(np.uint8)
    for tiles, left in ((colours, 0), (one.patches, 3 * w)):
        for number, tile in enumerate(tiles):
            y, x = number // 3 * h, left + number % 3 * w
            wanted = np.asarray(Image.fromarray(tile).resize((w, h), Image.Resampling.BICUBIC)).astype(float)
            part = picture[y:y + h, x:x + w]
            assert part.shape == wanted.shape and np.abs(part.mean(2) - wanted.mean(2)).mean() < 16


@pytest.mark.parametrize("size", [(1, 1), (13, 13), (40, 40), (41, 80), (110, 110)])
def test_a_map_of_any_size_fills_its_place(size):
    random = np.random.default_rng(0)
    maps = np.kron(random.uniform(0.2, 1, size=(2, 2, 2)), np.ones((1, 60, 60)))[:, :size[0], :size[1]]
    seed = Stage("seed", "conv1", "", (), maps, maps, maps > 0.5, (0, 0), size, count=9, chosen=(3, 1))
    picture = np.asarray(Image.open(io.BytesIO(way_picture([seed, seed]))).convert("RGB")).astype(float)
    assert picture.shape[0] == MAP and picture.shape[1] > 3 * MAPS * MAP
    scale = np.quantile(maps, 0.995)
    for number, values in enumerate(maps):
        part = picture[:, number * MAP:(number + 1) * MAP].mean()
        assert part == pytest.approx((128 + 127 * np.clip(values / scale, -1, 1)).mean(), abs=6)


def test_a_stage_of_zeros_is_grey():
    zeros = np.zeros((3, 5, 5))
    stage = Stage("unpool", "pool1", "", (), zeros, zeros, zeros > 0, (0, 0), (5, 5), count=3, chosen=(0, 1, 2))
    picture = np.asarray(Image.open(io.BytesIO(way_picture([stage, stage]))).convert("RGB")).astype(float)
    assert np.abs(picture[:, :3 * MAP] - 128).max() <= 12  # beside the dark of the gap


# ---- numbers in words ----


@pytest.mark.parametrize(("share", "says"), [
    (0, "0 %"), (1, "100 %"), (0.5, "50 %"), (0.004, "0.4 %"), (0.00001, "0.001 %"), (0.01, "1 %"), (0.996, "99.6 %"),
    (0.9999, "99.9 %"), (0.99, "99 %"), (0.985, "98 %")])
def test_a_share_in_words_is_all_or_none_only_where_it_is(share, says):
    assert percent(share) == says


@pytest.mark.parametrize(("value", "says"), [(0, "0"), (0.12345, "0.123"), (12.345, "12.3"), (999.4, "999"),
                                             (999.7, "1,000"), (1234.5, "1,234"), (1e6, "1,000,000"), (1e-7, "1e-07")])
def test_a_number_in_three_digits(value, says):
    assert short(value) == says


def test_a_size_in_words():
    assert by((13, 17)) == "13×17"
