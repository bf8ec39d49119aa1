"""A walk through an atlas in a real browser, with the network off: python tests/atlas/walk.py FOLDER [PROCESSES]

Opens every page of any atlas from the disk and prints what fails: messages of the console, requests that leave the
folder or fail, pictures that are not there, text that cannot be told from its ground, pages that are wider than a
telephone; and walks by keys alone from the overview to a unit and down its way.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import checks
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

MOST = 1.0          # seconds until a page is usable
CONTRAST, OUTLINE = 4.5, 3.0
NARROW = 320        # pixels, of the narrowest telephone

TELEPHONE = {"width": NARROW, "height": 640}

# ---- the browser ----


def launch(playwright: Playwright) -> Browser:
    """Chromium: the system's, or the one that playwright brought."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # which has no sandbox
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])


@contextmanager
def opened(browser: Browser, folder: Path, **options) -> Iterator[tuple[Page, list[str]]]:
    """A page, and what goes wrong on it from now on: the network is off, and every request is watched."""
    options.setdefault("viewport", {"width": 1280, "height": 900})
    context: BrowserContext = browser.new_context(**options)
    context.set_offline(True)
    context.set_default_timeout(10_000)
    page, faults, inside = context.new_page(), [], folder.resolve().as_uri() + "/"
    page.on("console", lambda message: faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith(inside) else
            faults.append(f"asks for {request.url}"))
    page.on("requestfailed", lambda request: None if request.failure == "net::ERR_ABORTED" else  # the page was left
            faults.append(f"failed: {request.url} {request.failure}"))
    page.on("popup", lambda popup: faults.append(f"opens {popup.url}"))
    try:
        yield page, faults
    finally:
        context.close()


def go(page: Page, path: Path) -> float:
    """Opens a page of the atlas; the seconds until it can be used."""
    page.goto(path.resolve().as_uri())
    return page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd") / 1000


# ---- what is looked at on a page ----

PICTURES = """async () => {
  const images = [...document.images];
  for (const image of images) image.loading = 'eager';
  await Promise.all(images.map((image) => image.decode().catch(() => {})));
  const broken = images.filter((image) => !image.naturalWidth).map((image) => image.src);
  const parts = await Promise.all([...document.querySelectorAll('svg image')].map((image) => new Promise((done) => {
    const probe = new Image();
    probe.onload = () => done('');
    probe.onerror = () => done(probe.src);
    probe.src = new URL(image.getAttribute('href'), document.baseURI);
  })));
  return [...broken, ...parts.filter(Boolean)].map((src) => `no picture: ${src}`);
}"""

COLOURS = r"""
const parse = (text) => (text.match(/rgba?\([^)]*\)/g) || []).map((part) => {
  const [r, g, b, a = 1] = part.match(/[\d.]+/g).map(Number);
  return [r, g, b, a];
});
const over = (top, below) => [0, 1, 2].map((n) => top[n] * top[3] + below[n] * (1 - top[3])).concat(1);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const grounds = (element) => {
  let layers = [];
  for (let e = element; e; e = e.parentElement) {
    const style = getComputedStyle(e);
    const drawn = parse(style.backgroundImage);
    if (drawn.length) return drawn.map((colour) => layers.reduceRight((below, top) => over(top, below), colour));
    const colour = parse(style.backgroundColor)[0] || [0, 0, 0, 0];
    layers.push(colour);
    if (colour[3] === 1) break;
  }
  return [layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1])];
};
const faded = (element) => element ? getComputedStyle(element).opacity * faded(element.parentElement) : 1;
const worst = (colour, element) => Math.min(...grounds(element).map((ground) =>
  ratio(over([...colour.slice(0, 3), colour[3] * faded(element)], ground), ground)));
"""

