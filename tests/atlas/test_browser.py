"""The atlas in a real browser, opened from the disk with the network off; left out where there is none."""

import io
import shutil

import checks
import numpy as np
import pytest
import tiny
from dom import read
from payloads import PAYLOADS
from PIL import Image
from test_hostile import PLAIN, render
from test_hostile import known as plain_facts  # noqa: F401  (a fixture)
from test_pages import cell

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install deconvnet[browser]")

import walk  # noqa: E402

from deconvnet.atlas import pages  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        try:
            browser = walk.launch(started)
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, small_atlas):
    """A page on which nothing may go wrong."""
    with walk.opened(browser, small_atlas.folder) as (page, faults):
        yield page
        assert faults == []


UNIT = "conv2/1"


def at(small_atlas, place):
    return small_atlas.folder / place / "index.html"


# ---- every page ----


def test_every_page_opens_and_nothing_goes_wrong(browser, small_atlas):
    found = {}
    with walk.opened(browser, small_atlas.folder, viewport=walk.TELEPHONE) as (page, faults):
        for path in checks.pages(small_atlas.folder):
            faults.clear()
            assert walk.go(page, path) < 5
            found[path.relative_to(small_atlas.folder).as_posix()] = [*walk.look(page), *faults]
    assert not {name: faults for name, faults in found.items() if faults}


@pytest.mark.parametrize("place", ["", "conv2", UNIT, f"conv2/{tiny.DEAD}", f"conv2/{tiny.ALWAYS}"])
def test_text_and_focus_stand_out_in_light_and_dark(opened, small_atlas, place):
    walk.go(opened, at(small_atlas, place))
    if place == UNIT:
        opened.get_by_label("overlaid").check()
    assert walk.look(opened, colours=True) == []
    opened.keyboard.press("h")
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        assert opened.evaluate(walk.CONTRASTS, walk.CONTRAST) == []


PLANTED = [
    ("p { color: #999 !important }", "contrast"), ("p { opacity: .5 }", "contrast"),
    (".grid a { background: #777 }", "contrast"), ("* { outline: none !important }", "outline"),
    (":focus-visible { outline: 3px solid #eee !important }", "outline"), ("h1 { width: 400px }", "pixels wide"),
    (".grid { display: block } .grid li { width: 90rem }", "pixels wide"),
]


@pytest.mark.parametrize(("style", "word"), PLANTED)
def test_what_looks_at_pages_sees(browser, small_atlas, style, word):
    with walk.opened(browser, small_atlas.folder, bypass_csp=True) as (page, _):
        walk.go(page, at(small_atlas, "conv2"))
        page.add_style_tag(content=style)
        assert any(word in fault for fault in walk.look(page, colours=True))


@pytest.mark.parametrize(("there", "planted", "word"), [
    ("</main>", '<img src="gone.webp" alt="x"></main>', "no picture"),
    ('href="unit.webp"', 'href="gone.webp"', "no picture"),
    ("</main>", '<img src="../../../outside.webp" alt="x"></main>', "asks for"),
    ("</main>", '<img src="https://example.org/x.webp" alt="x"></main>', "asks for|Content Security"),
    ("</main>", "<p onclick='x' style='color: red'>x</p></main>", "Content Security"),
    ("</main>", "<script>alert(1)</script></main>", "Content Security"),
    ('id="way"', 'id="gone"', ""),
    ('class="descent"', 'class="gone"', "error"),
])
def test_what_watches_pages_sees(browser, small_atlas, tmp_path, there, planted, word):
    folder = shutil.copytree(small_atlas.folder, tmp_path / "a")
    (tmp_path / "outside.webp").write_bytes((folder / "images" / "1.webp").read_bytes())
    path = folder / UNIT / "index.html"
    assert there in path.read_text()
    path.write_text(path.read_text().replace(there, planted))
    with walk.opened(browser, folder) as (page, faults):
        walk.go(page, path)
        found = [*walk.look(page), *faults]
        if word:
            assert any(part in fault for fault in found for part in word.split("|")), found
        else:
            with pytest.raises(AssertionError):
                walk.walk_down(page)


SHAPE = """() => {
  const shape = (e) => [e.localName, e.getAttributeNames().sort(), [...e.children].map(shape)];
  return shape(document.documentElement);
}"""


