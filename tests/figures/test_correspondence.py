"""Figure 8 and Table 1: boxes from file to view, signs and their Hamming distance against a double loop, as seen."""

import json

import numpy as np
import pytest
import torch
from goldens import assert_golden, assert_not_golden
from PIL import Image
from pydantic import ValidationError
from toys import build, folder

import deconvnet
from deconvnet.errors import UsageError
from deconvnet.exhibit import png
from deconvnet.figures import correspondence as figure
from deconvnet.figures.correspondence import draw, open_faces, random_places
from deconvnet.figures.covered import cover
from deconvnet.tables import correspondence as table
from deconvnet.tables.correspondence import Delta, differing, measure, sign, signs

pytestmark = pytest.mark.usefixtures("one_thread")

PARTS = {"cats/1.png": {"nose": (10, 12, 20, 24), "left eye": (20, 20, 30, 31)},
         "dogs/1.png": {"left eye": (21, 19, 29, 30), "nose": (9, 12, 20, 22)},
         "cups/1.png": {"nose": (12, 12, 20, 22), "left eye": (22, 20, 30, 30)}}


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """What a configuration says for the small network on three pictures with parts."""
    monkeypatch.setattr("deconvnet.subject.load_model", build)
    return {"model": "toy", "weights": None, "images": folder(tmp_path), "parts": PARTS}


@pytest.fixture
def faces(toy):
    images = deconvnet.open_images(toy["images"], build().preprocess)
    return open_faces(images, PARTS)


# ---- boxes ----


def test_a_box_in_pixels_of_the_file_covers_the_same_part_of_what_the_network_sees(tmp_path) -> None:
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[30:50, 40:70] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = deconvnet.open_images(tmp_path, build().preprocess)  # 90 to 36 pixels, of which the middle 32: 80
    (face,) = open_faces(images, {"a.png": {"nose": (30, 40, 50, 70)}})
    assert face.boxes == {"nose": (10, 8, 18, 20)}  # (30 − 5) · 0.4, (40 − 20) · 0.4 …
    assert (face.pixels[11:17, 9:19] > 240).all()
    covered = cover(face.pixels, face.boxes["nose"])
    assert covered.max() < 240 and (covered == 128).all(axis=2).sum() == 8 * 12


def test_a_box_in_a_built_in_view_is_in_its_own_pixels() -> None:
    images = deconvnet.open_images("builtin:photographs", build().preprocess)
    (face,) = open_faces(images, {"chelsea@0.75+000+056": {"nose": (112, 56, 168, 224)}})
    assert face.boxes == {"nose": (16, 8, 24, 32)}  # 32 pixels for 224


@pytest.mark.parametrize(("box", "message"), [
    ((10, 12, 41, 24), r"parts: dogs/1.png: nose: \[10, 12, 41, 24\] lies outside the image, which has 40 rows and 50"),
    ((0, 12, 10, 24), r"nose: \[0, 12, 10, 24\] lies outside what the network sees of the image, rows 2 to 38 and col"),
    ((10, 12, 20, 49), "columns 7 to 43"),
])
def test_a_box_outside_the_image_is_named_before_the_work(toy, monkeypatch, tmp_path, box, message) -> None:
    folder(tmp_path, ["dogs/1.png"], size=(50, 40))
    monkeypatch.setattr(table, "measure", None)
    parts = {**PARTS, "dogs/1.png": {**PARTS["dogs/1.png"], "nose": box}}
    with pytest.raises(UsageError, match=message):
        table.make(table.Settings(**{**toy, "parts": parts}), progress=False)


@pytest.mark.parametrize(("parts", "message"), [
    ({"a": {"nose": (0, 0, 2, 2)}, "b": {"eye": (0, 0, 2, 2)}}, "needs the same parts: a has nose; b has eye"),
    ({"a": {"nose": (0, 0, 2, 2)}, "b": {"nose": (2, 0, 2, 2)}}, "b: nose: .* is no box: .top, left, bottom, right"),
    ({"a": {"nose": (0, 0, 2, 2)}, "b": {"nose": (0, -1, 2, 2)}}, "is no box"),
    ({"a": {}, "b": {}}, "a has no parts"), ({"a": {"nose": (0, 0, 2, 2)}}, "at least 2"),
    ({"a": {"nose": (0, 0, 2)}, "b": {"nose": (0, 0, 2, 2)}}, "nose"),
])
def test_boxes_that_are_none_are_refused(parts, message) -> None:
    with pytest.raises(ValidationError, match=message):
        table.Settings(parts=parts)


def test_an_image_that_does_not_exist_is_named_with_the_nearest(toy) -> None:
    parts = {**PARTS, "dog/1.png": PARTS["dogs/1.png"]}
    with pytest.raises(UsageError, match=r"no image 'dog/1.png' .* Did you mean: dogs/1.png"):
        figure.make(figure.Settings(**{**toy, "parts": parts}), progress=False)


def test_random_places_lie_on_the_image_in_the_sizes_of_its_parts(faces) -> None:
    places = random_places(faces, 40, 0)
    assert places == random_places(faces, 40, 0) != random_places(faces, 40, 1)
    for face, own in zip(faces, places, strict=True):
        sizes = [(b - t, r - le) for t, le, b, r in face.boxes.values()]
        assert [(b - t, r - le) for t, le, b, r in own] == sizes * 20
        assert all(0 <= t < b <= 32 and 0 <= le < r <= 32 for t, le, b, r in own)
        assert len(set(own)) > 20


