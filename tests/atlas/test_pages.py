"""The pages of an atlas: everything on them leads somewhere, and every number and picture is the right one."""

import getpass
import io
import json
import re
import shutil
import socket
from functools import cache
from pathlib import Path

import checks
import numpy as np
import pytest
import tiny
import torch
from dom import parse, read
from PIL import Image

import deconvnet
from deconvnet.atlas.pages import load
from deconvnet.atlas.pictures import ACROSS, BLANK, CELL, DOWN, GAP, MAP, MAPS
from deconvnet.descent import chosen_only, descend
from deconvnet.errors import DeconvnetError, UnreadableImage
from deconvnet.gallery import gallery

# ---- every page ----


def test_every_page_leads_to_files_of_the_atlas_and_is_inert_and_accessible(small_atlas):
    pages = checks.pages(small_atlas.folder)
    assert len(pages) == 1 + sum(1 + len(small_atlas.top[layer].fired) for layer in tiny.LAYERS)
    found = {page.relative_to(small_atlas.folder): checks.faults(small_atlas.folder, page) for page in pages}
    assert not {page: faults for page, faults in found.items() if faults}


def test_every_file_is_reached_from_the_overview(small_atlas):
    """Whoever copies what the pages name copies the whole atlas."""
    folder = small_atlas.folder
    reached, left = set(), [folder / "index.html"]
    while left:
        page = left.pop()
        for element in read(page):
            for address in (element[name] for name in ("href", "src") if name in element and element[name][0] != "#"):
                target = (page.parent / address.partition("#")[0]).resolve()
                if target not in reached:
                    reached.add(target)
                    left += [target] if target.suffix == ".html" else []
    kept = {"atlas.json", *(f"{layer}/units.json" for layer in tiny.LAYERS)}
    assert set(tiny.content(folder)) - {path.relative_to(folder.resolve()).as_posix() for path in reached} == kept


PLANTED = [
    ("</main>", '<a href="nowhere.html">x</a></main>', "nowhere"),
    ("</main>", '<a href="../outside.html">x</a></main>', "nowhere"),
    ("</main>", '<a href="https://example.org/">x</a></main>', "elsewhere"),
    ("</main>", '<a href="index.html#gone">x</a></main>', "no such place"),
    ("</main>", '<img src="static/atlas.css"></main>', "no alt"),
    ("</main>", "<p onclick=x>x</p></main>", "onclick"),
    ("</main>", "<p style=x>x</p></main>", "style"),
    ("</main>", "<style>p {}</style></main>", "style"),
    ("</main>", "<script>x</script></main>", "script"),
    ("</main>", "<h1>x</h1></main>", "2 h1"),
    ("</main>", "<input name=x></main>", "without a label"),
    ("</main>", "<button></button></main>", "without words"),
    ("</main>", '<p id="main">x</p></main>', "twice"),
    ("</main>", f"<p>{'x' * 1_000_000}</p></main>", "bytes"),
    ("img-src 'self'", "img-src *", "policy"),
    ('lang="en"', "", "no language"),
    ('class="skip"', "", "before all others"),
]


@pytest.mark.parametrize(("there", "planted", "word"), PLANTED)
def test_the_checks_of_a_page_bite(small_atlas, tmp_path, there, planted, word):
    shutil.copytree(small_atlas.folder / "static", tmp_path / "a" / "static")
    text = '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" ' \
        f'content="{checks.POLICY}"><meta name="viewport"><title>x</title><link href="static/atlas.css"></head><body>' \
        '<a class="skip" href="#main">x</a><main id="main"><h1>x</h1></main></body></html>'
    page = tmp_path / "a" / "index.html"
    (tmp_path / "outside.html").write_text(text)
    page.write_text(text)
    assert checks.faults(page.parent, page) == []
    page.write_text(text.replace(there, planted))
    checks._ids.cache_clear()
    try:
        found = checks.faults(page.parent, page)
    except (AssertionError, ValueError) as error:
        found = [str(error)] if word != "twice" else ["twice"]
    assert any(word in fault for fault in found), found


@pytest.mark.parametrize("text", ["<p><b>x</p></b>", "<p>x", "<p a a>x</p>", "<p><!-- x --></p>", "<?x ?>"])
def test_the_reader_of_pages_is_strict(text):
    with pytest.raises(AssertionError):
        parse(text)