CONTRASTS = "(least) => {" + COLOURS + """
  const found = {};
  const look = (element, words) => {
    const style = getComputedStyle(element);
    if (style.visibility !== 'visible' || element.closest(':disabled, [aria-disabled=true]')) return;
    const colour = parse(element.namespaceURI.endsWith('svg') ? style.fill : style.color)[0];
    const value = worst(colour, element);
    if (value < least) found[`${element.tagName}.${element.className.baseVal ?? element.className}`] = [words, value];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode, range = document.createRange();
    range.selectNodeContents(node);
    if (!node.data.trim() || !range.getClientRects().length) continue;
    look(node.parentElement, node.data.trim().slice(0, 30));
    count += 1;
  }
  for (const control of document.querySelectorAll('select, button, input:not([type=range], [type=radio])'))
    if (control.getClientRects().length) look(control, control.name || control.textContent);
  if (!count) return ['no text'];
  return Object.entries(found).map(([who, [words, value]]) => `contrast ${value.toFixed(2)} of ${who} “${words}”`);
}"""

OUTLINES = "(least) => {" + COLOURS + """
  const found = {}, seen = new Set(), before = document.activeElement;
  for (const element of document.querySelectorAll('a[href], button, select, input, [tabindex]')) {
    const kind = `${element.tagName}.${element.className}${element.type || ''}`;
    if (seen.has(kind) || element.disabled || !element.getClientRects().length) continue;
    seen.add(kind);
    element.focus({ focusVisible: true, preventScroll: true });
    const style = getComputedStyle(element);
    const value = style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 1.5 ? 0
      : worst(parse(style.outlineColor)[0], element.parentElement);
    if (value < least) found[kind] = value;
  }
  before?.focus?.({ preventScroll: true });
  return Object.entries(found).map(([who, value]) => `outline ${value.toFixed(2)} of ${who}`);
}"""

WIDTH = """() => {
  const room = document.documentElement.clientWidth;
  if (document.scrollingElement.scrollWidth <= room) return [];
  const wide = [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > room + 1 &&
    !e.closest('.scroll, .crop, .whole, .skip'));
  return [`${document.scrollingElement.scrollWidth} pixels wide where there are ${room}: ` +
    [...new Set(wide.map((e) => `${e.tagName}.${e.className.baseVal ?? e.className}`))].slice(0, 3)];
}"""


def look(page: Page, colours: bool = False) -> list[str]:
    """What is wrong with the page that is open: its pictures; on a telephone, its width; its colours, if asked for."""
    faults = page.evaluate(PICTURES)
    if colours:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            faults += [f"{scheme}: {fault}" for fault in page.evaluate(CONTRASTS, CONTRAST)]
            faults += [f"{scheme}: {fault}" for fault in page.evaluate(OUTLINES, OUTLINE)]
        page.emulate_media(color_scheme=None)
    size = page.viewport_size
    if size["width"] > NARROW:
        page.set_viewport_size(TELEPHONE)
        faults += page.evaluate(WIDTH)
        page.set_viewport_size(size)
        return faults
    return faults + page.evaluate(WIDTH)


# ---- by keys alone ----


def tab_to(page: Page, wanted: str, most: int = 60) -> None:
    """Presses Tab until what has the focus is what a selector says; it must be seen to have it."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted):
            box = page.evaluate("""() => { const b = document.activeElement.getBoundingClientRect();
                return b.width > 0 && b.bottom > 0 && b.right > 0 && b.top < innerHeight && b.left < innerWidth; }""")
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert box and style != "none", f"{wanted} has the focus and is not seen to have it"
            return
    raise AssertionError(f"Tab does not come to {wanted}")


def until(page: Page, condition: str) -> None:
    """Waits, a few seconds at most, until something holds on the page, whose policy keeps playwright from waiting."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(30)
    raise AssertionError(f"never: {condition}")


def press(page: Page, key: str, leads: str) -> None:
    """Presses a key that leads to another page, whose address ends so."""
    with page.expect_navigation(url=re.compile(f"{re.escape(leads)}(#.*)?$")):
        page.keyboard.press(key)