def test_hostile_names_are_text_to_a_browser_too(browser, plain_facts, tmp_path):  # noqa: F811
    """All payloads one after the other in every field: the browser makes the same elements of it as of a plain word."""
    shapes = []
    for word in (PLAIN, "".join(payload[:300] for payload in PAYLOADS)):
        folder = tmp_path / str(len(shapes))
        names = sorted(render(folder, plain_facts, word))
        with walk.opened(browser, folder, viewport=walk.TELEPHONE) as (page, faults):
            shapes.append({})
            for name in names:
                walk.go(page, folder / name)
                shapes[-1][name] = page.evaluate(SHAPE)
                assert page.evaluate(walk.WIDTH) == [], name
            assert word[:200] in page.content() or word != PLAIN
            assert all("ERR_FILE_NOT_FOUND" in fault for fault in faults), faults  # there are no pictures here
    assert shapes[0] == shapes[1] and len(shapes[0]) > 8


# ---- keys ----


@pytest.mark.parametrize("layer", tiny.LAYERS)
def test_one_walks_by_keys_alone(opened, small_atlas, layer):
    walk.walk_by_keys(opened, small_atlas.folder, layer, len(small_atlas.top[layer].fired))


def test_help_opens_and_closes_and_the_focus_returns(opened, small_atlas):
    walk.go(opened, at(small_atlas, UNIT))
    walk.tab_to(opened, "button.tr")
    dialog = opened.get_by_role("dialog")
    for key in ("h", "?"):
        opened.keyboard.press(key)
        assert dialog.is_visible() and opened.evaluate("document.activeElement.closest('dialog') !== null")
        opened.keyboard.press("ArrowRight")  # the keys of the page rest
        opened.keyboard.press("Escape")
        assert not dialog.is_visible() and opened.evaluate("document.activeElement.matches('button.tr')")
    opened.get_by_role("button", name="Keys").click()
    assert dialog.is_visible() and opened.url.endswith(f"{UNIT}/index.html")
    opened.keyboard.press("Enter")
    assert not dialog.is_visible() and opened.evaluate("document.activeElement.textContent").startswith("Keys")


def test_the_help_names_every_key_and_has_a_name(opened, small_atlas):
    walk.go(opened, at(small_atlas, UNIT))
    opened.keyboard.press("h")
    dialog = opened.get_by_role("dialog", name="Keys")
    assert dialog.is_visible()
    for key in ("←", "→", "↑", "Tab", "Enter", "s", "w", ",", ".", "h", "Esc"):
        assert key in dialog.inner_text()


def test_keys_with_ctrl_and_in_fields_are_the_browsers(opened, small_atlas):
    walk.go(opened, at(small_atlas, "conv2"))
    opened.get_by_label("Order by").focus()
    for key in ("ArrowRight", "ArrowLeft", "h", "w"):
        opened.keyboard.press(key)
        opened.wait_for_timeout(150)  # so that a page would be left
        assert opened.url.partition("#")[0].endswith("/conv2/index.html")
    opened.keyboard.press("Control+ArrowRight")
    opened.keyboard.press("Alt+h")
    assert opened.url.partition("#")[0].endswith("/conv2/index.html") and not opened.get_by_role("dialog").is_visible()


def test_going_to_a_unit_by_its_number(opened, small_atlas):
    walk.go(opened, at(small_atlas, ""))
    opened.locator("select[name=layer]").select_option(label="conv2")
    opened.get_by_label("number").fill("40")
    opened.keyboard.press("Enter")
    assert opened.url.endswith("/made/index.html")  # there is none
    opened.get_by_label("number").fill("39")
    with opened.expect_navigation(url="**/conv2/39/index.html"):
        opened.keyboard.press("Enter")


# ---- the grid of a layer ----


def shown(page):
    tiles = page.evaluate("""[...document.querySelectorAll('.grid li')].filter((li) => li.getClientRects().length)
        .map((li) => li.dataset.n)""")
    return [int(number) for number in tiles]


