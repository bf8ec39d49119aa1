"""Figure 7: occlusion against a slow loop over positions, worked by hand, as seen; and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from goldens import assert_golden, assert_not_golden
from torch import nn
from toys import build, folder, unlabelled

import deconvnet
from deconvnet.colours import normalise
from deconvnet.errors import UsageError
from deconvnet.exhibit import pdf, png
from deconvnet.figures import occlusion
from deconvnet.figures.covered import correlation, cover, covered, grey, positions, ranks, shares, squares
from deconvnet.figures.occlusion import Row, Settings, agreement, draw, legend, make, occlude, strongest

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Settings for the small network on a folder of four pictures."""
    monkeypatch.setattr("deconvnet.subject.load_model", build)
    return Settings(model="toy", weights=None, images=folder(tmp_path), layer="3", square=10, stride=7)


def image():
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(3))


# ---- positions and boxes ----


def test_the_paper_has_thirty_positions_along_a_side() -> None:
    assert positions(224, 50, 6) == list(range(0, 175, 6)) and len(positions(224, 50, 6)) == 30
    assert positions(9, 9, 4) == [0] and positions(10, 3, 4) == [0, 4]
    with pytest.raises(UsageError, match="square: 33 pixels, and what the network sees has only 32"):
        positions(32, 33, 1)


@pytest.mark.parametrize("size", [1, 3, 16, 100])
def test_each_copy_has_one_box_covered_whatever_was_covered_in_the_batch_before(size) -> None:
    boxes, filling = squares(positions(32, 12, 5), 12), torch.full((3, 32, 32), 7.0)
    copies = torch.cat([batch.clone() for batch in covered(image(), filling, boxes, size)])
    assert len(copies) == len(boxes) == 25
    for copy, (top, left, bottom, right) in zip(copies, boxes, strict=True):
        for y in range(32):
            for x in range(0, 32, 5):
                inside = top <= y < bottom and left <= x < right
                assert (copy[:, y, x] == (7.0 if inside else image()[:, y, x])).all()


def test_grey_is_what_the_network_takes_for_a_grey_picture() -> None:
    preprocess = build().preprocess
    assert (preprocess.inverse(grey(preprocess)) == 128).all()
    assert (cover(np.zeros((4, 4, 3), np.uint8), (1, 2, 3, 4)) == 128).sum() == 4 * 3


# ---- what is measured ----