# ---- signs ----


def test_signs_are_three_valued_and_rounding_is_none() -> None:
    change = torch.tensor([[3.0, -2, 0, 1e-7, -1e-7, 0.1]])
    assert sign(change, 1e-6).tolist() == [[1, -1, 0, 0, 0, 1]] and sign(change, 0.0).tolist() == [[1, -1, 0, 1, -1, 1]]


def test_differing_signs_are_counted_as_in_a_double_loop() -> None:
    random = np.random.default_rng(0)
    changes = [random.integers(-1, 2, 50) for _ in range(4)]
    slow = [sum(x != y for x, y in zip(changes[i], changes[j], strict=True)) / 50
            for i in range(4) for j in range(4) if i < j]
    assert differing(changes) == pytest.approx(slow)
    both = [sum(x != y for x, y in zip(changes[i], changes[j], strict=True)) / 50
            for i in range(4) for j in range(4) if i != j]  # the paper's sum is over both orders
    assert Delta(differing(changes)).mean == pytest.approx(np.mean(both))
    assert Delta(differing(changes)).deviation == pytest.approx(np.std(both))
    assert str(Delta((0.1, 0.3))) == "0.200 ± 0.100"


def test_signs_are_those_of_the_features_of_two_images(faces) -> None:
    net, box = build(), faces[0].boxes["nose"]
    found = signs(net, faces[0], [box], ["3", "6"])
    covered = net.preprocess.tensor(Image.fromarray(cover(faces[0].pixels, box)))
    plain, other = (deconvnet.record(net, x[None]) for x in (faces[0].input, covered))
    for layer in ("3", "6"):
        change = (plain.activations(layer) - other.activations(layer)).flatten()
        slow = [int(c > 1e-5) - int(c < -1e-5) for c in change.tolist()]
        assert np.mean(found[layer][0] != slow) < 0.01 and len(set(slow)) > 1


def test_like_images_change_alike(faces) -> None:
    found = measure(build(), [faces[0]] * 3, [random_places(faces, 2, 0)[0]] * 3, ["3"])
    assert all(one[0].values == (0,) * len(one[0].values) for one in found.values())
    assert list(found) == ["nose", "left eye", "random"] and len(found["random"][0].values) == 2 * 3


# ---- table and figure ----


def test_the_table_has_a_row_for_each_part_with_the_papers_values(toy) -> None:
    made = table.make(table.Settings(**toy, layers=("3", "6"), random=2), progress=False)
    assert list(made.heads) == ["covered", "3", "6", "paper: layer 5", "paper: layer 7"]
    assert [row[0] for row in made.rows] == ["nose", "left eye", "random"]
    assert list(made.rows[1][3:]) == ["0.069 ± 0.007", "0.068 ± 0.013"]
    values = json.loads(json.dumps(made.numbers))["random"]["6"]
    assert made.rows[2][2] == f"{values['mean']:.3f} ± {values['deviation']:.3f}" and len(values["pairs"]) == 6
    assert table.make(table.Settings(**toy, layers=("3", "6"), random=2), progress=False).rows == made.rows


def test_the_figure_shows_each_image_each_part_and_random_places(toy) -> None:
    made = figure.make(figure.Settings(**toy, random=1), progress=False)
    assert [text.words for text in made.drawing.texts] == ["original", "nose", "left eye", "random"]
    assert len(made.drawing.tiles) == 12 and len(made.numbers["images"]) == 3
    assert png(figure.make(figure.Settings(**toy, random=1), progress=False).drawing, {}) == png(made.drawing, {})


def test_what_ships_says_that_it_is_no_evidence() -> None:
    made = figure.make(figure.Settings(), progress=False)
    assert "only two faces" in made.caption and len(made.drawing.tiles) == 35


def rows():
    y, x = np.mgrid[:75, :75]
    pixels = np.stack([3 * x, 3 * y, 225 - 3 * x], axis=2).astype(np.uint8)
    return [[pixels, cover(pixels, (20, 10, 40, 30)), cover(pixels, (5, 45, 25, 65))],
            [pixels[::-1], cover(pixels[::-1], (25, 12, 45, 32)), cover(pixels[::-1], (50, 0, 70, 20))]]


def drawn(wrong=lambda pixels: pixels):
    return draw([[wrong(pixels) for pixels in row] for row in rows()], ["original", "right eye", "random"])


def test_the_figure_looks_as_it_did() -> None:
    assert_golden(drawn(), "correspondence")


@pytest.mark.parametrize("wrong", [lambda p: np.roll(p, 3, axis=1), lambda p: p[:, :, ::-1], lambda p: p // 2 + 64],
                         ids=["shifted", "channels", "scale lost"])
def test_a_wrong_figure_looks_different(wrong) -> None:
    assert_not_golden(drawn(wrong), "correspondence")
    with pytest.raises(UsageError, match="each row needs 2 pictures"):
        draw(rows(), ["original", "right eye"])