def test_sorting_a_layer(opened, small_atlas):
    walk.go(opened, at(small_atlas, "conv2"))
    found = small_atlas.top["conv2"]
    units = list(range(tiny.WITH))
    assert shown(opened) == units
    for value, name in (("max", "maximum"), ("fires", "fires"), ("selectivity", "selectivity")):
        opened.get_by_label("Order by").select_option(value)
        numbers = [float(f"{x:.4g}") for x in getattr(found, name).tolist()]
        assert shown(opened) == sorted(units, key=lambda unit, numbers=numbers: (-numbers[unit], unit))
    opened.get_by_label("Order by").select_option("n")
    assert shown(opened) == units


def test_filtering_by_state_class_and_label(opened, small_atlas):
    walk.go(opened, at(small_atlas, "conv2"))
    found = small_atlas.top["conv2"]
    dead, always = found.dead.tolist(), found.always.tolist()
    units = range(tiny.WITH)
    wanted = {"dead": dead, "always": always, "label": [1, tiny.WITH - 1],
              "fires": [unit for unit in units if unit not in dead + always], "": list(units)}
    for state, numbers in wanted.items():
        opened.get_by_label("Units").select_option(state)
        assert shown(opened) == numbers
        assert opened.locator("output").inner_text() == f"{len(numbers)} units"
    for label, name in enumerate(small_atlas.images.classes):
        mine = [unit for unit in units if found.preferred[unit] == label]
        choose = opened.get_by_label("That prefer")
        if not mine:
            assert name not in choose.inner_text()
            continue
        choose.select_option(name)
        assert shown(opened) == mine
    opened.get_by_label("Units").select_option("dead")
    assert shown(opened) == [] and opened.get_by_text("No unit of this layer is like that").is_visible()


def test_showing_reconstructions_or_patches_alone(opened, small_atlas):
    walk.go(opened, at(small_atlas, "conv2"))
    for choice, seen in (("both", (True, True)), ("r", (True, False)), ("p", (False, True))):
        opened.get_by_label("Show").select_option(choice)
        tile = opened.locator(".grid li[data-n='1']")
        assert (tile.locator(".crop.r").is_visible(), tile.locator(".crop.p").is_visible()) == seen


def test_the_choice_survives_going_to_a_unit_and_back(opened, small_atlas):
    walk.go(opened, at(small_atlas, "conv2"))
    for label, value in (("Show", "r"), ("Order by", "selectivity"), ("Units", "fires"), ("That prefer", "coffee")):
        opened.get_by_label(label).select_option(value)
    before = shown(opened)
    assert 0 < len(before) < tiny.WITH

    def same():
        values = [opened.get_by_label(label).input_value() for label in ("Show", "Order by", "Units", "That prefer")]
        return shown(opened) == before and values == ["r", "selectivity", "fires", "coffee"]

    def to_a_unit():
        with opened.expect_navigation(url="**/conv2/*/index.html*"):
            opened.locator(".grid li:not([hidden]) a").first.click()

    to_a_unit()
    opened.go_back()
    assert same()
    to_a_unit()
    with opened.expect_navigation():
        opened.keyboard.press("ArrowUp")
    assert same()
    to_a_unit()
    with opened.expect_navigation():
        opened.locator("nav").get_by_role("link", name="conv2").click()
    assert same()
    opened.reload()
    assert same()


def test_the_grids_of_two_networks_are_ordered_and_filtered_together(browser, small_atlas, tmp_path):
    folder = shutil.copytree(small_atlas.folder, tmp_path / "a")
    shutil.copytree(small_atlas.folder, folder / "beside")
    pages.write_both(folder, pages.load(folder), pages.load(folder / "beside"))
    with walk.opened(browser, folder) as (page, faults):
        for name in ("index", *tiny.LAYERS):
            walk.go(page, folder / "both" / f"{name}.html")
            assert walk.look(page, colours=True) == []
        walk.go(page, folder / "both" / "conv2.html")
        page.get_by_label("Order by").select_option("max")
        page.get_by_label("Units").select_option("fires")
        both = shown(page)
        half = len(both) // 2
        strongest = small_atlas.top["conv2"].maximum
        assert both[:half] == both[half:] == sorted(both[:half], key=lambda unit: -float(strongest[unit]))
        assert page.locator("output").inner_text() == f"{half} and {half} units"
        with page.expect_navigation():
            page.locator(".grid").nth(1).locator("li:not([hidden]) a").first.click()
        assert f"/beside/conv2/{both[0]}/" in page.url
        page.go_back()
        assert shown(page) == both and faults == []