def test_no_file_tells_of_the_machine_that_made_it(small_atlas):
    """Neither a path of it, nor its name, nor the user's."""
    told = [str(small_atlas.folder.parent), str(Path.home()) + "/", str(Path.cwd()), "/tmp/", "/home/"]
    for name, content in tiny.content(small_atlas.folder).items():
        assert not [word for word in told if word.encode() in content], name
        if name.endswith((".html", ".json")):
            words = set(re.findall(r"[\w.-]+", content.decode()))
            assert not words & {getpass.getuser(), socket.gethostname()}, name


# ---- the numbers ----


@pytest.fixture(scope="module")
def answers(small_atlas):
    """By layer each image's strongest activation in each unit (N, U); and the class of each image."""
    net, images = small_atlas.net, small_atlas.images
    found, classes = {layer: [] for layer in tiny.LAYERS}, []
    for number in range(len(images)):
        try:
            x, label = images[number]
        except UnreadableImage:
            continue
        classes.append(label)
        x = x[None]
        for name, module in net.named_children():
            x = module(x)
            if name.startswith("relu"):
                found[name.replace("relu", "conv")].append(x[0].amax((1, 2)).detach().double().numpy())
    return {layer: np.array(rows) for layer, rows in found.items()}, np.array(classes)


def facts(page):
    """What the list beside the pairs says, by its terms."""
    terms = page.one("dl", "facts")
    return {t.words: d.words for t, d in zip(terms.all("dt"), terms.all("dd"), strict=True)}


def number(text):
    """The first number in a text."""
    return float(re.search(r"-?[\d,]*\.?\d+(e[+-]?\d+)?", text)[0].replace(",", ""))


def unit_page(small_atlas, layer, unit):
    return read(small_atlas.folder / layer / str(unit) / "index.html")


def alive(maxima):
    return [unit for unit in range(maxima.shape[1]) if maxima[:, unit].max() > 0]


def close(value):
    return pytest.approx(value, rel=6e-3, abs=1e-9)  # three digits are shown


def selectivity(means):
    highest = means.max()
    rest = (means.sum() - highest) / (len(means) - 1)
    return (highest - rest) / (highest + rest) if highest > 0 else 0.0


def class_means(column, labels):
    return np.array([column[labels == label].mean() for label in range(labels.max() + 1)])


@pytest.mark.parametrize("layer", tiny.LAYERS)
def test_the_facts_of_a_unit_are_those_of_its_activations(small_atlas, answers, layer):
    maxima, labels = answers[0][layer], answers[1]
    for unit in alive(maxima):
        column, page = maxima[:, unit], unit_page(small_atlas, layer, unit)
        told = facts(page)
        assert number(told["Strongest activation"]) == close(column.max())
        assert number(told["Strongest activation"].split("of")[1]) == close(maxima.max())
        assert number(told["Fires in"]) == pytest.approx(100 * (column > 0).mean(), abs=0.51)
        assert "of 30 images" in told["Fires in"] and told["Receptive field"].startswith("×".join([str(
            tiny.FIELDS[layer][0])] * 2))
        assert number(told["Selectivity"]) == close(selectivity(class_means(column, labels)))
        assert ("undiscriminating" in page.one("h1").words) == ((column > 0).mean() >= 0.99)


@pytest.mark.parametrize("layer", tiny.LAYERS)
def test_the_strongest_are_in_order_with_their_images_and_places(small_atlas, answers, layer):
    """The box is where arithmetic by hand says: the receptive field at the position on the map."""
    top, names = small_atlas.top[layer], small_atlas.images.files
    size, stride, start = tiny.FIELDS[layer]
    readable = [n for n, name in enumerate(names) if "broken" not in name]
    for unit in alive(answers[0][layer]):
        column, page = answers[0][layer][:, unit], unit_page(small_atlas, layer, unit)
        order = [n for n in np.argsort(-column, kind="stable") if column[n] > 0][:tiny.K]
        places = page.one("ol", "places").all("li")
        assert [number(li.one("b").words) for li in places] == [close(column[n]) for n in order]
        assert [li.one("span", "file").words for li in places] == [names[readable[n]] for n in order]
        assert [li.one("img")["src"] for li in places] == [f"../../images/{readable[n]}.webp" for n in order]
        for li, (y, x) in zip(places, top.positions[unit].tolist(), strict=False):
            box = li.one("use")
            assert (int(box["x"]), int(box["y"])) == (x * stride + start, y * stride + start)
            drawn = page.by_id(box["href"][1:])
            assert drawn.tag == "rect" and drawn["width"] == drawn["height"] == str(size)
            assert f"({y}, {x})" in li.words and li.one("svg")["viewbox"] == f"0 0 {tiny.SIDE} {tiny.SIDE}"