def walk_by_keys(page: Page, folder: Path, layer: str, units: int) -> None:
    """Overview → layer → first unit → its way down, step by step → neighbours → back up, without a pointer.

    AssertionError, or playwright's, where a key does not do what the help says.
    """
    go(page, folder / "index.html")
    page.keyboard.press("Tab")
    first = page.evaluate("document.activeElement.className")
    assert first == "skip" and page.locator(".skip").bounding_box()["x"] >= 0, "the first Tab shows no way to skip"
    tab_to(page, f"a[href='{layer}/index.html']")
    press(page, "Enter", f"/{layer}/index.html")
    tab_to(page, ".grid a:has(img)")
    unit = int(page.evaluate("document.activeElement.parentElement.dataset.n"))
    press(page, "Enter", f"/{layer}/{unit}/index.html")
    walk_down(page)
    page.keyboard.press("Home")
    page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    if unit + 1 < units:
        press(page, "ArrowRight", f"/{layer}/{unit + 1}/index.html")
        press(page, "ArrowLeft", f"/{layer}/{unit}/index.html")
    press(page, "ArrowUp", f"/{layer}/index.html")
    press(page, "ArrowUp", "/index.html")


def walk_down(page: Page) -> None:
    """The way down of the unit whose page is open, by w, point and comma."""
    page.keyboard.press("w")
    assert page.evaluate("document.activeElement.id") == "way", "w does not lead to the way down"
    steps = page.locator(".descent > li")
    count = steps.count()
    assert count > 1, "the way down has no steps"
    until(page, "document.getElementById('way').getBoundingClientRect().top < innerHeight")
    for number in range(count):
        shown = [n for n in range(count) if steps.nth(n).is_visible()]
        assert shown == [number], f"step {number} of the way: {shown} are shown"
        assert f"{number + 1} of {count}" in page.locator("#way output").inner_text()
        page.keyboard.press(".")
    for number in reversed(range(count - 1)):
        page.keyboard.press(",")
        assert steps.nth(number).is_visible() and not steps.nth(number + 1).is_visible()


# ---- the whole of any atlas ----


def walk_pages(folder: Path, pages: list[Path]) -> tuple[dict[str, list[str]], list[tuple[float, str]]]:
    """What fails on some pages, and how long each took; in a browser of its own."""
    found, times = {}, []
    with sync_playwright() as playwright:
        browser = launch(playwright)
        with opened(browser, folder) as wide, opened(browser, folder, viewport=TELEPHONE) as narrow:
            for path in pages:
                special = not path.parent.name.isdigit() or path.parent.name in ("0", "1")
                (page, faults), name = wide if special else narrow, path.relative_to(folder).as_posix()
                faults.clear()
                times.append((go(page, path), name))
                bad = [*checks.faults(folder, path), *look(page, colours=special), *faults]
                if bad:
                    found[name] = bad
        browser.close()
    return found, times


def main(folder: Path, processes: int) -> int:
    """Prints what fails in the atlas of a folder; how many pages fail."""
    started, pages = time.monotonic(), checks.pages(folder)
    parts = [pages[n::processes] for n in range(processes)]
    with ProcessPoolExecutor(processes) as pool:
        results = list(pool.map(walk_pages, [folder] * processes, parts))
    failed = {name: faults for found, _ in results for name, faults in found.items()}
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for place in sorted(path.parent for path in folder.glob("*/units.json")):
            with opened(browser, folder) as (page, faults):
                try:
                    walk_by_keys(page, folder, place.name, len([p for p in place.iterdir() if p.name.isdigit()]))
                except Exception as error:
                    faults.append(f"by keys: {error}")
                if faults:
                    failed[f"{place.name} by keys"] = list(faults)
        browser.close()
    times = sorted((pair for _, times in results for pair in times), reverse=True)
    for name, faults in sorted(failed.items()):
        print(f"{name}:", *dict.fromkeys(faults), sep="\n    ")
    print(f"{len(pages)} pages, {len(failed)} with faults, {time.monotonic() - started:.0f} s; usable after at most "
          f"{times[0][0]:.2f} s ({times[0][1]}), mostly {times[len(times) // 2][0]:.2f} s")
    return len(failed) + sum(seconds > MOST for seconds, _ in times)


if __name__ == "__main__":
    raise SystemExit(1 if main(Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 2) else 0)