def test_occlusion_is_a_forward_pass_for_each_position() -> None:
    net, boxes, filling = build(), squares(positions(32, 10, 7), 10), grey(build().preprocess)
    seen = occlude(net, image(), filling, boxes, "3", 2, batch_size=5)
    assert seen.total.shape == (4, 4) and seen.probabilities.shape == (4, 4, 3)
    for number, (top, left, bottom, right) in enumerate(boxes):
        changed = image()
        changed[:, top:bottom, left:right] = filling[:, top:bottom, left:right]
        tape = deconvnet.record(net, changed[None])
        total = tape.activations("3")[0, 2].sum()
        torch.testing.assert_close(torch.tensor(seen.total[number // 4, number % 4]), total)
        chances = torch.tensor(seen.probabilities[number // 4, number % 4])
        torch.testing.assert_close(chances, tape.values[-1][0].softmax(0))
    assert seen.clean == pytest.approx(float(deconvnet.record(net, image()[None]).activations("3")[0, 2].sum()))


def test_occlusion_worked_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False)).eval()
    nn.init.constant_(net[0].weight, 2.0)
    boxes = squares(positions(6, 3, 3), 3)
    pixels = torch.ones(3, 6, 6)
    pixels[:, :3, :3] = 5  # 2 · 3 · (9 · 5 + 27) = 432, of which 270 lie in the first box and 54 in each other one
    seen = occlude(net, pixels, torch.zeros(3, 6, 6), boxes, "0", 0)
    assert seen.clean == 432 and seen.total.tolist() == [[162, 378], [378, 378]] and seen.probabilities is None


def test_the_followed_map_has_the_strongest_activation() -> None:
    tape = deconvnet.record(build(), image()[None])
    unit, y, x = strongest(tape, "3")
    assert tape.activations("3")[0, unit, y, x] == tape.activations("3").max()


def test_shares_and_correlations_are_those_of_slow_sums() -> None:
    random = np.random.default_rng(0)
    energy, boxes = random.random((9, 9)), squares([0, 2, 5], 4)
    slow = [sum(energy[y, x] for y in range(t, b) for x in range(le, r)) / energy.sum() for t, le, b, r in boxes]
    np.testing.assert_allclose(shares(energy, boxes), slow)
    assert not shares(np.zeros((9, 9)), boxes).any()
    values = np.array([3, 1, 3, 2, 9.0])
    assert ranks(values).tolist() == [3.5, 1, 3.5, 2, 5]
    assert correlation(values, energy[0, :5]) == pytest.approx(np.corrcoef(values, energy[0, :5])[0, 1])
    assert correlation(values, np.ones(5)) is None


def test_a_projection_agrees_where_the_map_depends_on_just_what_it_shows() -> None:
    net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU()).eval()
    nn.init.constant_(net[0].weight, 1.0)
    pixels = torch.zeros(3, 12, 12)
    pixels[:, 2:6, 3:9] = torch.linspace(1, 2, 6)
    boxes, tape = squares(positions(12, 4, 2), 4), deconvnet.record(net, pixels[None])
    seen = occlude(net, pixels, torch.zeros(3, 12, 12), boxes, "0", 0)
    agree = agreement(tape, "0", strongest(tape, "0"), seen, boxes)
    assert agree["spearman_map"] > 0.95 > agree["spearman"] > 0  # one activation is a part of the map
    inverted = replace(seen, total=2 * seen.clean - seen.total)
    assert agreement(tape, "0", strongest(tape, "0"), inverted, boxes)["spearman_map"] < -0.95


def test_a_map_that_no_square_changes_agrees_with_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU()).eval()
    nn.init.zeros_(net[0].weight)
    nn.init.ones_(net[0].bias)
    boxes, tape = squares([0, 4], 4), deconvnet.record(net, torch.ones(1, 3, 8, 8))
    seen = occlude(net, torch.ones(3, 8, 8), torch.zeros(3, 8, 8), boxes, "0", 0)
    assert agreement(tape, "0", (0, 0, 0), seen, boxes)["spearman"] is None


# ---- the figure ----


def test_the_numbers_of_the_figure(toy) -> None:
    made = make(toy, progress=False)
    data = json.loads(json.dumps(made.numbers, allow_nan=False))
    assert [one["class"] for one in data["images"]].count(None) == 0 and len(data["images"]) == 3
    for one in data["images"]:
        assert np.shape(one["total"]) == np.shape(one["probability"]) == np.shape(one["most_probable"]) == (4, 4)
        assert one["image"] not in one["others"] and len(one["others"]) == 3
    again = make(toy, progress=False)
    assert again.numbers == made.numbers and png(again.drawing, {}) == png(made.drawing, {})
    assert pdf(again.drawing, {}) == pdf(made.drawing, {})


def test_the_classes_of_folders_are_known_by_any_of_their_names(toy) -> None:
    made = make(toy.model_copy(update={"count": 9}), progress=False)
    assert {one["image"]: one["class"] for one in made.numbers["images"]} == {
        "cats/1.png": "cats", "dogs/1.png": "dogs", "cups/1.png": "cups", "birds/1.png": None}
    assert "without its probability: birds/1.png" in made.caption
    assert "9 images were asked for, and there are only 4" in made.caption


def test_without_classes_their_columns_are_left_out_and_it_is_said(toy, monkeypatch) -> None:
    whole = make(toy, progress=False)
    monkeypatch.setattr("deconvnet.subject.load_model", unlabelled)
    made = make(toy, progress=False)
    assert "No image has a class" in made.caption and "(d) The probability" not in made.caption
    assert made.drawing.get_size_inches()[0] < whole.drawing.get_size_inches()[0]
    assert all(one["probability"] is None for one in made.numbers["images"])


@pytest.mark.parametrize(("changes", "message"), [
    ({"shown": {"cats/1.png": "dog"}}, "no class 'dog'. Did you mean: dogs"),
    ({"shown": {"cats/1.png": 3}}, "no class 3: the network has 3, 0 to 2"),
    ({"shown": {"cat/1.png": None}}, "no image 'cat/1.png' among the 4 images. Did you mean: cats/1.png"),
    ({"layer": "9"}, "no layer '9'"), ({"square": 33}, "square: 33 pixels"),
])
def test_what_does_not_exist_is_named_before_the_work(toy, monkeypatch, changes, message) -> None:
    monkeypatch.setattr(occlusion, "scan", None)  # calling it would be a TypeError
    with pytest.raises(UsageError, match=message):
        make(toy.model_copy(update=changes), progress=False)


def test_the_others_are_of_other_photographs() -> None:
    photographs = deconvnet.open_images("builtin:photographs-apart", build().preprocess)
    found = deconvnet.scan(build(), torch.rand(len(photographs), 3, 32, 32), ["3"], k=40)["3"]
    others = occlusion._strangers(found, int(found.maximum.argmax()), "coffee@0.56+000+056", photographs)
    names = [photographs.files[number].partition("@")[0] for number, *_ in others]
    assert len({*names, "coffee"}) == 4


# ---- the drawing ----


def row(number=0, **changes):
    y, x = np.mgrid[:56, :56]
    pixels = np.stack([4 * x, 4 * y, 255 - 4 * x], axis=2).astype(np.uint8)
    tiles = [np.sin((y + x * n) / 6)[None] * np.array([1, 0.6, -1])[:, None, None] for n in (1, 2, 3, 4)]
    h, w = np.mgrid[:8, :8]
    values = {"picture": cover(pixels, (21, 3, 33, 15)), "total": 90 - 5.0 * np.hypot(h - 3, w - 5 + number),
              "projections": list(normalise(np.stack(tiles))), "probability": 0.02 + 0.9 * np.exp(-(h + w) / 7),
              "best": (h + 2 * w) // 6, "names": {n: f"class {n}" for n in range(9)}, "label": "class: dogs",
              "unit": "conv5:17", "agreement": 0.61}
    return Row(**{**values, **changes})


def test_the_figure_looks_as_it_did() -> None:
    assert_golden(draw([row()]), "occlusion")


@pytest.mark.parametrize("changes", [
    {"picture": np.roll(row().picture, 4, axis=1)}, {"picture": row().picture[:, :, ::-1]},
    {"projections": [(128 + (tile.astype(int) - 128) // 3).astype(np.uint8) for tile in row().projections]},
    {"total": row().total.T}, {"probability": row().probability ** 3},
], ids=["shifted", "channels", "scale lost", "turned map", "probability"])
def test_a_wrong_figure_looks_different(changes) -> None:
    assert_not_golden(draw([row(**changes)]), "occlusion")


def test_a_row_without_a_class_says_so_beside_rows_with_one() -> None:
    drawing = draw([row(), row(2, probability=None, agreement=None)])
    words = [text.get_text() for text in drawing.texts]
    assert "no class given" in words and any(text.endswith("agrees with (b): –") for text in words)


def test_the_legend_names_the_most_frequent_classes_each_with_a_colour_of_its_own() -> None:
    best = np.repeat(np.arange(14), np.arange(14, 0, -1))[None]
    classes, colours = legend(best)
    assert classes == list(range(10)) and len(set(colours)) == 10
    assert legend(np.array([[4]]))[0] == [4]
    draw([row(best=best, names={n: f"a class with a very long name {n}" for n in range(14)})])