@pytest.mark.parametrize("layer", tiny.LAYERS)
def test_the_histogram_counts_every_image_in_which_a_unit_fires(small_atlas, answers, layer):
    for unit in alive(answers[0][layer]):
        column, page = answers[0][layer][:, unit], unit_page(small_atlas, layer, unit)
        drawing = page.one("figure", "bins").one("svg")
        counts = np.histogram(column[column > 0], 24, (0, column.max()))[0]
        told = [int(n) for n in drawing["aria-label"].rpartition(": ")[2].split()]
        assert sum(told) == (column > 0).sum() and np.abs(np.array(told) - counts).sum() <= 2  # at the edge of two bins
        drawn = re.findall(r"M(\d+) 70v-([\d.]+)h9V70z", drawing.one("path", "bars")["d"])
        bars = {int(x) // 10: float(height) for x, height in drawn}
        assert bars == {n: pytest.approx(64 * count / max(told), abs=0.05) for n, count in enumerate(told) if count}
        marks = re.findall(r"M([\d.]+) 72v8", drawing.all("path")[1]["d"])
        best = sorted(column[column > 0], reverse=True)[:tiny.K]
        assert [float(x) for x in marks] == [pytest.approx(240 * value / column.max(), abs=0.2) for value in best]


@pytest.mark.parametrize("layer", tiny.LAYERS)
def test_the_classes_that_excite_a_unit_are_in_the_order_of_their_means(small_atlas, answers, layer):
    labels = answers[1]
    for unit in alive(answers[0][layer]):
        means = class_means(answers[0][layer][:, unit], labels)
        order = [n for n in np.argsort(-means, kind="stable") if means[n] > 0][:6]
        rows = unit_page(small_atlas, layer, unit).one("table", "classes").all("tr")
        assert [row.one("th").words for row in rows] == [small_atlas.images.classes[n] for n in order]
        assert [number(row.all("td")[1].words) for row in rows] == [close(means[n]) for n in order]
        assert [float(row.one("meter")["value"]) for row in rows] == [close(means[n]) for n in order]
        assert all(float(row.one("meter")["max"]) == float(rows[0].one("meter")["value"]) for row in rows)


@pytest.mark.parametrize("layer", tiny.LAYERS)
def test_neighbours_are_the_units_whose_activations_go_along(small_atlas, answers, layer):
    maxima = answers[0][layer]
    for unit in alive(maxima):
        varies = maxima.std(0) > 0
        likeness = np.array([np.corrcoef(maxima[:, unit], maxima[:, other])[0, 1] if varies[other] and varies[unit]
                             and other != unit else -1 for other in range(maxima.shape[1])])
        grid = unit_page(small_atlas, layer, unit).all("ul", "grid")
        told = [(int(li.one("b").words), number(li.one("a").words.split()[1])) for ul in grid for li in ul.all("li")]
        assert [value for _, value in told] == [pytest.approx(value, abs=0.0051) for value in sorted(
            likeness[likeness >= 0.1], reverse=True)[:6]]
        assert all(value == pytest.approx(likeness[other], abs=0.0051) for other, value in told)
        assert all(li.one("a")["href"] == f"../{other}/index.html" for ul in grid
                   for li, (other, _) in zip(ul.all("li"), told, strict=True))


def test_the_overview_and_the_pages_of_layers_count_right(small_atlas, answers):
    overview = read(small_atlas.folder / "index.html")
    rows = {row.one("th").words: [cell.words for cell in row.all("td")]
            for row in overview.one("table", "layers").one("tbody").all("tr")}
    for layer, side in zip(tiny.LAYERS, (24, 12, 6), strict=True):
        maxima, labels = answers[0][layer], answers[1]
        fires = (maxima > 0).mean(0)
        size, stride, _ = tiny.FIELDS[layer]
        dead, always = str((fires == 0).sum()), str((fires >= 0.99).sum())
        units, sizes = str(maxima.shape[1]), [f"{n}×{n}" for n in (side, size, stride)]
        assert rows[layer][:-1] == [units, *sizes, dead, always]
        choosy = [selectivity(class_means(maxima[:, unit], labels)) for unit in alive(maxima)]
        assert number(rows[layer][-1]) == close(np.mean(choosy))
        page = read(small_atlas.folder / layer / "index.html")
        lead = page.one("p", "lead").words
        for words in (f"{maxima.shape[1]} units", f"{side}×{side}", f"{size}×{size}", f"{dead} dead",
                      f"{always} undiscriminating"):
            assert words in lead
        check_grid(page.one("ul", "grid"), maxima, labels, small_atlas.images.classes)
        strip = overview.one("section", "strip", lambda e, layer=layer: e.one("h2").words.startswith(layer))
        shown = [int(li["data-n"]) for li in strip.all("li")]
        assert len(shown) >= 4 and shown == np.argsort(-maxima.max(0), kind="stable")[:len(shown)].tolist()


def check_grid(grid, maxima, labels, classes):
    """Each unit once, in order, with the numbers by which it is sorted and filtered."""
    tiles = grid.all("li")
    assert [int(li["data-n"]) for li in tiles] == list(range(maxima.shape[1]))
    for unit, li in enumerate(tiles):
        column = maxima[:, unit]
        means = class_means(column, labels)
        share = (column > 0).mean()
        state = "dead" if share == 0 else "always" if share >= 0.99 else "fires"
        assert li["data-state"] == state and ("dead" in li.text) == (state == "dead")
        assert bool(li.all("span", "always")) == (state == "always")
        assert float(li["data-max"]) == close(column.max()) and float(li["data-fires"]) == close(share)
        assert float(li["data-selectivity"]) == close(selectivity(means))
        assert li.attributes.get("data-class") == (classes[means.argmax()] if share else None)
        assert li.one("a")["href"] == f"{unit}/index.html"


@pytest.mark.parametrize(("layer", "unit", "word"), [("conv2", tiny.DEAD, "dead"), ("conv2", tiny.ALWAYS, "undiscr")])
def test_dead_and_undiscriminating_units_say_so(small_atlas, layer, unit, word):
    page = unit_page(small_atlas, layer, unit)
    assert word in page.one("h1").one("span", "badge").words
    if word == "dead":
        assert "fires in none of the 30 images" in page.one("main").words and not page.all("svg")


def test_labels_stand_wherever_the_unit_is(small_atlas):
    text = tiny.LABELS["conv2"][1]
    folder = small_atlas.folder
    assert text in unit_page(small_atlas, "conv2", 1).one("h1").words
    assert text in unit_page(small_atlas, "conv2", 1).one("title").words
    tile, = (li for li in read(folder / "conv2" / "index.html").all("li") if li["data-n"] == "1")
    assert text in tile.words and "data-label" in tile
    assert text in read(folder / "index.html").one("ul", "labels").words
    shown = {unit for unit in range(tiny.WITH) for li in unit_page(small_atlas, "conv2", unit).all("li")
             if li.all("a") and li.one("a")["href"] == "../1/index.html"}
    assert shown and all(text in unit_page(small_atlas, "conv2", unit).one("main").words for unit in shown)


# ---- the pictures ----


@pytest.fixture(scope="module")
def galleries(small_atlas):
    """By layer the galleries of its units."""
    return {layer: list(gallery(small_atlas.net, small_atlas.top, layer, range(len(small_atlas.top[layer].fired)),
                                small_atlas.images)) for layer in tiny.LAYERS}


@cache
def picture(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def crop(path, svg):
    x, y, width, height = (int(n) for n in svg["viewbox"].split())
    part = picture(path)[y:y + height, x:x + width]
    assert part.shape[:2] == (height, width), "the crop leaves the picture"
    return part


def shaded(values):
    """Signed values as colours: zero is 128, the 99.5 % quantile of all of them ±127."""
    scale = np.quantile(np.abs(values), 0.995) or np.abs(values).max() or 1
    return np.rint(128 + 127 * np.clip(values.astype(float) / scale, -1, 1)).astype(int)


def check_nearest(shown, wanted):
    """Each picture is the one it should be: near to it, and to no other nearer, in lightness, which WebP keeps best."""
    step = 1 + len(shown[0]) // 20
    shown, wanted = (np.array([pixels[::step, ::step].mean(2) for pixels in both]) for both in (shown, wanted))
    away = np.array([np.abs(wanted - pixels).mean((1, 2)) for pixels in shown])
    own = away.diagonal()
    assert own.max() < 12, f"picture {own.argmax()} is {own.max():.1f} away from what it should be"
    other = away.argmin(1)
    for number in np.flatnonzero(other != np.arange(len(own))):
        apart = np.abs(wanted[number] - wanted[other[number]]).mean()
        assert apart < 3, f"picture {number} looks like {other[number]}, which is {apart:.1f} from it"


def enlarged(tile, times):
    return tile.repeat(times, axis=0).repeat(times, axis=1)


@pytest.mark.parametrize("layer", tiny.LAYERS)
def test_the_tiles_of_a_unit_are_its_reconstructions_and_patches(small_atlas, galleries, layer):
    shown, wanted = [], []
    for one in galleries[layer]:
        page, path = unit_page(small_atlas, layer, one.unit), small_atlas.folder / layer / str(one.unit) / "unit.webp"
        buttons, patches = page.all("button", "tr"), page.all("span", "tp")
        assert len(buttons) == len(patches) == len(one.values)
        colours = np.moveaxis(shaded(one.reconstructions), 1, -1) if len(one.values) else []
        for place, button in enumerate(buttons):
            first, patch = button.one("svg"), patches[place].one("svg")
            shown += [crop(path, first), crop(path, patch)]
            times = crop(path, first).shape[0] // one.patches.shape[1]
            wanted += [enlarged(tile, times) for tile in (colours[place], one.patches[place].astype(int))]
        if one.values.size:
            whole = page.by_id("u")
            assert picture(path).shape[:2] == (int(whole["height"]), int(whole["width"]))
            assert whole["href"] == "unit.webp"
    check_nearest(shown, wanted)
    if layer == "conv1":  # small tiles are kept as they are
        assert all(np.array_equal(a, b) for a, b in zip(shown, wanted, strict=True))


@pytest.mark.parametrize("layer", tiny.LAYERS)
@pytest.mark.parametrize("side", ["r", "p"])
def test_each_unit_has_its_own_cell_of_the_sprites(small_atlas, galleries, layer, side):
    page = read(small_atlas.folder / layer / "index.html")
    shown, wanted = [], []
    for one, li in zip(galleries[layer], page.one("ul", "grid").all("li"), strict=True):
        span = li.one("span", side)
        assert bool(span.all("img")) == bool(len(one.values))
        if len(one.values):
            shown.append(cell(small_atlas.folder / layer, span.one("img")))
            wanted.append(drawn(one, side))
    check_nearest(shown, wanted)


def cell(folder, img):
    """The part of a sprite that the classes of its image show."""
    x, y = (int(next(c for c in img.classes if c[0] == letter)[1:]) for letter in "xy")
    sprite = picture(folder / img["src"])
    assert sprite.shape == (DOWN * CELL, ACROSS * CELL, 3)
    return sprite[y * CELL:(y + 1) * CELL, x * CELL:(x + 1) * CELL]


def drawn(one, side):
    """What a cell is to show, pixel by pixel: nine tiles of 31 pixels, a pixel apart."""
    tiles = one.patches.astype(np.float32) if side == "p" else one.reconstructions.transpose(0, 2, 3, 1)
    if tiles.shape[1] > 31:
        tiles = np.array([[np.asarray(Image.fromarray(plane).resize((31, 31), Image.Resampling.BICUBIC))
                           for plane in tile.transpose(2, 0, 1)] for tile in tiles]).transpose(0, 2, 3, 1)
    tiles = tiles.clip(0, 255) if side == "p" else shaded(tiles)
    nearest = ((np.arange(31) + 0.5) * tiles.shape[1] / 31).astype(int)
    page = np.empty((CELL, CELL, 3))
    page[:] = BLANK
    for place, tile in enumerate(tiles):
        y, x = place // 3 * 32, place % 3 * 32
        page[y:y + 31, x:x + 31] = tile[nearest][:, nearest]
    return page


def test_the_rows_of_the_way_are_its_stages(small_atlas):
    net, top = small_atlas.net, small_atlas.top
    for layer in tiny.LAYERS:
        for unit in [u for u in range(len(top[layer].fired)) if top[layer].fired[u]][:12]:
            image, (y, x) = int(top[layer].images[unit, 0]), top[layer].positions[unit, 0].tolist()
            tape = deconvnet.record(net, small_atlas.images[image][0][None])
            _, (stages,) = descend(tape, layer, [(0, unit, y, x)], before_relu=False)
            check_way(small_atlas.folder / layer / str(unit), chosen_only(stages, unit, MAPS))


def check_way(folder, stages):
    items = read(folder / "index.html").one("ol", "descent").all("li")
    assert len(items) == len(stages)
    for number, (item, stage) in enumerate(zip(items, stages, strict=True)):
        words = item.one("p").words.lower()
        assert ("one activation" if stage.step == "seed" else stage.step) in words and stage.module in words
        if number == len(stages) - 1:
            assert item.all("svg")[0]["viewbox"].split()[:2] == ["0", "0"]
            continue
        row = crop(folder / "way.webp", item.one("svg"))
        assert ("three" in item.one("svg").classes) == (stage.switches is not None)
        size = "×".join(map(str, stage.signal.shape[1:]))
        maps, window, _ = item.one("small").words.partition(f", {size}")
        assert window and [int(n) for n in re.findall(r"\d+", maps)] == list(stage.chosen)
        if stage.step == "filter":
            assert f"become {stage.count}." in words
        for group, maps in enumerate((stage.signal, stage.maps, stage.switches)):
            left = group * (MAPS * MAP + GAP)
            for place, values in enumerate([] if maps is None else maps):
                part = row[:, left + place * MAP:left + (place + 1) * MAP]
                check_map(part, values, maps, switches=group == 2)


def check_map(shown, values, together, switches):
    """Every value of a map is a field of its colour."""
    height, width = values.shape
    assert max(height, width) <= MAP
    rows, columns = (((np.arange(n) + 0.5) * MAP / n).astype(int) for n in (height, width))
    colours = np.where(values, 255, 64)
    if not switches:
        there = together[together != 0]
        scale = np.quantile(np.abs(there), 0.995) if there.size else 1
        colours = np.rint(128 + 127 * np.clip(values / (scale or 1), -1, 1)).astype(int)
    away = np.abs(shown[np.ix_(rows, columns)].mean(2) - colours)
    assert away.mean() < 12 and (away < 64).mean() > 0.95, (away.mean(), away.max())


def test_the_whole_images_are_what_the_network_sees(small_atlas):
    for path in (small_atlas.folder / "images").iterdir():
        seen = small_atlas.images.image(int(path.stem)).astype(int)
        assert np.abs(picture(path) - seen).mean() < 16 and picture(path).shape == seen.shape
    used = {int(n) for layer in tiny.LAYERS for n in small_atlas.top[layer].images.flatten() if n >= 0}
    assert {int(path.stem) for path in (small_atlas.folder / "images").iterdir()} == used


def test_pictures_are_webp_and_small(small_atlas):
    for path in small_atlas.folder.rglob("*.webp"):
        image = Image.open(io.BytesIO(path.read_bytes()))
        assert image.format == "WEBP" and not image.info.get("exif") and not image.info.get("xmp")
    assert json.loads((small_atlas.folder / "conv1" / "units.json").read_text())["units"] == 6
    assert torch.get_num_threads() == 1


def test_an_atlas_of_another_version_is_refused(small_atlas, tmp_path):
    about = json.loads((small_atlas.folder / "atlas.json").read_text(encoding="utf-8"))
    (tmp_path / "atlas.json").write_text(json.dumps(about | {"format": 0}), encoding="utf-8")
    with pytest.raises(DeconvnetError, match="another version"):
        load(tmp_path)