def test_each_tile_of_the_grid_shows_its_own_cell(opened, small_atlas):
    """What the browser draws, not what the page says: the sprites are cut at the right places."""
    walk.go(opened, at(small_atlas, "conv2"))
    assert walk.look(opened) == []
    tiles = read(at(small_atlas, "conv2")).one("ul", "grid").all("li")
    for side in "rp":
        seen = [li for li in tiles if li["data-state"] != "dead"][::3]
        wanted = np.array([cell(small_atlas.folder / "conv2", li.one("span", side).one("img")).mean(2) for li in seen])
        for number, li in enumerate(seen):
            place = opened.locator(f".grid li[data-n='{li['data-n']}'] .crop.{side}")
            away = np.abs(wanted - picture(place, (96, 96)).mean(2)).mean((1, 2))
            assert away.argmin() == number and away[number] < 25, li["data-n"]


def picture(place, size):
    """What an element looks like, as so many pixels (h, w, 3)."""
    image = Image.open(io.BytesIO(place.screenshot())).convert("RGB")
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).astype(float)


# ---- a unit's pairs ----


def opacity(page, number=0):
    """How much of the patch is seen over a reconstruction."""
    walk.until(page, "document.getAnimations().length === 0")
    return float(page.evaluate(
        "(n) => getComputedStyle(document.querySelectorAll('.tr')[n].querySelectorAll('svg')[1]).opacity", number))


def test_a_pair_is_exchanged_by_click_and_by_key(opened, small_atlas):
    walk.go(opened, at(small_atlas, UNIT))
    tile = opened.locator("button.tr").first
    assert opacity(opened) == 0
    before = picture(tile, (40, 40))
    tile.click()
    opened.mouse.move(0, 0)
    patch = picture(opened.locator(".tp").first, (40, 40))
    assert opacity(opened) == 1 and tile.get_attribute("aria-pressed") == "true"
    walk.until(opened, "document.getAnimations().length === 0")
    assert np.abs(picture(tile, (40, 40)) - patch)[4:-4, 4:-4].mean() < 3 < np.abs(before - patch)[4:-4, 4:-4].mean()
    tile.press("Enter")
    opened.mouse.move(0, 0)
    assert opacity(opened) == 0 and tile.get_attribute("aria-pressed") == "false"
    tile.press(" ")
    assert opacity(opened) == 1


def test_exchanged_under_the_pointer_and_overlaid(opened, small_atlas):
    walk.go(opened, at(small_atlas, UNIT))
    tile = opened.locator("button.tr").nth(4)
    opened.get_by_label("exchanged").check()
    assert not opened.locator(".tp").first.is_visible()
    opened.mouse.move(0, 0)
    assert opacity(opened, 4) == 0
    tile.hover()
    assert opacity(opened, 4) == 1 and opacity(opened, 3) == 0
    opened.mouse.move(0, 0)
    walk.tab_to(opened, "button.tr")
    assert opacity(opened, 0) == 1  # the focus exchanges as the pointer does
    opened.get_by_label("overlaid").check()
    assert opacity(opened, 4) == pytest.approx(0.5)
    mix = opened.get_by_label("how much of the reconstruction")
    mix.focus()
    opened.keyboard.press("Home")
    assert opacity(opened, 4) == 1
    opened.keyboard.press("End")
    assert opacity(opened, 4) == 0
    opened.locator("h1").click()
    for view in ("beside", "exchanged", "overlaid"):
        opened.keyboard.press("s")
        assert opened.locator("#pairs").get_attribute("data-view") == view
        assert opened.locator(f"input[value={view}]").is_checked()


@pytest.mark.parametrize("view", ["side by side", "exchanged"])
def test_a_tap_exchanges_a_pair_and_another_one_puts_it_back(browser, small_atlas, view):
    telephone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with walk.opened(browser, small_atlas.folder, **telephone) as (page, faults):
        walk.go(page, at(small_atlas, UNIT))
        page.get_by_label(view).check()
        tile = page.locator("button.tr").nth(2)
        for pressed in (1, 0, 1):
            tile.tap()
            assert opacity(page, 2) == pressed
        assert faults == []


