"""Figure 5: changes against NumPy's, distances against a slow loop and in a network that cannot tell; as seen."""

import json

import numpy as np
import pytest
from goldens import assert_golden, assert_not_golden
from PIL import Image
from torch import nn
from toys import CLASSES, build, folder, unlabelled

import deconvnet
from deconvnet.errors import UsageError
from deconvnet.figures.invariance import Settings, Sweep, change, draw, make, ranges, sweep
from deconvnet.figures.shown import Shown, class_number
from deconvnet.images import GREY, Preprocess

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Settings for the small network on a folder of four pictures."""
    monkeypatch.setattr("deconvnet.subject.load_model", build)
    return Settings(model="toy", weights=None, images=folder(tmp_path), layers=("0", "3"), count=3, translation=6,
                    translations=3, scales=3, rotations=3)


def pixels(side=32):
    return np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)


def shown(net, target=None):
    return Shown("x", pixels(), net.preprocess.tensor(Image.fromarray(pixels())), target, "x")


# ---- changes ----


@pytest.mark.parametrize("down", [-31, -7, 0, 1, 31])
def test_a_move_by_whole_pixels_keeps_every_pixel_that_stays(down) -> None:
    moved, original = change(pixels(), "translation", down), pixels()
    for y in range(32):
        expected = original[y - down] if 0 <= y - down < 32 else np.full((32, 3), GREY)
        np.testing.assert_array_equal(moved[y], expected)


def test_outside_lies_grey_or_the_last_row_or_a_mirror() -> None:
    original = pixels()
    np.testing.assert_array_equal(change(original, "translation", 3, "edge")[:3], original[[0, 0, 0]])
    np.testing.assert_array_equal(change(original, "translation", 3, "reflect")[:3], original[[2, 1, 0]])
    assert (change(original, "rotation", 45)[0, 0] == GREY).all()


@pytest.mark.parametrize("side", [31, 32])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4])
def test_right_angles_are_exact_and_counterclockwise(side, turns) -> None:
    np.testing.assert_array_equal(change(pixels(side), "rotation", 90 * turns), np.rot90(pixels(side), turns))


def test_a_ratio_of_one_changes_nothing_and_a_larger_one_enlarges_about_the_middle() -> None:
    np.testing.assert_array_equal(change(pixels(), "scale", 1), pixels())
    square = np.zeros((32, 32, 3), np.uint8)
    square[12:20, 12:20] = 200
    larger = change(square, "scale", 2)
    assert (larger[10:22, 10:22] > 190).all() and (larger[:6] < 10).all() and (larger[:, 26:] < 10).all()
    np.testing.assert_array_equal(change(pixels()[::-1], "scale", 1.7), change(pixels(), "scale", 1.7)[::-1])


def test_the_paper_goes_from_minus_60_to_60_from_1_to_1_8_and_from_0_to_350() -> None:
    found = ranges(Settings())
    assert found["translation"].tolist() == list(range(-60, 61, 4))
    assert found["rotation"].tolist() == list(range(0, 351, 10))
    np.testing.assert_allclose(found["scale"], np.arange(1, 1.81, 0.05))


# ---- what is measured ----


@pytest.mark.parametrize(("kind", "values"), [("translation", [-5, 0, 4]), ("scale", [1, 1.3, 1.5]),
                                              ("rotation", [0, 30, 180])])
def test_distances_are_those_of_a_slow_loop(kind, values) -> None:
    net, values = build(), np.array(values, float)
    one = shown(net, target=1)
    found = sweep(net, [one], kind, values, ["0", "5"], batch_size=2)
    plain = deconvnet.record(net, one.input[None])
    for number, value in enumerate(values):
        view = net.preprocess.tensor(Image.fromarray(change(one.pixels, kind, value)))
        tape = deconvnet.record(net, view[None])
        for layer, distances in zip(["0", "5"], found.distances, strict=True):
            x, y = plain.values[plain.number(layer)].clamp(min=0), tape.values[tape.number(layer)].clamp(min=0)
            slow = sum((a - b) ** 2 for a, b in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True)) ** 0.5
            assert distances[0, number] == pytest.approx(slow, rel=1e-4, abs=1e-4)
        assert found.probability[0, number] == pytest.approx(float(tape.values[-1].softmax(1)[0, 1]), rel=1e-4)
    norm = float(plain.activations("0").double().square().sum().sqrt())
    np.testing.assert_allclose(found.relative()[0], found.distances[0] / norm, rtol=1e-5)


def test_what_cannot_tell_where_a_thing_is_has_distance_zero() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()).eval()
    net.preprocess = Preprocess(32, 32)
    thing = np.full((32, 32, 3), GREY, np.uint8)
    thing[13:18, 14:19] = pixels(5)
    one = Shown("thing", thing, net.preprocess.tensor(Image.fromarray(thing)), None, "thing")
    found = sweep(net, [one], "translation", np.array([-9.0, -3, 0, 8]), ["2", "0"])
    np.testing.assert_allclose(found.distances[0], 0, atol=1e-5)
    assert found.distances[1][0, 0] > 0.1 and found.distances[1][0, 2] == pytest.approx(0, abs=1e-5)


def test_features_that_are_all_zero_have_no_relative_distance() -> None:
    one = Sweep("scale", np.array([1.0, 2]), (np.ones((1, 2)),) * 2, (np.zeros(1), np.ones(1)), np.ones((1, 2)),
                np.zeros((1, 1, 4, 4, 3), np.uint8), np.ones(1))
    assert np.isnan(one.relative()[0]).all() and one.relative()[1].tolist() == [[1, 1]]


# ---- the figure ----


def test_the_numbers_of_the_figure(toy) -> None:
    made = make(toy, progress=False)
    data = json.loads(json.dumps(made.numbers, allow_nan=False))
    assert len(data["images"]) == 3 and None not in data["classes"] and data["layers"] == ["0", "3"]
    for one in data["changes"]:
        assert np.shape(one["distances"]) == np.shape(one["relative"]) == (2, 3, 3)
        assert np.shape(one["probability"]) == (3, 3)
    assert "relative" in made.pages and "mid-grey (128)" in made.caption
    assert make(toy, progress=False).numbers == made.numbers


def test_without_classes_the_last_column_is_left_out_and_it_is_said(toy, monkeypatch) -> None:
    monkeypatch.setattr("deconvnet.subject.load_model", unlabelled)
    made = make(toy.model_copy(update={"count": 7}), progress=False)
    assert "No image has a class" in made.caption and "7 images were asked for, and there are only 4" in made.caption
    titles = [axes.get_title() for axes in made.drawing.axes if axes.get_title()]
    assert titles == ["0: distance", "3: distance"] * 3


def test_an_image_that_cannot_be_read_is_named_and_another_one_taken(toy, tmp_path) -> None:
    (tmp_path / "dogs" / "1.png").write_bytes(b"no picture")
    made = make(toy, progress=False)
    assert "dogs/1.png" not in made.numbers["images"] and "Not read: dogs/1.png" in made.caption


@pytest.mark.parametrize(("changes", "message"), [
    ({"translation": 32}, "translation: 32 pixels would move all of the 32"), ({"layers": ("0", "9")}, "no layer '9'"),
    ({"shown": {"cats/1.png": "cup"}}, "no class 'cup'. Did you mean: cups"),
])
def test_what_cannot_be_is_refused_before_the_work(toy, changes, message) -> None:
    with pytest.raises(UsageError, match=message):
        make(toy.model_copy(update=changes), progress=False)


def test_classes_by_name_by_one_of_several_names_and_by_number() -> None:
    net = build()
    assert [class_number(net, word) for word in ("cats, felines", "felines", "Cats", "dogs", 2)] == [0, 0, 0, 1, 2]
    with pytest.raises(UsageError, match="does not name its classes; give the class by its number"):
        class_number(unlabelled(), CLASSES[1])


# ---- the drawing ----


def sweeps(scale=1.0):
    rows = []
    for kind, values in (("translation", np.linspace(-60, 60, 7)), ("scale", np.linspace(1, 1.8, 5)),
                         ("rotation", np.linspace(0, 350, 8))):
        t = np.linspace(0, 1, len(values))
        distances = np.stack([scale * 9 * np.sqrt(t), scale * 5 * t])
        chances = np.stack([1 - 0.9 * t, np.full(len(t), np.nan)])
        y, x = np.mgrid[:8, :8]
        tile = np.stack([30 * x, 30 * y, 255 - 30 * x], axis=2).astype(np.uint8)
        examples = np.stack([[tile, tile.transpose(1, 0, 2)], [tile[::-1], tile], [tile, tile[:, ::-1]]])
        rows.append(Sweep(kind, values, (distances, distances[::-1]), (np.ones(2), np.ones(2) * 4), chances, examples,
                          values[[0, 2, -1]]))
    return rows


def drawn(rows, **options):
    return draw(rows[:1], ["cup", "rocket"], ["conv1", "fc7"], **options)


def test_the_figure_looks_as_it_did() -> None:
    assert_golden(drawn(sweeps()), "invariance")


@pytest.mark.parametrize("wrong", [lambda e: np.roll(e, 2, axis=3), lambda e: e[..., ::-1]],
                         ids=["shifted", "channels"])
def test_wrong_examples_look_different(wrong) -> None:
    rows = [Sweep(**{**vars(one), "examples": wrong(one.examples)}) for one in sweeps()]
    assert_not_golden(drawn(rows), "invariance")


def test_a_lost_scale_and_a_relative_one_look_different() -> None:
    assert_not_golden(drawn([Sweep(**{**vars(one), "distances": (one.distances[0] ** 3, one.distances[1])})
                             for one in sweeps()]), "invariance")
    assert_not_golden(drawn(sweeps(), relative=True), "invariance")
