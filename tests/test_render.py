"""Arrays to pictures: zero is mid-grey, nothing is cropped, blank or mislabelled, and layouts are pixel-exact."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deconvnet.colours import normalise, robust_scale
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.images import GREY
from deconvnet.layout import GAP, MARGIN, PAPER, TITLE, Sheet, Tile, line
from deconvnet.render import figure_2, filter_sheet, fit, layer_sheet, reconstruction_sheet, unit_sheet


def unit(number=0, k=9, side=7, layer="conv1", seed=0):
    """A unit whose tiles are all different, and differ between reconstructions and patches."""
    draw = np.random.default_rng((seed, number))
    patches = draw.integers(0, 256, (k, side, side, 3), dtype=np.uint8)
    return SimpleNamespace(layer=layer, unit=number, patches=patches, remark="" if k else "dead",
                           reconstructions=draw.normal(size=(k, 3, side, side)).astype(np.float32))


def find(picture: np.ndarray, tile: np.ndarray) -> list[tuple[int, int]]:
    """Every (y, x) at which the tile stands in the picture, pixel for pixel."""
    height, width = tile.shape[:2]
    corners = picture[:picture.shape[0] - height + 1, :picture.shape[1] - width + 1]
    candidates = np.argwhere((corners == tile[0, 0]).all(-1))
    return [(int(y), int(x)) for y, x in candidates if np.array_equal(picture[y:y + height, x:x + width], tile)]


def where(picture: np.ndarray, tile: np.ndarray) -> tuple[int, int]:
    (place,) = find(picture, tile)
    return place


# ---- numbers to colours ----


def test_zero_is_mid_grey_and_the_scale_is_symmetric():
    pixels = np.array([-2.0, -1, 0, 1, 2]).reshape(1, 1, 5).repeat(3, 0)
    assert normalise(pixels, scale=2).tolist() == [[[1] * 3, [64] * 3, [128] * 3, [192] * 3, [255] * 3]]


def test_colours_keep_their_channel():
    pixels = np.zeros((3, 2, 2))
    pixels[0] = 1
    assert normalise(pixels).tolist() == [[[255, 128, 128]] * 2] * 2


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-20, 1e20))
def test_a_tile_and_its_negative_mirror_each_other_at_any_magnitude(seed, magnitude):
    pixels = np.random.default_rng(seed).normal(size=(2, 3, 5, 4)) * magnitude
    colours = normalise(pixels).astype(int)
    assert colours.shape == (2, 5, 4, 3)
    assert np.array_equal(colours - GREY, GREY - normalise(-pixels).astype(int))
    assert np.array_equal(np.sign(colours - GREY)[np.abs(colours - GREY) > 1],
                          np.sign(np.moveaxis(pixels, -3, -1))[np.abs(colours - GREY) > 1])


def test_a_few_outliers_do_not_make_the_rest_grey():
    pixels = np.ones((1, 3, 100, 100))
    pixels[0, 0, 0, :100] = 1000.0  # 0.33 % of the values
    assert robust_scale(pixels) == 1
    pixels[0, 1, 0, :100] = 1000.0  # 0.67 %
    assert robust_scale(pixels) == 1000


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20_000), st.sampled_from(["normal", "rising", "few", "unlike"]),
       st.sampled_from([np.float32, np.float64]))
def test_the_scale_is_the_quantile_that_numpy_gives(seed, count, kind, dtype):
    draw = np.random.default_rng(seed)
    pixels = draw.normal(size=count).astype(dtype)
    if kind == "rising":
        pixels = np.sort(pixels)
    elif kind == "few":
        pixels *= draw.random(count) < 0.01
    elif kind == "unlike":  # what every sixteenth is says nothing about the others
        pixels[::16] = 100
    sizes = np.abs(pixels)
    assert robust_scale(pixels) == pytest.approx(float(np.quantile(sizes, 0.995) or sizes.max()), rel=1e-6)


def test_what_is_almost_everywhere_zero_is_still_seen():
    pixels = np.zeros((1, 3, 100, 100))
    pixels[0, 0, 0, 0] = 5
    assert robust_scale(pixels) == 5 and normalise(pixels).max() == 255


def test_a_caption_stands_below_in_lines_that_have_room():
    caption = ", ".join(["a network, on photographs, guided"] * 3)
    plain, long = (unit_sheet(unit(side=60), caption=words) for words in ("", caption))
    assert plain.texts == long.texts[:1] and long.width == plain.width
    words = [text.words for text in long.texts[1:]]
    assert len(words) > 1 and ", ".join(words) == caption
    heights = [text.y for text in long.texts]
    assert heights == sorted(set(heights)) and heights[1] > plain.height - 20
    assert long.picture().getpixel((1, long.height - 1)) == (PAPER,) * 3


@pytest.mark.parametrize("shape", [(9, 3, 7, 7), (0, 3, 7, 7)])
def test_all_zero_or_nothing_is_mid_grey(shape):
    assert np.array_equal(normalise(np.zeros(shape)), np.full((shape[0], 7, 7, 3), GREY))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_and_not_drawn(wrong):
    pixels = np.zeros((1, 3, 4, 4))
    pixels[0, 1, 2, 3] = wrong
    with pytest.raises(DeconvnetError, match="NaN or infinity"):
        normalise(pixels)


def test_contrast_is_per_unit_and_by_option_per_tile_or_per_layer():
    weak, strong = unit(0), unit(1)
    weak.reconstructions = weak.reconstructions / 100
    weak.reconstructions[0] /= 100

    def drawn(contrast):
        picture = np.asarray(layer_sheet([weak, strong], tile=7, contrast=contrast).picture())
        return lambda pixels, scale: len(find(picture, normalise(pixels, scale)))

    first = weak.reconstructions[0]
    scales = {"unit": robust_scale(weak.reconstructions), "tile": robust_scale(first),
              "layer": robust_scale(np.stack([weak.reconstructions, strong.reconstructions]))}
    for contrast in scales:
        found = {name: drawn(contrast)(weak.reconstructions[1] if name != "tile" else first, scale)
                 for name, scale in scales.items()}
        assert found == {name: int(name == contrast) for name in scales}
    with pytest.raises(UsageError, match="per-unit"):
        layer_sheet([weak], contrast="per-unit")


# ---- one unit ----


@pytest.mark.parametrize("zoom", [1, 2, 5])
@pytest.mark.parametrize(("k", "columns"), [(9, 3), (4, 2), (1, 1), (5, 3), (2, 2), (16, 4)])
def test_a_unit_sheet_shows_every_tile_exactly_once_and_in_order(k, columns, zoom):
    one = unit(5, k)
    picture = np.asarray(unit_sheet(one, zoom).picture())
    step, big = 7 * zoom + 1, np.ones((zoom, zoom, 1), np.uint8)
    origin = where(picture, np.kron(normalise(one.reconstructions, robust_scale(one.reconstructions))[0], big))
    for index in range(k):
        row, column = divmod(index, columns)
        left = where(picture, np.kron(normalise(one.reconstructions)[index], big))
        right = where(picture, np.kron(one.patches[index], big))
        assert left == (origin[0] + row * step, origin[1] + column * step)
        assert right == (left[0], left[1] + columns * step - 1 + GAP)
    assert origin[1] == GAP
    assert picture.shape[0] == origin[0] + -(-k // columns) * step - 1 + GAP


def test_missing_tiles_are_blank_and_a_dead_unit_says_so():
    one = unit(3, 4)
    whole, part = np.asarray(unit_sheet(unit(3, 9)).picture()), np.asarray(unit_sheet(one, k=9).picture())
    assert part.shape == whole.shape
    y, x = where(part, one.patches[3])
    assert (part[y:y + 7, x + 8:x + 8 + 15] == PAPER).all() and (part[y + 8:y + 15, x:x + 23] == PAPER).all()
    words = [text.words for text in unit_sheet(unit(3, 0)).texts]
    assert words == ["conv1:3 dead"] and [text.words for text in unit_sheet(one).texts] == ["conv1:3"]


def test_the_same_arrays_give_the_same_picture_however_they_are_laid_out_in_memory():
    one, other = unit(), unit()
    other.patches = np.asfortranarray(other.patches)
    other.reconstructions = other.reconstructions.astype(np.float64)
    assert unit_sheet(one).png() == unit_sheet(other).png()


@pytest.mark.parametrize("wrong", [{"zoom": 0}, {"zoom": -1}])
def test_a_senseless_zoom_is_refused(wrong):
    with pytest.raises(UsageError):
        unit_sheet(unit(), **wrong)


def test_tiles_of_different_sizes_are_refused():
    one = unit()
    one.patches = one.patches[:, :-1]
    with pytest.raises(UsageError, match="one size"):
        unit_sheet(one)
    with pytest.raises(UsageError, match="one size"):
        layer_sheet([unit(0), unit(1, side=8)])


# ---- layers ----


@pytest.mark.parametrize(("height", "width", "tile", "expected"), [
    (7, 7, 80, (77, 77)), (27, 27, 80, (54, 54)), (75, 75, 80, (75, 75)), (80, 80, 80, (80, 80)),
    (139, 139, 80, (80, 80)), (20, 40, 80, (40, 80)), (100, 200, 80, (40, 80)), (1, 1000, 80, (1, 80)),
])
def test_tiles_grow_by_whole_numbers_and_shrink_to_what_is_allowed(height, width, tile, expected):
    assert fit(height, width, tile) == expected


@pytest.mark.parametrize(("count", "columns"), [(9, 3), (16, 4), (12, 4), (10, 2), (1, 1), (2, 2), (7, 3), (20, 5)])
def test_a_layer_has_the_papers_grid_with_patches_in_the_same_order(count, columns):
    units = [unit(number) for number in range(count)]
    sheet = layer_sheet(units, tile=14)
    picture = np.asarray(sheet.picture())
    big = np.ones((2, 2, 1), np.uint8)
    left = [where(picture, np.kron(normalise(one.reconstructions)[0], big)) for one in units]
    right = [where(picture, np.kron(one.patches[0], big)) for one in units]
    apart = 3 * 14 + 2 + GAP
    assert [x - left[0][1] for _, x in left] == [index % columns * apart for index in range(count)]
    assert [(y, x) for y, x in right] == [(y, x + columns * apart - GAP + MARGIN) for y, x in left]
    assert len({y for y, _ in left}) == -(-count // columns) and left == sorted(left)
    assert [text.words for text in sheet.texts] == ["conv1"] + [f"{n}" if len(f"conv1:{n}") > 7 else f"conv1:{n}"
                                                               for n in [*range(count)] * 2]


def test_every_address_stands_right_above_its_own_group():
    units = [unit(number * 31, side=27, layer="conv2") for number in range(16)]
    sheet = layer_sheet(units)
    picture = np.asarray(sheet.picture())
    for one in units:
        labels = [text for text in sheet.texts if text.words == f"conv2:{one.unit}"]
        first = [normalise(one.reconstructions)[0], one.patches[0]]
        places = [where(picture, np.kron(pixels, np.ones((2, 2, 1), np.uint8))) for pixels in first]
        for label, (y, x) in zip(labels, places, strict=True):
            assert x == label.x and 0 < y - label.y < 20
            ink = (picture[label.y:y, x:x + 160] < 100).any(-1)
            assert ink.sum() > 60, "the label is not there"


@pytest.mark.parametrize("layer", ["conv1", "features.denseblock4.denselayer16.conv2", "层", "a$b$", "x" * 300])
@pytest.mark.parametrize("k", [9, 0])
def test_no_word_is_cropped_or_runs_into_another(layer, k):
    units = [unit(number, k, layer=layer) for number in (0, 17, 1023)]
    for sheet in (layer_sheet(units), layer_sheet(units, tile=7), unit_sheet(units[2])):
        picture = np.asarray(sheet.picture())
        inner = picture[4:-4, 4:-4]
        assert (inner < PAPER).sum() == (picture < PAPER).sum(), "something reaches the edge"
        boxes = [(text.x, text.y, text.size, text.words) for text in sheet.texts]
        assert len({(x, y) for x, y, _, _ in boxes}) == len(boxes)
        for one in sheet.texts:
            alone = np.asarray(Sheet(sheet.width, sheet.height, texts=(one,)).picture())
            others = Sheet(sheet.width, sheet.height, sheet.tiles, tuple(text for text in sheet.texts if text != one))
            ink = (alone < 255).any(-1)
            assert ink.any() and (np.asarray(others.picture())[ink] == PAPER).all()
        assert any("1023" in text.words for text in sheet.texts)


def test_the_first_layer_shows_its_filters_above_their_patches():
    units = [unit(number) for number in range(9)]
    filters = np.random.default_rng(1).normal(size=(9, 3, 7, 7))
    picture = np.asarray(layer_sheet(units, tile=14, filters=filters).picture())
    places = [where(picture, np.kron(normalise(weights), np.ones((3, 3, 1), np.uint8))) for weights in filters]
    groups = [where(picture, np.kron(one.patches[0], np.ones((2, 2, 1), np.uint8))) for one in units]
    first = places[0]
    assert [(y - first[0], x - first[1]) for y, x in places] == [(r * 22, c * 22) for r in range(3) for c in range(3)]
    assert places[-1][0] + 21 < groups[0][0] and places[0][1] == groups[0][1] and groups == sorted(groups)
    assert not find(picture, np.kron(normalise(units[0].reconstructions)[0], np.ones((2, 2, 1), np.uint8)))
    with pytest.raises(UsageError, match="9 units and 8 filters"):
        layer_sheet(units, filters=filters[:8])


def test_a_sheet_of_filters_shows_all_of_them_on_one_scale_or_each_on_its_own():
    filters = np.random.default_rng(0).normal(size=(11, 3, 4, 4)) * np.arange(1, 12)[:, None, None, None]
    scale = robust_scale(filters)
    for together in (True, False):
        picture = np.asarray(filter_sheet(filters, "conv1", together, columns=4, zoom=3).picture())
        places = [where(picture, normalise(one, scale if together else None).repeat(3, 0).repeat(3, 1))
                  for one in filters]
        assert places == sorted(places) and len({x for _, x in places}) == 4
    with pytest.raises(UsageError, match="no filters"):
        filter_sheet(filters[:0])


def test_large_tiles_are_shrunk_smoothly():
    one = unit(0, side=160)
    one.patches[:] = np.indices((160, 160)).sum(0)[..., None] % 2 * 255  # a chessboard of single pixels
    sheet = layer_sheet([one], tile=80)
    patch, picture = sheet.tiles[-1], np.asarray(sheet.picture())
    assert patch.pixels.shape == (80, 80, 3) and (patch.width, patch.height) == (80, 80)
    inner = picture[patch.y + 3:patch.y + 77, patch.x + 3:patch.x + 77]
    assert inner.min() >= 118 and inner.max() <= 138, "aliased: a chessboard shrunk by two is grey"


@pytest.mark.parametrize("contrast", ["unit", "tile", "layer"])
def test_fine_strokes_do_not_turn_grey_when_they_are_shrunk(contrast):
    one = unit(0, side=160)
    one.reconstructions[:] = (np.indices((160, 160)).sum(0) % 8 == 0) * 1.0 - (np.indices((160, 160)).sum(0) % 8 == 1)
    colours = layer_sheet([one], tile=60, contrast=contrast).tiles[0].pixels
    assert np.quantile(colours, 0.01) < 10 and np.quantile(colours, 0.99) > 246


def test_a_tile_that_is_not_square_keeps_its_shape():
    one = unit(0, side=160)
    one.patches, one.reconstructions = one.patches[:, :, :40], one.reconstructions[:, :, :, :40]
    assert {tile.pixels.shape for tile in layer_sheet([one], tile=80).tiles} == {(80, 20, 3)}
    assert {(tile.height, tile.width) for tile in layer_sheet([one], tile=80).tiles} == {(80, 20)}
    one.patches, one.reconstructions = one.patches[:, :1], one.reconstructions[:, :, :1]
    assert {tile.pixels.shape for tile in layer_sheet([one], tile=10).tiles} == {(1, 10, 3)}


def test_no_units_and_no_layers_are_refused():
    for call in (lambda: layer_sheet([]), lambda: figure_2([]), lambda: figure_2([[]])):
        with pytest.raises(UsageError, match="no "):
            call()


# ---- the page ----


def page(k=9):
    sides, counts = (7, 27, 75, 107, 139), (9, 16, 12, 10, 10)
    return [[unit(number, k, side, f"conv{n + 1}", seed=n) for number in range(count)]
            for n, (side, count) in enumerate(zip(sides, counts, strict=True))]


def test_figure_2_is_arranged_as_the_papers():
    sheet = figure_2(page(1), np.random.default_rng(0).normal(size=(9, 3, 7, 7)))
    places = {text.words: (text.y, text.x) for text in sheet.texts if text.words.startswith("Layer")}
    one, two, three, four, five = (places[f"Layer {n}"] for n in range(1, 6))
    assert one[0] == two[0] < three[0] < four[0] == five[0]
    assert one[1] == three[1] == four[1] < two[1] and five[1] > sheet.width / 3
    assert len(sheet.tiles) == 2 * (9 + 16 + 12 + 10 + 10)
    assert len(sheet.texts) == 5 + 9 + 2 * (16 + 12 + 10 + 10)
    corners = [(tile.x, tile.y, tile.x + tile.width, tile.y + tile.height) for tile in sheet.tiles]
    assert min(min(x, y) for x, y, _, _ in corners) >= GAP
    assert all(right <= sheet.width - GAP and bottom <= sheet.height - GAP for _, _, right, bottom in corners)
    for index, (x, y, right, bottom) in enumerate(corners):
        assert not any(x < r and a < right and y < b and c < bottom for a, c, r, b in corners[:index]), "tiles overlap"


def test_other_numbers_of_layers_stand_one_below_the_other():
    sheet = figure_2([[unit()], [unit()], [unit()]], titles=["one", "two", "three"])
    titles = {text.words: text.y for text in sheet.texts if text.words in ("one", "two", "three")}
    assert list(titles) == sorted(titles, key=titles.__getitem__) and len(titles) == 3


def test_figure_and_picture_agree():
    sheet = layer_sheet([unit(number) for number in range(4)], tile=28)
    figure = sheet.figure(dpi=100)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    drawn = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    picture = np.asarray(sheet.picture()).astype(int)
    assert drawn.shape == picture.shape
    inside = np.zeros(picture.shape[:2], bool)
    for tile in sheet.tiles:
        inside[tile.y + 1:tile.y + tile.height - 1, tile.x + 1:tile.x + tile.width - 1] = True
    assert np.abs(drawn - picture)[inside].mean() < 1


def test_the_words_of_a_figure_are_no_wider_than_their_places():
    sheet = layer_sheet([unit(number, layer="WWWWiiii") for number in (1111, 888)], tile=40, title="W" * 20)
    figure = sheet.figure(dpi=100)
    figure.canvas.draw()
    assert not any(drawn.get_parse_math() for drawn in figure.axes[0].texts), "a $ in a name is no formula"
    for drawn, text in zip(figure.axes[0].texts, sheet.texts, strict=True):
        box = drawn.get_window_extent()
        alone = np.asarray(Sheet(sheet.width, sheet.height, texts=(text,)).picture())
        ink = np.flatnonzero((alone < 255).any((0, 2)))
        assert box.x0 >= text.x - 1 and box.x1 <= ink.max() + 6
        assert sheet.height - box.y0 <= text.y + 1.3 * text.size + 2


def test_a_name_in_another_language_is_written():
    def drawn(words):
        return line(words, TITLE).picture().tobytes()

    assert len({drawn(letter) for letter in "öñçŁЖλ×"}) == 7, "letters, not boxes"


def test_a_pdf_holds_text_as_text_pixels_as_they_are_and_no_date():
    sheet = layer_sheet([unit(number, layer="a$b$c") for number in range(2)], tile=28)
    data = sheet.pdf({"Title": "two units"})
    assert data == sheet.pdf({"Title": "two units"})
    assert data.startswith(b"%PDF") and b"CreationDate" not in data and b"two units" in data
    assert b"/CIDFontType2" in data and b"/Type3" not in data  # a TrueType font, and not drawn letters
    assert layer_sheet([unit(layer="层")]).pdf()  # a name that the font cannot write gives no warning
    assert data.count(b"/Width 7") >= 36 and b"/Interpolate true" not in data


def test_a_png_carries_its_metadata_and_is_the_same_every_time():
    sheet = unit_sheet(unit())
    data = sheet.png({"provenance": "zfnet é", "layer": "conv1"})
    assert data == sheet.png({"provenance": "zfnet é", "layer": "conv1"})
    with Image.open(io.BytesIO(data)) as image:
        assert image.text == {"provenance": "zfnet é", "layer": "conv1"}
        assert np.array_equal(np.asarray(image), np.asarray(sheet.picture()))


def test_a_tile_is_drawn_where_its_box_is():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    picture = np.asarray(Sheet(5, 4, (Tile(2, 1, 2, 2, pixels),)).picture())
    assert np.array_equal(picture[1:3, 2:4], pixels) and (picture != PAPER).any(-1).sum() == 4


def test_filters_column_by_column_as_in_figure_6():
    filters = np.random.default_rng(0).normal(size=(8, 3, 7, 7))
    sheet = filter_sheet(filters, rows=3, zoom=1)
    scale = robust_scale(filters)
    places = [where(np.asarray(sheet.picture()), normalise(one, scale)) for one in filters]
    assert places == [(GAP + 8 * (n % 3), GAP + 8 * (n // 3)) for n in range(8)]


def test_reconstructions_alone_are_the_left_half_of_a_layer():
    units = [unit(n) for n in range(3)]
    alone, both = (sheet(units, tile=7, columns=2) for sheet in (reconstruction_sheet, layer_sheet))
    tiles = {tile.pixels.tobytes() for tile in alone.tiles}
    assert len(alone.tiles) == 27 and tiles < {tile.pixels.tobytes() for tile in both.tiles}
    assert {text.words for text in alone.texts} == {text.words for text in both.texts}