def test_the_way_down_all_at_once(opened, small_atlas):
    walk.go(opened, at(small_atlas, UNIT))
    steps = opened.locator(".descent > li")
    count = steps.count()
    assert [steps.nth(n).is_visible() for n in range(count)] == [True] + [False] * (count - 1)
    opened.get_by_role("button", name="all at once").click()
    assert all(steps.nth(n).is_visible() for n in range(count))
    opened.get_by_role("button", name="all at once").click()
    opened.locator("button[name=down]").click()
    assert [steps.nth(n).is_visible() for n in range(count)] == [False, True] + [False] * (count - 2)
    assert opened.locator("button[name=up]").is_enabled()


# ---- other ways to look ----


def test_without_a_script_everything_is_there(browser, small_atlas):
    with walk.opened(browser, small_atlas.folder, java_script_enabled=False) as (page, faults):
        page.goto(at(small_atlas, UNIT).as_uri())
        for selector in (".tr", ".tp", ".descent > li", ".places li", ".bins", ".classes tr"):
            places = page.locator(selector)
            assert places.count() and all(places.nth(n).is_visible() for n in range(places.count())), selector
        for selector in ("form", ".stepper"):
            assert not any(page.locator(selector).nth(n).is_visible() for n in range(page.locator(selector).count()))
        page.goto(at(small_atlas, "conv2").as_uri())
        tiles = page.locator(".grid li")
        assert tiles.count() == tiny.WITH and tiles.last.is_visible() and not page.locator("form").is_visible()
        with page.expect_navigation(url=f"**/{UNIT}/index.html"):
            tiles.nth(1).locator("a").click()
        assert faults == []


MOVES = """() => [...document.querySelectorAll('*')].some((e) => {
  const style = getComputedStyle(e);
  const times = `${style.transitionDuration}, ${style.animationDuration}`.split(',');
  return times.some((time) => parseFloat(time) > 0) || style.scrollBehavior === 'smooth';
})"""


def test_who_wants_no_motion_sees_none(browser, small_atlas):
    for motion in ("reduce", "no-preference"):
        with walk.opened(browser, small_atlas.folder, reduced_motion=motion) as (page, _):
            moves = []
            for place in ("", "conv2", UNIT):
                walk.go(page, at(small_atlas, place))
                moves.append(page.evaluate(MOVES))
            assert any(moves) == (motion == "no-preference")


def test_a_unit_prints_as_a_handout(browser, small_atlas):
    with walk.opened(browser, small_atlas.folder, color_scheme="dark") as (page, faults):
        walk.go(page, at(small_atlas, UNIT))
        page.get_by_label("overlaid").check()
        page.emulate_media(media="print")
        for selector in (".view", "#way", ".stepper", "header button", ".steps"):
            assert not page.locator(selector).first.is_visible(), selector
        for selector in ("h1", ".tr", ".tp", ".bins", ".classes", ".facts", ".places img"):
            places = page.locator(selector)
            assert all(places.nth(n).is_visible() for n in range(places.count())), selector
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate(walk.CONTRASTS, walk.CONTRAST) == [] and opacity(page) == 0
        assert page.pdf(format="A4").count(b"/Type /Page\n") == 1
        walk.go(page, at(small_atlas, "conv2"))
        assert not page.locator(".controls").is_visible() and page.locator(".grid li").last.is_visible()
        assert faults == []


@pytest.mark.parametrize("place", ["", "conv2", UNIT])
@pytest.mark.parametrize(("width", "scale"), [(320, 1), (640, 2), (390, 3), (2560, 1)])
def test_no_page_scrolls_sideways(browser, small_atlas, place, width, scale):
    """320 pixels are also 1280 at four times the size; 640 are 1280 at twice."""
    with walk.opened(browser, small_atlas.folder, viewport={"width": width, "height": 800},
                     device_scale_factor=scale) as (page, _):
        walk.go(page, at(small_atlas, place))
        if place == UNIT:
            page.get_by_role("button", name="all at once").click()
        assert page.evaluate(walk.WIDTH) == []
        for view in page.locator("input[name=view]").all():
            view.check()
            assert page.evaluate(walk.WIDTH) == []
